"""The self-test's vectors: one small program for each kind of layer, random from a fixed seed, for any array.

Channels are chosen so that blocks of input and output are crossed and the last ones are partly filled. What must come out is computed by
the golden model where the test runs; that this computer does so rightly is checked with ``vectors.json``, which holds a CRC of each.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from driver.golden import GoldenDevice
from driver.runtime import Npu
from driver.selftest.builder import Builder, Pooling
from hw.image_layout import ImageLayout
from hw.isa import ArrayConfig, Pool
from hw.program import Program

SIGNED = (-128, 127)
Rng = np.random.Generator


@dataclass(frozen=True)
class Vector:
    """One program, one image, and what to suspect when the result is wrong."""

    program: Program
    image: NDArray[np.uint8]
    suspect: str

    @cached_property
    def expected(self) -> NDArray[np.int64]:
        """The golden model's result, shape of ``Program.output``."""
        with Npu(GoldenDevice(self.program.config, 64 << 20)) as golden:
            golden.load(self.program)
            return golden.run(self.image).result.astype(np.int64)

    @cached_property
    def crc(self) -> int:
        """CRC-32 of image and result: does not depend on how the program lies in memory."""
        return zlib.crc32(self.expected.astype("<i4").tobytes(), zlib.crc32(self.image.tobytes()))


@dataclass(frozen=True)
class Kind:
    """A kind of layer: its name, what to suspect when it is wrong, and how its program is made."""

    name: str
    suspect: str
    build: Callable[[Kind, Rng, ArrayConfig], Program]

    def vector(self, config: ArrayConfig) -> Vector:
        """The vector for an array; the same one each time."""
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), config.cp, config.kp])
        program = self.build(self, rng, config)
        layout = program.image
        image = rng.integers(0, 256, (layout.height, layout.width, layout.channels), np.uint8)
        if self.name == MULTIPLIERS:
            image = _one_hot(config)
        return Vector(program, image, self.suspect)


def _weights(rng: Rng, c_out: int, c_in: int, kernel: int) -> NDArray[np.int64]:
    return rng.integers(-128, 128, (c_out, c_in, kernel, kernel))


def _usual_shift(c_in: int, kernel: int) -> int:
    """Leaves most sums within a byte, and a few saturated."""
    return round(np.log2((c_in * kernel * kernel) ** 0.5 * 74 * 147 / 90))


def _one(kind: Kind, rng: Rng, c: ArrayConfig, kernel: int, size: tuple[int, int], stride: int, pad: int) -> Program:
    """One convolution over two blocks of input channels and two of output channels."""
    c_in, c_out = c.cp + c.cp // 2, c.kp + c.kp // 2
    b = Builder(kind.name, c, ImageLayout.plain(*size, c_in))
    bias = rng.integers(-(1 << 14), 1 << 14, c_out)
    b.conv(b.image, _weights(rng, c_out, c_in, kernel), _usual_shift(c_in, kernel), bias, stride=stride, pad=pad)
    return b.program()


def _conv(
    kernel: int, size: tuple[int, int], stride: int = 1, pad: int = 0
) -> Callable[[Kind, Rng, ArrayConfig], Program]:
    return lambda kind, rng, c: _one(kind, rng, c, kernel, size, stride, pad)


def _pooled(pool: Pooling, signed: bool = False) -> Callable[[Kind, Rng, ArrayConfig], Program]:
    def build(kind: Kind, rng: Rng, c: ArrayConfig) -> Program:
        channels = c.kp + c.kp // 2
        b = Builder(kind.name, c, ImageLayout.plain(9, 11, c.cp))
        clip = SIGNED if signed else (0, 255)
        b.conv(b.image, _weights(rng, channels, c.cp, 1), _usual_shift(c.cp, 1), clip=clip, pool=pool)
        return b.program()

    return build


def _stem(kind: Kind, rng: Rng, c: ArrayConfig) -> Program:
    layout = ImageLayout.for_stem((32, 32, 3), 7, 2, 3, (16, 16))
    b = Builder(kind.name, c, layout)
    channels = c.kp + 2
    weights = layout.rewrite_weights(_weights(rng, channels, 3, 7))
    b.conv(b.image, weights, _usual_shift(3, 7), rng.integers(-(1 << 14), 1 << 14, channels))
    return b.program()


def _residual(kind: Kind, rng: Rng, c: ArrayConfig) -> Program:
    channels = c.kp + c.kp // 2
    b = Builder(kind.name, c, ImageLayout.plain(8, 8, c.cp))
    shortcut = b.conv(b.image, _weights(rng, channels, c.cp, 1), _usual_shift(c.cp, 1), clip=SIGNED)
    trunk = b.conv(b.image, _weights(rng, channels, c.cp, 1), _usual_shift(c.cp, 1))
    res_shift = rng.integers(0, 9, channels)
    signed = b.conv(
        trunk,
        _weights(rng, channels, channels, 3),
        _usual_shift(channels, 3),
        pad=1,
        residual=shortcut,
        res_shift=res_shift,
    )
    b.conv(signed, _weights(rng, channels, channels, 1), _usual_shift(channels, 1), residual=trunk, res_shift=res_shift)
    return b.program()


