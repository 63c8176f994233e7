"""Small random networks for the tests: a featurizer as fused layers, and its answers computed without program, memory or device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hls.npu.emit import compile_layers
from hls.npu.layer import FusedLayer, Pooling, Tensor
from hw.golden import convolve, requantise
from hw.isa import ArrayConfig, Pool, load_config
from hw.program import Program

SIZE, CHANNELS = 12, 24
SIM_SMALL = load_config("sim-small")


def featurizer_layers(seed: int, size: int = SIZE, channels: int = CHANNELS) -> list[FusedLayer]:
    """A stem, a convolution with a residual, and a global sum: [size, size, 3] -> [channels]."""
    rng = np.random.default_rng(seed)
    half = size // 2

    def layer(name: str, source: Tensor, output: Tensor, kernel: int, shift: int, **more: Any) -> FusedLayer:
        return FusedLayer(
            name,
            source,
            output,
            weights=rng.integers(-128, 128, (channels, source.channels, kernel, kernel)).astype(np.int8),
            bias=rng.integers(-4000, 4000, channels).astype(np.int32),
            shift=np.full(channels, shift, np.uint8),
            rows=half,
            columns=half,
            pad_top=kernel // 2,
            pad_left=kernel // 2,
            **more,
        )

    image = Tensor("image", size, size, 3, fraction_bits=8)
    trunk = Tensor("stem", half, half, channels, fraction_bits=4)
    inner = Tensor("inner", half, half, channels, fraction_bits=4)
    sums = Tensor("sums", 1, 1, channels, "int32", fraction_bits=4)
    return [
        layer("stem", image, trunk, 3, 9, stride=2),
        layer("inner", trunk, inner, 3, 10),
        layer(
            "last",
            inner,
            sums,
            1,
            9,
            residual=trunk,
            res_shift=np.full(channels, 8, np.uint8),
            pool=Pooling(Pool.GLOBAL_SUM),
        ),
    ]


def featurizer(seed: int, config: ArrayConfig = SIM_SMALL, **shape: int) -> Program:
    """featurizer_layers() compiled."""
    return compile_layers(f"random-{seed}", featurizer_layers(seed, **shape), config)


def feature_sums(layers: list[FusedLayer], image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The global sums [channels] of ``image``, layer by layer on plain [h, w, c] tensors."""
    values: dict[str, NDArray[np.int64]] = {layers[0].source.name: image.astype(np.int64)}
    for d in layers:
        acc = convolve(
            values[d.source.name], d.weights.astype(np.int64), d.stride, d.pad_top, d.pad_left, d.rows, d.columns
        )
        residual = values[d.residual.name] if d.residual else 0
        res_shift = np.zeros(d.c_out, np.int64) if d.res_shift is None else d.res_shift.astype(np.int64)
        y = requantise(
            acc, d.bias.astype(np.int64), residual, res_shift, d.shift.astype(np.int64), d.clip_low, d.clip_high
        )
        values[d.output.name] = y.sum(axis=(0, 1)) if d.pool.mode == Pool.GLOBAL_SUM else y
    return values[layers[-1].output.name].astype(np.int32)


def random_image(rng: np.random.Generator, program: Program) -> NDArray[np.uint8]:
    """A uint8 image of the shape that ``program`` expects."""
    shape = (program.image.height, program.image.width, program.image.channels)
    return rng.integers(0, 256, shape, dtype=np.uint8)
