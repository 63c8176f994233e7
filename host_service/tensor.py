"""A tensor of a request that stays where the transport has it: nothing is copied before somebody wants its values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Content(Protocol):
    """The bytes of a tensor, in a message that lies in pieces."""

    def __len__(self) -> int:
        """How many."""

    def copy(self, begin: int, out: NDArray[np.uint8]) -> None:
        """Copy as many bytes from ``begin`` as fit into ``out``."""

    def quantise(self, begin: int, highest: float, offset: float, out: NDArray[np.uint8]) -> bool:
        """Write the float32 values from byte ``begin`` to ``out``; returns False for a NaN or an infinity.

        Each is clipped to 0..``highest``; of its sum with ``offset``, a float32, the lowest byte is written.
        """


class StoredTensor:
    """Values of ``dtype`` and ``shape`` from byte ``begin`` of ``content``. ``np.asarray`` makes an array of it, with a copy."""

    __slots__ = ("_begin", "_content", "dtype", "shape")

    def __init__(self, content: Content, dtype: np.dtype[Any], shape: tuple[int, ...], begin: int = 0) -> None:
        self.dtype = dtype
        self.shape = shape
        self._content = content
        self._begin = begin

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> StoredTensor:
        """One of the first axis."""
        index = range(self.shape[0])[index]
        shape = self.shape[1:]
        return StoredTensor(
            self._content, self.dtype, shape, self._begin + index * math.prod(shape) * self.dtype.itemsize
        )

    def __iter__(self) -> Iterator[StoredTensor]:
        return map(self.__getitem__, range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        out = np.empty(self.shape, self.dtype)
        self.copy_to(out)
        return out if dtype is None else out.astype(dtype, copy=False)

    def copy_to(self, out: NDArray[Any]) -> None:
        """Copy the values to ``out``, contiguous and of the same dtype and shape."""
        self._content.copy(self._begin, out.reshape(-1).view(np.uint8))

    def quantise_to(self, out: NDArray[np.uint8], highest: float, offset: float) -> bool:
        """See Content; for float32."""
        return self._content.quantise(self._begin, highest, offset, out)


Values = NDArray[Any] | StoredTensor
"""Of an input: an array, or a tensor that may still be in its message."""
