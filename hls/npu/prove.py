"""The proof that no 32-bit sum can overflow, from the actual weights and the ranges of the inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hls.npu.layer import FusedLayer
from hw.isa import Pool

INT32 = (-(2**31), 2**31 - 1)
Bounds = tuple[NDArray[np.int64], NDArray[np.int64]]


def accumulator_bounds(weights: NDArray[Any], bias: NDArray[Any], low: int, high: int) -> Bounds:
    """Per output channel, (least, most) of products and bias for inputs ``low`` to ``high`` (0 included, for the padding).

    Negative and positive terms are added up apart, so every partial sum stays within the bounds too, in whatever order the hardware
    adds.
    """
    w = weights.astype(np.int64).reshape(len(weights), -1)
    low, high = min(low, 0), max(high, 0)
    least = np.minimum(w * low, w * high).sum(axis=1) + np.minimum(bias.astype(np.int64), 0)
    most = np.maximum(w * low, w * high).sum(axis=1) + np.maximum(bias.astype(np.int64), 0)
    return least, most


def prove_no_overflow(layer: FusedLayer) -> tuple[int, int]:
    """The bounds that every sum of the layer stays within; raises CompileError where they exceed int32."""
    least, most = accumulator_bounds(layer.weights, layer.bias, *layer.source.range)
    if layer.residual is not None and layer.res_shift is not None:
        low, high = layer.residual.range
        least += np.int64(low) << layer.res_shift.astype(np.int64)
        most += np.int64(high) << layer.res_shift.astype(np.int64)
    most += (np.int64(1) << layer.shift.astype(np.int64)) >> 1  # rounding adds at most half of an output step

    for bound, channel in ((most, int(most.argmax())), (least, int(least.argmin()))):
        if not INT32[0] <= bound[channel] <= INT32[1]:
            raise layer.error(
                f"the accumulator of channel {channel} can reach {bound[channel]}, beyond 32 bits",
                "give this layer smaller weights, or fewer fraction bits",
            )
    if layer.pool.mode == Pool.GLOBAL_SUM:
        total = layer.rows * layer.columns * max(abs(layer.clip_low), abs(layer.clip_high))
        if total > INT32[1]:
            raise layer.error(f"a global sum can reach {total}, beyond 32 bits", "pool before, or clip lower")
    return int(least.min()), int(most.max())
