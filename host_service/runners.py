"""An NPU as the scheduler drives it: in this process, or in one of its own that may die without harm.

Both run images in the order of the calls and compute back to back; the methods are called in the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from driver.device import DeviceError, Readings, Sensing
from driver.runtime import Npu, Result
from hw.program import Program

AHEAD = 8
"""Images that an NPU is given before the first of them is done: two that it has itself (one computes, one waits), and those that its
process finds when one is done. With fewer, a fast device's images and answers change processes one by one, which costs CPU time; with
more, they would wait behind a slow device while another one is idle."""
WriteImage = Callable[[NDArray[np.uint8]], None]
"""Writes an image, uint8 [height, width, channels], to the memory that it is given. Raises RequestError for values that are no image."""


class Runner(Protocol):
    """What the scheduler needs of an NPU, or of several that are one to it."""

    kind: str
    """The device, for people."""
    on_lost: Callable[[DeviceError], None]
    """Called when the NPU is gone, whether something runs or not."""

    @property
    def npus(self) -> int:
        """How many NPUs, once it is open."""

    @property
    def readings(self) -> Readings:
        """What its sensors said last."""

    async def open(self) -> None:
        """Make the NPU ready for load(), from any state. Raises DeviceError."""

    async def load(self, program: Program) -> None:
        """Put ``program`` in place of the one before; nothing is running. Raises DeviceError."""

    def run(self, write: WriteImage) -> asyncio.Future[Result]:
        """Compute the image that ``write`` writes, before this returns; the caller does not cancel the future, but may drop() it.

        Raises what ``write`` raises, DeviceError when there is no room; the future has DeviceError when the NPU fails.
        """

    def drop(self, future: asyncio.Future[Result]) -> None:
        """Nobody waits for what run() gave: if the image has not begun, it need not; the future is then cancelled, now or soon."""

    def shut(self) -> Awaitable[None]:
        """Let go of the NPU, in whatever state it is; what runs fails with DeviceError."""


class LocalNpu:
    """``npu``, which belongs to the caller's process: for tests and for embedding. One that hangs for good hangs here."""

    def __init__(self, npu: Npu) -> None:
        self._npu = npu
        self.kind = npu.device.kind
        self.on_lost: Callable[[DeviceError], None] = lambda error: None
        self.npus = 1

    @property
    def readings(self) -> Readings:
        """What the device's sensors say, if it has any."""
        return self._npu.device.sensors() if isinstance(self._npu.device, Sensing) else Readings()

    async def open(self) -> None:
        """Nothing to do: load() writes the device's memory again."""

    async def load(self, program: Program) -> None:
        """See Runner."""
        await asyncio.to_thread(self._npu.load, program)

    def run(self, write: WriteImage) -> asyncio.Future[Result]:
        """See Runner."""
        layout = self._npu.program.image
        image = np.empty((layout.height, layout.width, layout.channels), np.uint8)
        write(image)
        return asyncio.wrap_future(self._npu.run_async(image))

    def drop(self, future: asyncio.Future[Result]) -> None:
        """See Runner."""
        future.cancel()

    async def shut(self) -> None:
        """Finish the image that runs and close the device, in whose place no other can be opened."""
        await asyncio.to_thread(self._npu.close)
