"""FP32 images to the NPU's grid. Every FP32 image of every caller passes here, so it is written for speed."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from host_service.errors import RequestError
from host_service.tensor import StoredTensor

STRANGE = "the image holds a NaN or an infinity: every value must be a number, 0 to 1"


class Quantiser(threading.local):
    """Real values as uint8 in steps of ``2**-fraction_bits``: rounded half to even, then clipped to 0..255.

    Every thread has working memory of its own.
    """

    def __init__(self, fraction_bits: int) -> None:
        self._highest = np.float32(255 * 2.0**-fraction_bits)
        self._highest_bits = int(self._highest.view(np.uint32))
        # Beside 2**(23 - fraction_bits) the last bit of a float32 is one step: the sum is rounded half to even, and its low byte
        # counts the steps.
        self._offset = np.float32(2.0 ** (23 - fraction_bits))
        self._values = np.empty(0, np.float32)
        """Working memory, of the last image's size."""

    def write(self, image: NDArray[np.float32] | StoredTensor, out: NDArray[np.uint8]) -> None:
        """Write ``image`` to ``out`` of the same shape, contiguous. Raises RequestError for a NaN or an infinity."""
        if isinstance(image, StoredTensor):
            if not image.quantise_to(out, float(self._highest), float(self._offset)):
                raise RequestError(STRANGE)
            return
        if self._values.shape != image.shape:
            self._values = np.empty(image.shape, np.float32)
        values = self._values
        # A tensor stands anywhere in its message, where NumPy's arithmetic is slow: bytes are copied fast from anywhere.
        np.copyto(values.reshape(-1).view(np.uint8), image.reshape(-1).view(np.uint8))
        # As integers, floats of 0 and more stand in their order, below infinity and NaN, below all with a sign.
        if np.maximum.reduce(values.view(np.uint32), axis=None) > self._highest_bits:
            if not np.isfinite(values).all():
                raise RequestError(STRANGE)
            np.clip(values, 0, self._highest, out=values)
        np.add(values, self._offset, out=values)
        np.copyto(out, values.view(np.uint32), casting="unsafe")
