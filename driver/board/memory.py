"""Contiguous memory for the NPU: every buffer is known until it is given back, and none is given back while the NPU may still use it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pynq.buffer import PynqBuffer

from driver.board.platform import Platform
from driver.device import DeviceError
from driver.memory import PAGE


class BoardBuffer:
    """A ``driver.device.Buffer`` in contiguous memory."""

    def __init__(self, buffer: PynqBuffer, release: Callable[[BoardBuffer], None]) -> None:
        self.address = int(buffer.device_address)
        self.array = buffer.view(np.ndarray)
        self._buffer: PynqBuffer | None = buffer
        self._release = release
        self._freed = False

    def flush(self) -> None:
        """Write the host's caches back, so that the device reads what the host wrote."""
        self._held().flush()

    def invalidate(self) -> None:
        """Drop what the host's caches hold, so that the host reads what the device wrote."""
        self._held().invalidate()

    def free(self) -> None:
        """Give the memory back, as soon as no run is on. Raises DeviceError the second time."""
        if self._freed:
            raise DeviceError(f"no buffer begins at {self.address:#x}: was it freed twice?")
        self._freed = True
        self.array = np.zeros(0, np.uint8)
        self._release(self)

    def give_back(self) -> None:
        """Give the memory back now."""
        buffer, self._buffer = self._held(), None
        buffer.freebuffer()

    def _held(self) -> PynqBuffer:
        if self._buffer is None:
            raise DeviceError(f"the buffer at {self.address:#x} has been freed")
        return self._buffer


class ContiguousMemory:
    """Allocates from ``platform``. ``idle`` says whether the NPU is through with every buffer."""

    def __init__(self, platform: Platform, idle: Callable[[], bool]) -> None:
        self._platform = platform
        self._idle = idle
        self._used: set[BoardBuffer] = set()
        self._retired: set[BoardBuffer] = set()
        """Freed while a run was on."""

    @property
    def buffers(self) -> int:
        """Buffers that hold contiguous memory."""
        return len(self._used) + len(self._retired)

    def allocate(self, nbytes: int) -> BoardBuffer:
        """A page-aligned buffer of ``nbytes``. Raises DeviceError when there is no room."""
        if nbytes < 1:
            raise ValueError(f"cannot allocate {nbytes} bytes")
        self._sweep()
        try:
            found = self._platform.allocate(nbytes)
        except (RuntimeError, MemoryError) as error:
            raise DeviceError(
                f"no contiguous memory for {nbytes} bytes ({error}): close other programs that use the board, or give the kernel "
                "more (cma= on its command line)"
            ) from error
        if found.device_address % PAGE:
            found.freebuffer()
            raise DeviceError(f"the buffer at {found.device_address:#x} does not begin at a page of {PAGE} bytes")
        buffer = BoardBuffer(found, self._free)
        self._used.add(buffer)
        return buffer

    def free_all(self) -> None:
        """Give every buffer back. Raises DeviceError, and keeps them, while a run is on."""
        self._retired |= self._used
        self._used.clear()
        self._sweep()
        if self._retired:
            raise DeviceError(
                f"a run is still on: {len(self._retired)} buffers stay allocated, since the NPU may write to them; restart the overlay"
            )

    def _free(self, buffer: BoardBuffer) -> None:
        if buffer in self._used:  # else free_all() came first
            self._used.remove(buffer)
            self._retired.add(buffer)
        self._sweep()

    def _sweep(self) -> None:
        if self._retired and self._idle():
            while self._retired:
                self._retired.pop().give_back()
