"""The kernel's UIO device of an interrupt line: reads block until an interrupt, writes enable the next one.

It behaves as ``uio_pdrv_genirq`` does with a level-triggered line: an interrupt is delivered once, to all who have the device open, and
then disabled until somebody writes. Who uses it opens what PYNQ's ``get_uio_irq`` names, which looks the line up in /proc/interrupts; here
it is one end of a socket pair.
"""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress
from functools import cache

import pynq.interrupt

COUNT_BYTES = 4


class InterruptLine:
    """One level-triggered line and its UIO device."""

    def __init__(self) -> None:
        self._listeners: list[socket.socket] = []
        """The kernel's ends of those who have it open."""
        self._lock = threading.Lock()
        self._enabled = False
        self._high: set[int] = set()
        """Who holds the line high: several boards of one host have the same."""
        self._count = self._to_lose = 0

    def device(self) -> int:
        """What is opened in place of a path: a file descriptor, which sees the interrupts from now on."""
        kernel, user = socket.socketpair()
        with self._lock:
            self._listeners.append(kernel)
        threading.Thread(target=self._serve, args=(kernel,), name="uio", daemon=True).start()
        return user.detach()

    def drive(self, high: bool, source: int) -> None:
        """The level that ``source`` puts on the line."""
        with self._lock:
            if high:
                self._high.add(source)
            else:
                self._high.discard(source)
            self._deliver()

    def lose(self, count: int) -> None:
        """Let the next ``count`` interrupts reach the kernel and not the user."""
        with self._lock:
            self._to_lose = count

    def interrupt(self) -> None:
        """Deliver an interrupt for which there is no reason."""
        with self._lock:
            self._tell()

    def _serve(self, listener: socket.socket) -> None:
        with suppress(ConnectionResetError):  # closed with an interrupt unread
            while written := listener.recv(COUNT_BYTES):
                with self._lock:
                    self._enabled = any(written)
                    self._deliver()
        with self._lock, listener:
            self._listeners.remove(listener)

    def _deliver(self) -> None:
        if not (self._high and self._enabled):
            return
        self._enabled = False
        self._count += 1
        if self._to_lose:
            self._to_lose -= 1
        else:
            self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            with suppress(BrokenPipeError):  # closed a moment ago
                listener.send(self._count.to_bytes(COUNT_BYTES, sys.byteorder))


@cache
def line(raw_irq: int) -> InterruptLine:
    """The line of that number; as in the kernel there is one, and PYNQ keeps it open."""
    return InterruptLine()


_look_up = pynq.interrupt.get_uio_irq


def _uio_of(irq: int) -> str | int | None:
    return line(irq).device() if irq in (61, 121) else _look_up(irq)


pynq.interrupt.get_uio_irq = _uio_of
