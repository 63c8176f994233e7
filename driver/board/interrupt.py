"""The NPU's interrupt through ``pynq.Interrupt``: one event loop in a thread of its own serves the interrupts of every NPU.

PYNQ binds an interrupt to the event loop in which it is made. A notebook's loop stands still while a cell computes, and a service has
others, so the driver brings its own. When no interrupt can be had, or one gets lost, the driver polls (``NpuIP.wait``).
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


def pin_of(device: pynq.Device, cell: str) -> str | None:
    """Full path of the interrupt pin of the block ``cell``, as pynq.Interrupt wants it; None where it has none.

    PYNQ's metadata lists the interrupts behind AXI interrupt controllers. Its Interrupt class also serves one that goes straight to the
    processing system's first line, as ours does, once it stands in the device's list; here it is put there.
    """
    for pin in device.interrupt_pins:
        if pin.rpartition("/")[0] == cell:
            return str(pin)
    if device.systemgraph is None:
        return None
    for ps in device.systemgraph.get_processing_systems().values():
        for name, line in ps.get_irqs.items():
            for source in line._connections.values():
                block = source.parent().parent()
                if getattr(block, "hierarchy_name", None) == cell:
                    pin = f"{cell}/{source.name}"
                    raw = ps.irq[name][0][0]
                    device.interrupt_pins[pin] = {"controller": "", "index": 0, "fullpath": pin, "raw_irq": raw}
                    return pin
    return None


_serving: WeakValueDictionary[tuple[int, str], Completion] = WeakValueDictionary()
"""Who serves the interrupt of a device's pin."""


class Completion:
    """Set when the NPU's interrupt has come. ``acknowledge`` lowers the interrupt at the NPU and says whether it was high.

    Raises ValueError when PYNQ cannot give the interrupt.
    """

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
        self._controller = (
            self._interrupt.parent()
        )  # PYNQ holds it weakly, and forgets it when another overlay is loaded
        self._task = in_loop(lambda: _loop().create_task(self._serve()))

    def wait(self, timeout: float) -> bool:
        """Whether an interrupt came within ``timeout`` seconds, or since the last call."""
        if not self._done.wait(timeout):
            return False
        self._done.clear()
        return True

    def rearm(self) -> None:
        """After an interrupt that did not come: let the kernel deliver interrupts again."""
        _loop().call_soon_threadsafe(self._wake_waiters)

    def stop(self) -> None:
        """Serve the interrupt no longer: when this returns, nothing here touches a register any more."""
        in_loop(self._cancel)  # which runs in the thread of _serve(), and so not in the midst of it

    def _cancel(self) -> None:
        """Cancel the task, and take what it waited for out of PYNQ's lists: there it would be served in place of the next one."""
        self._task.cancel()
        controller, waiting = self._controller, self._interrupt.event
        if isinstance(controller, UioController):
            controller.wait_events = [event for event in controller.wait_events if event is not waiting]
        else:
            handles = controller.wait_handles[self._interrupt.number]
            if waiting in handles:
                handles.remove(waiting)
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
        while not isinstance(controller, UioController):  # behind an AXI interrupt controller
            controller = controller.parent
        came = self._interrupt.event.is_set()
        waiting, controller.wait_events = controller.wait_events, []
        for event in waiting:
            event.set()
        self._woken = not came and self._interrupt.event.is_set()

    def _clear_latch(self) -> None:
        """An AXI interrupt controller has latched our level anew, since PYNQ acknowledges there before we lower it here (PG099, IAR)."""
        if not isinstance(self._controller, UioController):
            self._controller.mmio.write(ACKNOWLEDGE, 1 << self._interrupt.number)


def _interrupt_of(device: pynq.Device, pin: str) -> pynq.Interrupt:
    """PYNQ looks pins up on the active device."""
    active, pynq.Device.active_device = pynq.Device.active_device, device
    try:
        return pynq.Interrupt(pin)
    finally:
        pynq.Device.active_device = active