def _relu(kind: Kind, rng: Rng, c: ArrayConfig) -> Program:
    """Negative sums become 0, then a signed tensor is read, then values are cut at 6 bits."""
    b = Builder(kind.name, c, ImageLayout.plain(8, 8, c.cp))
    signed = b.conv(b.image, _weights(rng, c.cp, c.cp, 1), _usual_shift(c.cp, 1), clip=SIGNED)
    rectified = b.conv(signed, _weights(rng, c.cp, c.cp, 1), _usual_shift(c.cp, 1) - 2)
    b.conv(rectified, _weights(rng, c.cp, c.cp, 1), _usual_shift(c.cp, 1), clip=(0, 63))
    return b.program()


def _requantise(kind: Kind, rng: Rng, c: ArrayConfig) -> Program:
    """Every shift from 0 to 24, a channel each; small shifts on small sums, so that halves to be rounded are frequent."""
    channels = 2 * c.kp
    shifts = np.arange(channels) % 25
    weights = np.zeros((channels, c.cp, 1, 1), np.int64)
    weights[np.arange(channels), rng.integers(0, c.cp, channels)] = rng.choice([-3, -1, 1, 3], (channels, 1, 1))
    bias = np.where(shifts > 8, rng.integers(-100, 100, channels) << np.maximum(shifts - 1, 0), 0)
    b = Builder(kind.name, c, ImageLayout.plain(16, 16, c.cp))
    b.conv(b.image, weights, shifts, bias, clip=SIGNED)
    return b.program()


def _saturation(kind: Kind, rng: Rng, c: ArrayConfig) -> Program:
    """Sums that reach far beyond a byte, to either side, and bounds of all sorts."""
    b = Builder(kind.name, c, ImageLayout.plain(8, 8, c.cp))
    extreme = rng.choice([-128, 127], (c.cp, c.cp, 1, 1))
    wide = b.conv(b.image, extreme, 2, rng.choice([-1 << 30, 0, 1 << 30], c.cp), clip=SIGNED)
    narrow = b.conv(wide, extreme, 1, clip=(-5, 3))
    b.conv(narrow, extreme, 0, clip=(7, 201))
    return b.program()


def _tiles(kind: Kind, rng: Rng, c: ArrayConfig) -> Program:
    """More pixels than the accumulators hold, in tiles of which the last one is shorter."""
    b = Builder(kind.name, c, ImageLayout.plain(41, 37, c.cp))
    b.conv(b.image, _weights(rng, 2 * c.kp, c.cp, 1), _usual_shift(c.cp, 1))
    return b.program()


def _multipliers(kind: Kind, rng: Rng, c: ArrayConfig) -> Program:
    """Pixel p feeds input lane p alone, so that each number of the result comes from one multiplier."""
    b = Builder(kind.name, c, ImageLayout.plain(1, c.cp, c.cp))
    b.conv(b.image, _weights(rng, c.kp, c.cp, 1), 8, clip=SIGNED)
    return b.program()


def _one_hot(c: ArrayConfig) -> NDArray[np.uint8]:
    return np.where(np.eye(c.cp, dtype=bool), np.uint8(255), np.uint8(0))[None]


ARRAY = "the multiplier array or the clock: lower the clock; if it stays, the bitstream missed its timing or the device is damaged"
READER = (
    "the address generator or an activation bank: lower the clock; if it stays, the bitstream or the device is damaged"
)
OUTPUT = "the output stage: lower the clock; if it stays, the bitstream missed its timing or the device is damaged"
MULTIPLIERS = "every multiplier"

KINDS = (
    Kind(MULTIPLIERS, ARRAY, _multipliers),
    Kind("1x1 convolution", ARRAY, _conv(1, (9, 7))),
    Kind("3x3 convolution", READER, _conv(3, (8, 9), pad=1)),
    Kind("3x3 convolution, stride 2", READER, _conv(3, (11, 9), stride=2, pad=1)),
    Kind("7x7 stem", "the image's layout or the reader: is the software of the bitstream's release?", _stem),
    Kind("padding", READER, _conv(5, (4, 6), pad=4)),
    Kind("tiles", "the accumulators: lower the clock; if it stays, a block RAM of them is damaged", _tiles),
    Kind("max pool", "the pool's line buffer: lower the clock", _pooled(Pooling(Pool.MAX, 3, 2, 1))),
    Kind("average pool", "the pool's line buffer: lower the clock", _pooled(Pooling(Pool.AVERAGE, 2, 2, 0, 2))),
    Kind("global sum", "the pool's sums: lower the clock", _pooled(Pooling(Pool.GLOBAL_SUM))),
    Kind("residual add", "the residual's read port or the output stage: lower the clock", _residual),
    Kind("ReLU and signed input", OUTPUT, _relu),
    Kind("requantise, shift per channel", OUTPUT, _requantise),
    Kind("saturation", OUTPUT, _saturation),
)
"""Every kind of layer that the array runs."""
