"""The memory that the service shares with a device's process: slots, each for an image on its way to the NPU and for its result.

It has no name (memfd), so that nothing is left behind by a process that was killed.
"""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.program import Program


class Slots:
    """``count`` slots for ``program`` in the memory behind the file descriptor ``file``, which is made large enough."""

    def __init__(self, file: int, program: Program, count: int) -> None:
        layout = program.image
        result = program.read_result(np.zeros(program.result_bytes, np.uint8))
        shapes: list[tuple[tuple[int, ...], Any]] = [
            ((layout.height, layout.width, layout.channels), np.uint8),
            (result.shape, result.dtype),
        ]
        sizes = [count * math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes]
        starts = [sum(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE for size in sizes[:n]) for n in range(len(sizes) + 1)]
        with open(file, "r+b", closefd=False) as opened:
            opened.truncate(starts[-1])
        memory = mmap.mmap(file, starts[-1])
        images, results = (
            np.frombuffer(memory, dtype, size // np.dtype(dtype).itemsize, start).reshape(count, *shape)
            for (shape, dtype), size, start in zip(shapes, sizes, starts, strict=False)
        )
        self.images: NDArray[np.uint8] = images
        """[count, height, width, channels]"""
        self.results: NDArray[Any] = results
        """[count, ...], shape and type of ``Program.output``."""
