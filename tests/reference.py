"""The arithmetic of a fused layer written a second time, unlike hw.golden: tap by tap, window by window, rounding in float64.

Slow and plain on purpose; the tests compare everything else with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hls.npu.layer import FusedLayer
from hw.isa import Pool

Int = NDArray[np.int64]


def at(x: Int, row: int, column: int) -> Int:
    """A pixel's channels; zeros outside the tensor."""
    inside = 0 <= row < x.shape[0] and 0 <= column < x.shape[1]
    return x[row, column] if inside else np.zeros(x.shape[2], np.int64)


def convolution(x: Int, weights: Int, stride: int, top: int, left: int, rows: int, columns: int) -> Int:
    """[rows, columns, c_out] of x [h, w, c_in] and weights [c_out, c_in, kh, kw]."""
    out = np.zeros((rows, columns, len(weights)), np.int64)
    for row in range(rows):
        for column in range(columns):
            for ky in range(weights.shape[2]):
                for kx in range(weights.shape[3]):
                    pixel = at(x, row * stride - top + ky, column * stride - left + kx)
                    out[row, column] += weights[:, :, ky, kx] @ pixel
    return out


def rounded(value: Int, shift: Int | int) -> Int:
    """value / 2**shift, half to even: exact in float64, since the values are small and the divisor is a power of two."""
    return np.round(value / 2.0 ** np.asarray(shift)).astype(np.int64)


def pooled(x: Int, layer: FusedLayer) -> Int:
    """What the layer's pool makes of x [rows, columns, c]."""
    p = layer.pool
    if p.mode == Pool.NONE:
        return x
    if p.mode == Pool.GLOBAL_SUM:
        return x.sum(axis=(0, 1), keepdims=True)
    out = np.zeros((layer.output.height, layer.output.width, x.shape[2]), np.int64)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            window = [
                at(x, row * p.stride - p.pad + y, column * p.stride - p.pad + z)
                for y in range(p.kernel)
                for z in range(p.kernel)
            ]
            out[row, column] = np.max(window, axis=0) if p.mode == Pool.MAX else rounded(np.sum(window, axis=0), 2)
    return out


def run(layers: list[FusedLayer], image: NDArray[np.uint8]) -> Int:
    """The last layer's output [h, w, c] for an image [h, w, c]."""
    values: dict[str, Int] = {layers[0].source.name: image.astype(np.int64)}
    for layer in layers:
        total = layer.bias + convolution(
            values[layer.source.name],
            layer.weights.astype(np.int64),
            layer.stride,
            layer.pad_top,
            layer.pad_left,
            layer.rows,
            layer.columns,
        )
        if layer.residual is not None and layer.res_shift is not None:
            total = total + values[layer.residual.name] * 2 ** layer.res_shift.astype(np.int64)
        y = np.clip(rounded(total, layer.shift), layer.clip_low, layer.clip_high)
        values[layer.output.name] = pooled(y, layer)
    return values[layers[-1].output.name]
