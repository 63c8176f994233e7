"""Random networks of fused layers for the NPU: every kernel, stride, padding, pool and residual that the array can run.

Shared by the whole-NPU cocotb bench and by the Verilated device's tests. A drawn network that the compiler refuses (an accumulator
that might overflow, say) is drawn again.
"""

from __future__ import annotations

import numpy as np

from hls.npu.emit import compile_layers
from hls.npu.layer import CompileError, FusedLayer, Pooling, Tensor
from hw.isa import ArrayConfig, Pool
from hw.program import Program

Rng = np.random.Generator


def random_program(rng: Rng, config: ArrayConfig, layers: int = 3, size: int = 12, channels: int = 40) -> Program:
    """A program of 1 to ``layers`` layers on an image of at most ``size`` x ``size``, with at most ``channels`` channels a layer."""
    while True:
        try:
            return compile_layers("random", random_layers(rng, layers, size, channels), config)
        except CompileError:
            continue


def random_layers(rng: Rng, layers: int, size: int, channels: int) -> list[FusedLayer]:
    """A chain of layers; where shapes allow, a layer adds an earlier tensor as its residual."""
    height, width = (int(n) for n in rng.integers(1, size + 1, 2))
    tensor = Tensor("image", height, width, int(rng.integers(1, channels + 1)))
    earlier: list[Tensor] = []
    chain: list[FusedLayer] = []
    count = int(rng.integers(1, layers + 1))
    for number in range(count):
        layer = _random_layer(rng, f"layer{number}", tensor, earlier, channels, last=number == count - 1)
        chain.append(layer)
        tensor = layer.output
        earlier.append(tensor)
    return chain


def _random_layer(rng: Rng, name: str, source: Tensor, earlier: list[Tensor], channels: int, last: bool) -> FusedLayer:
    square = [int(rng.choice([1, 3]))] * 2
    kernel = [int(k) for k in rng.choice([1, 1, 2, 3, 3, 4, 5, 6, 7], 2)] if rng.random() < 0.5 else square
    stride = int(rng.choice([1, 1, 2, 3]))
    pads = [int(rng.integers(0, k)) for k in kernel]
    tails = [int(rng.integers(0, pad + 1)) for pad in pads]  # zeros below and to the right
    extent = (source.height, source.width)
    rows, columns = (
        max(1, (n + p + t - k) // stride + 1) for n, p, t, k in zip(extent, pads, tails, kernel, strict=True)
    )
    c_out = int(rng.integers(1, channels + 1))

    residual = None
    if earlier and rng.random() < 0.6:
        # Any earlier tensor will do, if this layer can be shaped like it.
        wanted = earlier[int(rng.integers(len(earlier)))]
        if (source.height, source.width) == (wanted.height, wanted.width):
            residual, c_out, stride = wanted, wanted.channels, 1
            kernel = [int(rng.choice([1, 3]))] * 2
            pads = [k // 2 for k in kernel]
            rows, columns = wanted.height, wanted.width

    dtype = str(rng.choice(["uint8", "int8"]))
    low, high = (0, 255) if dtype == "uint8" else (-128, 127)
    if rng.random() < 0.2:
        low, high = (int(v) for v in sorted(rng.integers(low, high + 1, 2)))
    pool, height, width = _random_pool(rng, rows, columns, last)
    if pool.mode == Pool.GLOBAL_SUM:
        dtype = "int32"

    # Shifts that leave values spread over the output's range, and now and then saturate them.
    terms = source.channels * kernel[0] * kernel[1]
    usual = max(0, int(np.log2(terms**0.5 * 80 * 60 / 100)))
    shift = np.clip(usual + rng.integers(-2, 3, c_out), 0, 31)
    return FusedLayer(
        name,
        source,
        Tensor(name, height, width, c_out, dtype),
        weights=rng.integers(-128, 128, (c_out, source.channels, *kernel)).astype(np.int8),
        bias=rng.integers(-(1 << int(rng.integers(1, 20))), 1 << int(rng.integers(1, 20)), c_out).astype(np.int32),
        shift=shift.astype(np.uint8),
        rows=rows,
        columns=columns,
        stride=stride,
        pad_top=pads[0],
        pad_left=pads[1],
        residual=residual,
        res_shift=np.clip(shift + rng.integers(-2, 2, c_out), 0, 20).astype(np.uint8) if residual else None,
        clip_low=low,
        clip_high=high,
        pool=pool,
    )


def _random_pool(rng: Rng, rows: int, columns: int, last: bool) -> tuple[Pooling, int, int]:
    """A pool and the size it leaves."""
    modes = [Pool.NONE, Pool.NONE, Pool.MAX, Pool.MAX, Pool.AVERAGE, *([Pool.GLOBAL_SUM] * 2 if last else [])]
    mode = modes[int(rng.integers(len(modes)))]
    if mode == Pool.GLOBAL_SUM:
        return Pooling(mode), 1, 1
    kernel = 2 if mode == Pool.AVERAGE else int(rng.integers(1, 4))
    stride = int(rng.integers(1, 4))
    pad = int(rng.integers(0, min(kernel, stride)))
    tail = int(rng.integers(0, min(kernel, stride)))
    height, width = ((n + pad + tail - kernel) // stride + 1 for n in (rows, columns))
    if mode == Pool.NONE or height < 1 or width < 1:
        return Pooling(), rows, columns
    return Pooling(mode, kernel, stride, pad), height, width
