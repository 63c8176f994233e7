"""How the host lays an image into activation words, and the stem weights that match.

A first convolution of few channels would leave most of the array's input lanes idle. With ``block = stride`` the image becomes
space-to-depth: each block x block patch is one position, so the stride goes to 1. With ``columns`` neighbouring positions gathered into one
word, the taps across disappear as well. ResNet's 7x7/2 on 3 channels becomes 4x1/1 on 48 channels: 4 passes instead of 49.
All padding happens here, on the host. ``block = columns = 1`` is the plain layout.
"""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.native import NativeBuildError
from hw.native_packer import NativePacker

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageLayout:
    """From an image [height, width, channels] to the tensor [rows, cols, lanes] that the first layer reads."""

    height: int
    width: int
    channels: int
    block: int = 1
    """Space-to-depth factor; 1 leaves pixels as they are."""
    columns: int = 1
    """Neighbouring positions gathered into one word."""
    pad_top: int = 0
    pad_left: int = 0
    rows: int = 0
    cols: int = 0

    @classmethod
    def plain(cls, height: int, width: int, channels: int) -> ImageLayout:
        """The image as it is."""
        return cls(height, width, channels, rows=height, cols=width)

    @classmethod
    def for_stem(
        cls, image: tuple[int, int, int], kernel: int, stride: int, pad: int, out: tuple[int, int]
    ) -> ImageLayout:
        """The layout under which a ``kernel`` x ``kernel`` / ``stride`` convolution becomes ``taps`` x 1 / 1."""
        taps = math.ceil(kernel / stride)
        return cls(*image, block=stride, columns=taps, pad_top=pad, pad_left=pad, rows=out[0] + taps - 1, cols=out[1])

    @property
    def lanes(self) -> int:
        """Channels of the laid-out tensor."""
        return self.columns * self.block**2 * self.channels

    @property
    def taps(self) -> int:
        """Kernel rows of the rewritten convolution."""
        return self.columns

    def arrange(self, image: NDArray[Any]) -> NDArray[Any]:
        """[height, width, channels] -> [rows, cols, lanes], lane = ((column * block + dy) * block + dx) * channels + c.

        Raises ValueError when the image has another shape.
        """
        self.check_shape(image.shape)
        size = image.itemsize
        as_bytes = replace(self, channels=self.channels * size)
        out = np.empty(self.rows * self.cols * self.lanes * size, np.uint8)
        Packer(as_bytes, as_bytes.lanes, as_bytes.lanes).pack(np.ascontiguousarray(image).view(np.uint8), out)
        return out.view(image.dtype).reshape(self.rows, self.cols, self.lanes)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless it is that of an image."""
        expected = (self.height, self.width, self.channels)
        if shape != expected:
            raise ValueError(f"the image is {shape}, the program expects {expected}")

    def word_bytes(self, cp: int, port_bytes: int) -> int:
        """Bytes of an activation word that carry lanes of the image, in whole beats; the others need not be sent."""
        return math.ceil(min(self.lanes, cp) / port_bytes) * port_bytes

    def pack(self, image: NDArray[np.uint8], cp: int, word_bytes: int) -> NDArray[np.uint8]:
        """The first ``word_bytes`` bytes of each activation word, [blocks * rows * cols, word_bytes], as the NPU reads them."""
        packer = _packers.of(self, cp, word_bytes)
        out = np.empty(packer.nbytes, np.uint8)
        packer.pack(image, out)
        return out.reshape(-1, word_bytes)

    def rewrite_weights(self, weights: NDArray[Any]) -> NDArray[Any]:
        """[c_out, channels, k, k] of the original convolution -> [c_out, lanes, taps, 1]."""
        c_out, channels, k, _ = weights.shape
        span = self.taps * self.block
        full = np.zeros((c_out, channels, span, span), weights.dtype)
        full[:, :, :k, :k] = weights
        split = full.reshape(c_out, channels, self.taps, self.block, self.taps, self.block)
        # [c_out, c, ty, dy, tx, dx] -> lanes (tx, dy, dx, c), taps ty
        return split.transpose(0, 4, 3, 5, 1, 2).reshape(c_out, self.lanes, self.taps, 1)

    def to_json(self) -> dict[str, int]:
        """Plain numbers for the program file."""
        return asdict(self)


class Packer:
    """Lays out uint8 images of ``layout`` for arrays of ``cp`` lanes, one after another; an image costs no allocation. Not thread safe.

    Pixels and words move as opaque items, which is several times as fast as byte by byte: pixels to where those of a patch are
    neighbours, and from there, where neighbouring patches are neighbours too, whole words to their place. The compiled ``NativePacker``
    is held against this one.
    """

    def __init__(self, layout: ImageLayout, cp: int, word_bytes: int) -> None:
        b, wide, channels = layout.block, layout.cols + layout.columns - 1, layout.channels
        self.nbytes = math.ceil(layout.lanes / cp) * layout.rows * layout.cols * word_bytes
        """Of a packed image."""
        self._layout = layout
        padded = np.zeros((layout.rows * b, wide * b, channels), np.uint8)
        # Rows and columns that no output reads (an even kernel tail) are cut off.
        self._height = min(layout.height, layout.rows * b - layout.pad_top)
        self._width = min(layout.width, wide * b - layout.pad_left)
        self._inside = padded[layout.pad_top :, layout.pad_left :][: self._height, : self._width]
        patches = padded.reshape(layout.rows, b, wide, b * channels)
        depth = np.empty((layout.rows, wide, b, b * channels), np.uint8) if b > 1 else padded
        # One copy for each row of the patches: with all in one NumPy takes twice as long.
        self._rows = [(_items(depth[:, :, dy]), _items(patches[:, dy])) for dy in range(b)] if b > 1 else []
        step = b * b * channels
        self._parts = []
        """For each block of lanes: bytes of a word that hold some, and the words, [rows, cols] of items."""
        for first in range(0, layout.lanes, cp):
            taken = min(cp, layout.lanes - first)
            words: NDArray[np.void] = np.ndarray(
                (layout.rows, layout.cols), f"V{taken}", depth, offset=first, strides=(wide * step, step)
            )
            self._parts.append((taken, words))
        self._word_bytes = word_bytes

    def pack(self, image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Write ``image`` [height, width, channels] to ``out`` [nbytes], the NPU's image buffer. Raises ValueError for another shape."""
        self._layout.check_shape(image.shape)
        np.copyto(self._inside, image[: self._height, : self._width])
        for to, source in self._rows:
            np.copyto(to, source)
        blocks = out.reshape(len(self._parts), self._layout.rows, self._layout.cols, self._word_bytes)
        for block, (taken, words) in zip(blocks, self._parts, strict=True):
            np.copyto(_items(block[:, :, :taken]), words)
            if taken < self._word_bytes:
                block[:, :, taken:] = 0


def fastest_packer(layout: ImageLayout, cp: int, word_bytes: int) -> Packer | NativePacker:
    """The compiled Packer, or NumPy's where there is no compiler."""
    return _fastest()(layout, cp, word_bytes)


@cache
def _fastest() -> type[Packer] | type[NativePacker]:
    try:
        NativePacker.prepare()
    except NativeBuildError as error:
        LOG.info("images are laid out by NumPy, which takes three times as long: %s", error)
        return Packer
    return NativePacker


class _Packers(threading.local):
    """Each thread's, of the layouts that it packed for last: making one takes longer than packing a small image."""

    def __init__(self) -> None:
        self.of = lru_cache(maxsize=4)(fastest_packer)


_packers = _Packers()


def _items(array: NDArray[np.uint8]) -> NDArray[np.void]:
    """[a, b, n] bytes -> [a, b] opaque items of n bytes; the last axis must be contiguous."""
    items: NDArray[np.void] = array.view(f"V{array.shape[2]}")[:, :, 0]
    return items
