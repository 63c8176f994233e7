"""An interrupt behind an AXI interrupt controller, by ``pynq.Interrupt``: one event loop in a thread of its own serves those of every NPU.

PYNQ binds an interrupt to the event loop in which it is made. A notebook's loop stands still while a cell computes, and a service has
others, so the driver brings its own.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import cache
from typing import TypeVar
from weakref import WeakValueDictionary

import pynq
from pynq.uio import UioController

T = TypeVar("T")
log = logging.getLogger(__name__)
SPURIOUS_SECONDS = 0.01
"""Pause after an interrupt for which the NPU has no reason, so that a line that is stuck does not take the processor."""

ACKNOWLEDGE = 0x0C
"""IAR of AMD's AXI interrupt controller (PG099)."""


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The loop, in its thread."""
    loop = asyncio.new_event_loop()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    threading.Thread(target=serve, name="npu-interrupts", daemon=True).start()
    return loop


def in_loop(function: Callable[[], T]) -> T:
    """``function()`` in the interrupts' thread: PYNQ objects that are made there get their interrupts there."""
    try:
        if asyncio.get_running_loop() is _loop():
            return function()
    except RuntimeError:
        pass  # no loop runs in this thread

    async def call() -> T:
        return function()

    return asyncio.run_coroutine_threadsafe(call(), _loop()).result()


_serving: WeakValueDictionary[tuple[int, str], ControllerCompletion] = WeakValueDictionary()
"""Who serves the interrupt of a device's pin."""


class ControllerCompletion:
    """``driver.board.interrupt.Completion`` by the interrupt of ``pin``. Raises ValueError when PYNQ cannot give it."""

    def __init__(self, device: pynq.Device, pin: str, acknowledge: Callable[[], bool]) -> None:
        self.delivered = 0
        """Interrupts that came."""
        self._acknowledge = acknowledge
        self._done = threading.Event()
        self._woken = False
        """Whether it is rearm() that ended the wait, and no interrupt."""
        before = _serving.get((id(device), pin))
        if before is not None:  # of an overlay that was not closed: it would take the interrupts
            before.stop()
        _serving[id(device), pin] = self
        self._interrupt = in_loop(lambda: _interrupt_of(device, pin))
        self._controller = self._interrupt.parent()  # held weakly by PYNQ, which forgets it with the next overlay
        self._task = in_loop(lambda: _loop().create_task(self._serve()))

    def wait(self, timeout: float) -> bool:
        """See Completion."""
        if not self._done.wait(timeout):
            return False
        self._done.clear()
        return True

    def rearm(self) -> None:
        """See Completion."""
        _loop().call_soon_threadsafe(self._wake_waiters)

    def stop(self) -> None:
        """See Completion."""
        in_loop(self._cancel)  # which runs in the thread of _serve(), and so not in the midst of it

    def _cancel(self) -> None:
        """Cancel the task, and take what it waited for out of PYNQ's lists: there it would be served in place of the next one."""
        self._task.cancel()
        controller = self._controller
        handles = controller.wait_handles[self._interrupt.number]
        if self._interrupt.event in handles:
            handles.remove(self._interrupt.event)
            controller.event_number -= 1
        parent = controller.parent
        if not controller.event_number and isinstance(parent, UioController):
            parent.wait_events = [event for event in parent.wait_events if event is not controller]

    async def _serve(self) -> None:
        try:
            while True:
                await self._interrupt.wait()
                if self._woken:  # an interrupt that is pending by now is the next run's, and is to come by itself
                    self._woken = False
                elif self._acknowledge():
                    self._clear_latch()
                    self.delivered += 1
                    self._done.set()
                else:
                    await asyncio.sleep(SPURIOUS_SECONDS)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("the NPU's interrupt cannot be served any more; the driver polls")

    def _wake_waiters(self) -> None:
        """Whoever waits looks at its block and waits anew, and with that PYNQ enables the interrupt anew."""
        controller = self._controller
        while not isinstance(controller, UioController):
            controller = controller.parent
        came = self._interrupt.event.is_set()
        waiting, controller.wait_events = controller.wait_events, []
        for event in waiting:
            event.set()
        self._woken = not came and self._interrupt.event.is_set()

    def _clear_latch(self) -> None:
        """The controller has latched our level anew, since PYNQ acknowledges there before we lower it here (PG099, IAR)."""
        self._controller.mmio.write(ACKNOWLEDGE, 1 << self._interrupt.number)


def _interrupt_of(device: pynq.Device, pin: str) -> pynq.Interrupt:
    """PYNQ looks pins up on the active device."""
    active, pynq.Device.active_device = pynq.Device.active_device, device
    try:
        return pynq.Interrupt(pin)
    finally:
        pynq.Device.active_device = active
