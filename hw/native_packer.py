"""``hw.image_layout.Packer`` in C++: the same bytes in a third of the time, where there is a compiler."""

from __future__ import annotations

import ctypes
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hw.native import load_library

if TYPE_CHECKING:
    from hw.image_layout import ImageLayout

SOURCE = Path(__file__).with_name("image_pack.cpp")
LARGEST = 2**31 - 1
"""Of every number in a layout: no product in the C++ overflows whose factors stand for memory that there is."""


class _Geometry(ctypes.Structure):
    """As in image_pack.cpp: the layout and the words, in bytes."""

    _fields_ = [
        (name, ctypes.c_ssize_t) for name in
        ["height", "width", "channels", "block", "columns", "pad_top", "pad_left", "rows", "cols", "cp", "word_bytes"]
    ]  # fmt: skip


class NativePacker:
    """See Packer, which says what goes where. Not thread safe.

    Raises NativeBuildError where the library cannot be had, ValueError for a layout that no image can have.
    """

    def __init__(self, layout: ImageLayout, cp: int, word_bytes: int) -> None:
        numbers = {**layout.to_json(), "cp": cp, "word_bytes": word_bytes}
        for name, value in numbers.items():
            least = 1 if name in ("channels", "block", "columns", "cp") else 0
            if not least <= value <= LARGEST:
                raise ValueError(f"an image layout cannot have {name} = {value}")
        if word_bytes < min(cp, layout.lanes):
            raise ValueError(f"words of {word_bytes} bytes do not hold {min(cp, layout.lanes)} lanes")
        self.nbytes = math.ceil(layout.lanes / cp) * layout.rows * layout.cols * word_bytes
        """Of a packed image."""
        self._pack = _library().qw_pack_image
        self._layout = layout
        self._geometry = _Geometry(**numbers)
        self._patches = np.empty((layout.cols + layout.columns - 1) * layout.block**2 * layout.channels, np.uint8)
        self._patches_address = self._patches.ctypes.data

    @staticmethod
    def prepare() -> None:
        """Have the library: compiles it (a second) where that was not done before. Raises NativeBuildError."""
        _library()

    def pack(self, image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Write ``image`` [height, width, channels] to ``out`` [nbytes], contiguous. Raises ValueError for any other arrays."""
        self._layout.check_shape(image.shape)
        if image.dtype != np.uint8:
            raise ValueError(f"the image is {image.dtype}, the program expects uint8")
        if out.dtype != np.uint8 or out.shape != (self.nbytes,):
            raise ValueError(f"the packed image is uint8 [{self.nbytes}], not {out.dtype} {list(out.shape)}")
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError("the memory for a packed image must be contiguous and writable")
        image = np.ascontiguousarray(image)
        self._pack(self._geometry, image.ctypes.data, self._patches_address, out.ctypes.data)


@cache
def _library() -> ctypes.CDLL:
    pointer = ctypes.c_void_p
    return load_library(SOURCE, {"qw_pack_image": (None, [ctypes.POINTER(_Geometry), pointer, pointer, pointer])})
