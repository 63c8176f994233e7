"""The contiguous memory of a simulated board, as PYNQ allocates it.

Each buffer has a host copy, as behind a cache, so that a missing flush or invalidate is a wrong answer.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import pynq
from numpy.typing import NDArray
from pynq.buffer import PynqBuffer

from driver.device import DeviceError
from driver.memory import Arena


@dataclass(eq=False)
class BufferObject:
    """A piece of contiguous memory, and the host's cached copy of it."""

    address: int
    host: NDArray[np.uint8]
    buffer: weakref.ref[PynqBuffer] | None = None


class ContiguousMemory(pynq.Device):
    """A device whose memory begins at ``base``. Who has one says with load() and store() where it is."""

    def __init__(self, tag: str, base: int, memory_bytes: int) -> None:
        super().__init__(tag)
        self._arena = Arena(memory_bytes, base)
        self._garbage = np.random.default_rng(memory_bytes)

    def load(self, address: int, size: int) -> NDArray[np.uint8]:
        """Bytes of the memory."""
        raise NotImplementedError

    def store(self, address: int, data: NDArray[np.uint8]) -> None:
        """Write ``data`` to the memory."""
        raise NotImplementedError

    @property
    def memory_used(self) -> int:
        """Bytes that are allocated."""
        return self._arena.used

    # What PYNQ asks of a device and its memory -----------------------------------------------------------------------

    def allocate(self, shape: Any, dtype: Any, cacheable: int = 0) -> PynqBuffer:
        """A buffer whose host copy and memory hold different garbage. Raises RuntimeError, as PYNQ's memory does."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            address = self._arena.allocate(nbytes)
        except DeviceError as error:
            raise RuntimeError(f"Allocate failed: {error}") from error
        bo = BufferObject(address, self._garbage.integers(0, 256, nbytes, np.uint8))
        self.store(address, self._garbage.integers(0, 256, nbytes, np.uint8))
        buffer = PynqBuffer(
            shape, dtype, buffer=bo.host.data, device=self, device_address=address, bo=bo, coherent=False
        )
        # PYNQ's way for memory that goes back to where it came from, and not to XRT.
        buffer.memory, buffer.pointer, buffer.return_to = self, bo, self
        bo.buffer = weakref.ref(buffer)
        return buffer

    def return_pointer(self, bo: BufferObject) -> None:
        """A buffer was freed."""
        self._arena.free(bo.address)
        buffer = bo.buffer() if bo.buffer else None
        if buffer is not None:
            buffer.freed = True  # or PYNQ would unmap it as XRT's, too, when it is collected

    def flush(self, bo: BufferObject, offset: int, pointer: int, size: int) -> None:
        """The host's copy to the memory."""
        self.store(bo.address + offset, bo.host[offset : offset + size])

    def invalidate(self, bo: BufferObject, offset: int, pointer: int, size: int) -> None:
        """The memory to the host's copy."""
        bo.host[offset : offset + size] = self.load(bo.address + offset, size)
