"""The proof that no 32-bit sum can overflow, from the actual weights and the ranges of the inputs."""

from __future__ import annotations

import numpy as np

from hls.npu.layer import FusedLayer
from hw.isa import Pool

INT32 = (-(2**31), 2**31 - 1)


def prove_no_overflow(layer: FusedLayer) -> tuple[int, int]:
    """The bounds that every sum of the layer stays within; raises CompileError where they exceed int32.

    The terms of a sum (products, bias, shifted residual, rounding half) are bounded separately from zero, so the bounds also hold
    for every partial sum, in whatever order the hardware adds.
    """
    low, high = layer.source.range
    w = layer.weights.astype(np.int64).reshape(layer.c_out, -1)
    most = np.maximum(w * low, w * high).sum(axis=1)
    least = np.minimum(w * low, w * high).sum(axis=1)
    bias = layer.bias.astype(np.int64)
    most += np.maximum(bias, 0)
    least += np.minimum(bias, 0)
    if layer.residual is not None and layer.res_shift is not None:
        low, high = layer.residual.range
        most += np.int64(high) << layer.res_shift.astype(np.int64)
        least += np.int64(low) << layer.res_shift.astype(np.int64)
    most += (np.int64(1) << layer.shift.astype(np.int64)) >> 1

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
