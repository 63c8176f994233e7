"""The NPU's arithmetic in NumPy, bit for bit, and the execution of one descriptor on a model of the activation banks.

This is the reference that every other level is compared with by ``==``. It is written for clarity: each function states one rule of
the numerics contract (docs/numerics.md). Convolutions go through a float64 matrix product, which is exact here because every partial
sum of a legal layer stays below 2**31, far below 2**53.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hw.isa import FEATURE_BYTES, ArrayConfig, LayerDescriptor, Pool

Int = NDArray[np.int64]


def round_shift(value: Int, shift: Int | int) -> Int:
    """``value / 2**shift`` rounded half to even, in integers."""
    shift = np.asarray(shift, np.int64)
    half = (np.int64(1) << shift) >> 1
    odd = (value >> shift) & 1
    return np.where(shift == 0, value, (value + half - 1 + odd) >> shift)


def requantise(acc: Int, bias: Int, residual: Int | int, res_shift: Int, shift: Int, low: int, high: int) -> Int:
    """``clip(round_half_even((acc + bias + (residual << res_shift)) >> shift), low, high)``.

    ``acc`` and ``residual`` are [..., channels]; ``bias``, ``res_shift`` and ``shift`` are [channels].
    """
    total = acc + bias + (np.asarray(residual, np.int64) << res_shift)
    return np.clip(round_shift(total, shift), low, high)


def convolve(x: Int, weights: Int, stride: int, pad_top: int, pad_left: int, rows: int, columns: int) -> Int:
    """Exact convolution as im2col and a matrix product.

    ``x`` is [h, w, c_in], ``weights`` [c_out, c_in, kh, kw]; taps outside ``x`` read zero. Returns [rows, columns, c_out].
    """
    c_out, c_in, kh, kw = weights.shape
    below = max(0, (rows - 1) * stride + kh - pad_top - x.shape[0])
    right = max(0, (columns - 1) * stride + kw - pad_left - x.shape[1])
    padded = np.pad(x, ((pad_top, below), (pad_left, right), (0, 0))).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(0, 1))  # type: ignore[call-overload]
    windows = windows[: (rows - 1) * stride + 1 : stride, : (columns - 1) * stride + 1 : stride]
    columns_matrix = windows.reshape(rows * columns, c_in * kh * kw)
    acc = columns_matrix @ weights.reshape(c_out, -1).astype(np.float64).T
    return acc.astype(np.int64).reshape(rows, columns, c_out)


def pool(x: Int, d: LayerDescriptor) -> Int:
    """Pool [rows, columns, c] as the descriptor says; windows read zero outside ``x``."""
    if d.pool_mode == Pool.NONE:
        return x
    if d.pool_mode == Pool.GLOBAL_SUM:
        return x.sum(axis=(0, 1), keepdims=True)
    k, s = d.pool_kernel, d.pool_stride
    below = max(0, (d.pooled_height - 1) * s + k - d.pool_pad - x.shape[0])
    right = max(0, (d.pooled_width - 1) * s + k - d.pool_pad - x.shape[1])
    padded = np.pad(x, ((d.pool_pad, below), (d.pool_pad, right), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(0, 1))  # type: ignore[call-overload]
    windows = windows[: (d.pooled_height - 1) * s + 1 : s, : (d.pooled_width - 1) * s + 1 : s]
    if d.pool_mode == Pool.MAX:
        return windows.max(axis=(-2, -1))
    return round_shift(windows.sum(axis=(-2, -1)), d.pool_shift)


# ---------------------------------------------------------------------------------------------------------------------
# Tensors in the activation banks: [channel block][row][column] words of cp bytes.
# ---------------------------------------------------------------------------------------------------------------------


def read_tensor(memory: NDArray[np.uint8], base: int, height: int, width: int, blocks: int, signed: bool) -> Int:
    """[height, width, blocks * cp] from ``memory`` [words, cp]."""
    words = memory[base : base + blocks * height * width]
    words = words.view(np.int8) if signed else words
    cube = words.reshape(blocks, height, width, memory.shape[1]).astype(np.int64)
    return cube.transpose(1, 2, 0, 3).reshape(height, width, -1)


def write_tensor(memory: NDArray[np.uint8], base: int, x: Int) -> None:
    """Write [height, width, c] as bytes. ``c`` need not fill the last word; bytes beyond it keep their value."""
    height, width, channels = x.shape
    cp = memory.shape[1]
    for first in range(0, channels, cp):
        part = x[:, :, first : first + cp].reshape(height * width, -1).astype(np.uint8)
        start = base + first // cp * height * width
        memory[start : start + height * width, : part.shape[1]] = part


def execute(
    d: LayerDescriptor,
    weights: Int,
    bias: Int,
    shift: Int,
    res_shift: Int,
    memory: NDArray[np.uint8],
    config: ArrayConfig,
) -> None:
    """Run one layer on ``memory`` [words, cp] in place.

    ``weights`` is [out_blocks * kp, in_blocks * cp, kernel_h, kernel_w]; the others are [out_blocks * kp].
    """
    base = d.in_origin + d.pad_top * d.in_width + d.pad_left
    x = read_tensor(memory, base, d.in_height, d.in_width, d.in_blocks, bool(d.in_signed))
    acc = convolve(x, weights, d.stride, d.pad_top, d.pad_left, d.out_height, d.out_width)
    channels = d.out_blocks * config.kp
    residual: Int | int = 0
    if d.res_enable:
        blocks = config.blocks_in(channels)
        residual = read_tensor(memory, d.res_base, d.out_height, d.out_width, blocks, bool(d.res_signed))[
            ..., :channels
        ]
    y = pool(requantise(acc, bias, residual, res_shift, shift, d.clip_low, d.clip_high), d)
    if d.pool_mode == Pool.GLOBAL_SUM:
        flat = memory[d.out_base :].reshape(-1)
        flat[: FEATURE_BYTES * channels] = y.astype("<i4").reshape(-1).view(np.uint8)
    else:
        write_tensor(memory, d.out_base, y)
