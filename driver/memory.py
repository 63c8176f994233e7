"""Memory that host and device share: who owns which addresses, and a host copy that only flush() and invalidate() reconcile.

Simulated devices keep the host's copy apart from the device's memory, as a board's caches may, so that a forgotten flush() or
invalidate() shows as a wrong answer here and not first on the board.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from driver.device import DeviceError

PAGE = 4096
"""Alignment of every buffer: an AXI burst never crosses such a boundary."""


class Arena:
    """First-fit allocator of page-aligned addresses in ``base`` .. ``base + size``. It hands out addresses and holds no memory."""

    def __init__(self, size: int, base: int = 0) -> None:
        if size < PAGE or size % PAGE or base % PAGE:
            raise ValueError(f"an arena's size ({size}) and base ({base}) must be whole pages of {PAGE} bytes")
        self.size = size
        self.base = base
        self._taken: dict[int, int] = {}
        """Bytes taken, by address, in ascending order of address."""

    @property
    def used(self) -> int:
        """Bytes taken at this moment."""
        return sum(self._taken.values())

    def allocate(self, nbytes: int) -> int:
        """The address of ``nbytes`` bytes nobody else has. Raises DeviceError when no gap is large enough."""
        if nbytes < 1:
            raise ValueError(f"cannot allocate {nbytes} bytes")
        need = -(-nbytes // PAGE) * PAGE
        start = self.base
        for address, taken in [*self._taken.items(), (self.base + self.size, 0)]:
            if address - start >= need:
                self._taken[start] = need
                self._taken = dict(sorted(self._taken.items()))
                return start
            start = address + taken
        raise DeviceError(
            f"no room for {nbytes} bytes in the device's memory ({self.size - self.used} of {self.size} bytes free): "
            "free buffers, or give the device more memory"
        )

    def free(self, address: int) -> None:
        """Give back what allocate() returned. Raises DeviceError when nothing is allocated there."""
        if self._taken.pop(address, None) is None:
            raise DeviceError(f"no buffer begins at {address:#x}: was it freed twice?")


class MirroredBuffer:
    """A ``driver.device.Buffer``: the host's copy, and a view of the same bytes in the device's memory."""

    def __init__(self, address: int, view: NDArray[np.uint8], arena: Arena) -> None:
        self.address = address
        self.array: NDArray[np.uint8] = np.zeros(len(view), np.uint8)
        self._view = view
        self._arena = arena

    def flush(self) -> None:
        """Copy the host's bytes to the device."""
        self._view[:] = self.array

    def invalidate(self) -> None:
        """Copy the device's bytes to the host."""
        self.array[:] = self._view

    def free(self) -> None:
        """Give the memory back; neither copy is reachable afterwards."""
        self._arena.free(self.address)
        self._view = self.array = np.zeros(0, np.uint8)


class SharedMemory:
    """A simulated device's memory: ``data`` uint8 [bytes], its first byte at device address ``base``."""

    def __init__(self, data: NDArray[np.uint8], base: int = 0) -> None:
        self.data = data
        self.arena = Arena(len(data), base)

    def allocate(self, nbytes: int) -> MirroredBuffer:
        """A buffer of exactly ``nbytes``. Raises DeviceError when there is no room."""
        address = self.arena.allocate(nbytes)
        return MirroredBuffer(address, self.at(address, nbytes), self.arena)

    def at(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """The device's view of ``nbytes`` at ``address``. Raises IndexError outside the memory, where a bus answers with an error."""
        start = address - self.arena.base
        if start < 0 or start + nbytes > len(self.data):
            raise IndexError(f"{nbytes} bytes at {address:#x} lie outside the device's memory")
        return self.data[start : start + nbytes]
