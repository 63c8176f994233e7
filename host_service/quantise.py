"""FP32 images to the NPU's grid. Every FP32 image of every caller passes here, so it is written for speed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from host_service.errors import RequestError


def to_grid(image: NDArray[np.float32], fraction_bits: int, out: NDArray[np.uint8]) -> None:
    """Write real values to ``out`` in steps of ``2**-fraction_bits``: rounded half to even, then clipped to 0..255.

    Raises RequestError for a NaN or an infinity.
    """
    low, high = image.min(), image.max()  # not finite as soon as one value is not
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RequestError("the image holds a NaN or an infinity: every value must be a number, 0 to 1")
    highest = np.float32(255 * 2.0**-fraction_bits)
    if low < 0 or high > highest:
        image = np.clip(image, 0, highest)
    # Beside 2**(23 - fraction_bits) the last bit of a float32 is one step: the sum is rounded half to even, its low byte counts the steps.
    steps = image + np.float32(2.0 ** (23 - fraction_bits))
    np.copyto(out, steps.view(np.uint32), casting="unsafe")
