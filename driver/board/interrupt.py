"""The NPU's interrupt as the kernel gives it: a UIO device (``uio_pdrv_genirq``), read by whoever waits for a run.

PYNQ serves a UIO device in an asyncio event loop, which costs an image two changes of thread. The driver reads the device that PYNQ finds
itself, in the thread that waits. Behind an AXI interrupt controller PYNQ does it (``driver.board.interrupt_controller``). When no interrupt
can be had, or one gets lost, the driver polls (``NpuIP.wait``).
"""

from __future__ import annotations

import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

import pynq
import pynq.interrupt

from driver.board.interrupt_controller import SPURIOUS_SECONDS, ControllerCompletion

UIO_BYTES = 4
"""Of what a UIO device gives, the interrupts so far, and takes, 1 to enable the next one (kernel documentation, driver-api/uio-howto)."""


class Completion(Protocol):
    """Tells the one thread that waits when the NPU's interrupt has come."""

    delivered: int
    """Interrupts that came."""

    def wait(self, timeout: float) -> bool:
        """Whether an interrupt came within ``timeout`` seconds, or since the last call."""

    def rearm(self) -> None:
        """After a run that polling found finished: forget its interrupt, should it come yet, and let the kernel deliver the next one."""

    def stop(self) -> None:
        """Serve the interrupt no longer: when this returns, nothing here touches a register any more."""


def completion_of(device: pynq.Device, cell: str, acknowledge: Callable[[], bool]) -> Completion | None:
    """What tells the end of a run of the block ``cell``; None where its interrupt leads nowhere.

    ``acknowledge`` lowers the interrupt at the NPU and says whether it was high. Raises ValueError or OSError when the kernel does not
    give the interrupt to us.
    """
    for pin, entry in device.interrupt_pins.items():
        if pin.rpartition("/")[0] == cell:
            if entry.get("parent", entry["controller"]):
                return ControllerCompletion(device, pin, acknowledge)
            return UioCompletion(entry["raw_irq"], acknowledge)
    line = _line_of(device, cell)
    return None if line is None else UioCompletion(line, acknowledge)


def _line_of(device: pynq.Device, cell: str) -> int | None:
    """The processing system's interrupt to which ``cell`` is wired, which PYNQ's list of pins leaves out."""
    if device.systemgraph is None:
        return None
    for ps in device.systemgraph.get_processing_systems().values():
        for name, line in ps.get_irqs.items():
            for source in line._connections.values():
                if getattr(source.parent().parent(), "hierarchy_name", None) == cell:
                    return int(ps.irq[name][0][0])
    return None


class UioCompletion:
    """``Completion`` by the UIO device of the processing system's interrupt ``line``. Raises ValueError when there is none, OSError."""

    def __init__(self, line: int, acknowledge: Callable[[], bool]) -> None:
        path = pynq.interrupt.get_uio_irq(line)
        if path is None:
            raise ValueError(f"the kernel has no UIO device for interrupt {line}")
        self.delivered = 0
        self._acknowledge = acknowledge
        self._uio = open(path, "r+b", buffering=0)  # noqa: SIM115 - stop() closes it
        self._poll = select.poll()
        self._poll.register(self._uio, select.POLLIN)
        self._enabled = False
        """Whether the kernel was asked for an interrupt that has not been read."""
        self._serving = threading.Lock()
        self._stopped = False

    def wait(self, timeout: float) -> bool:
        """See Completion. Times below a millisecond are one, but for 0."""
        with self._serving:
            if not self._enabled:
                self._enable()
        if not self._poll.poll(1e3 * timeout):
            return False
        with self._serving:
            if self._stopped:
                return False
            self._uio.read(UIO_BYTES)
            self._enabled = False
            came = self._acknowledge()
            self.delivered += came
        if not came:
            time.sleep(SPURIOUS_SECONDS)
        return came

    def rearm(self) -> None:
        """See Completion. Left unread, the late interrupt would be taken for one without a reason during the next run."""
        with self._serving:
            if not self._stopped and self._poll.poll(0):
                self._uio.read(UIO_BYTES)
            self._enable()

    def stop(self) -> None:
        """See Completion."""
        with self._serving:
            if not self._stopped:
                self._stopped = True
                self._uio.close()

    def _enable(self) -> None:
        """Ask the kernel for the next interrupt."""
        if not self._stopped:
            self._enabled = True
            self._uio.write((1).to_bytes(UIO_BYTES, sys.byteorder))
