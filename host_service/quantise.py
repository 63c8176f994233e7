"""FP32 images to the NPU's grid. Every FP32 image of every caller passes here, so it is written for speed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from host_service.errors import RequestError


def to_grid(image: NDArray[np.float32], fraction_bits: int) -> NDArray[np.uint8]:
    """Real values as uint8 in steps of ``2**-fraction_bits``: rounded half to even, then clipped to 0..255.

    Raises RequestError for a NaN or an infinity.
    """
    low, high = image.min(), image.max()  # not finite as soon as one value is not
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RequestError("the image holds a NaN or an infinity: every value must be a number, 0 to 1")
    scale = np.float32(2.0**fraction_bits)
    with np.errstate(over="ignore"):  # what overflows is clipped
        steps = image * scale  # by a power of two: exact
    np.rint(steps, out=steps)
    if low < 0 or high * scale > 255:
        np.clip(steps, 0, 255, out=steps)
    return steps.astype(np.uint8)
