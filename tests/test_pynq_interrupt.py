"""The UIO device of an interrupt, with the kernel's end in the test's hand: what is written enables, what is sent is an interrupt."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from driver.board.interrupt import UIO_BYTES, UioCompletion


class Kernel:
    """The kernel's end of the UIO device of interrupt 61, and the level of its line."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.high = False
        end.setblocking(False)

    def deliver(self) -> None:
        """The line goes high, and the kernel tells the user."""
        self.high = True
        self._end.send(bytes(UIO_BYTES))

    def lower(self) -> bool:
        """Acknowledge at the NPU; whether the line was high."""
        was, self.high = self.high, False
        return was

    def enabled(self) -> bool:
        """Whether the user has asked for an interrupt since the last call."""
        try:
            return any(self._end.recv(UIO_BYTES))
        except BlockingIOError:
            return False


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    end, user = socket.socketpair()
    monkeypatch.setattr("pynq.interrupt.get_uio_irq", lambda irq: user.detach())
    with end:
        yield Kernel(end)


@pytest.fixture
def completion(kernel: Kernel) -> Iterator[UioCompletion]:
    completion = UioCompletion(61, kernel.lower)
    yield completion
    completion.stop()


def test_an_interrupt_is_asked_for_and_acknowledged_once(kernel: Kernel, completion: UioCompletion):
    assert not completion.wait(0)
    assert kernel.enabled()
    kernel.deliver()
    assert completion.wait(0)
    assert not kernel.high
    assert completion.delivered == 1
    assert not completion.wait(0)
    assert kernel.enabled()


def test_an_interrupt_of_a_run_that_polling_found_finished_is_not_taken_for_the_next_ones(
    kernel: Kernel, completion: UioCompletion
):
    assert not completion.wait(0)
    kernel.deliver()
    assert kernel.lower()  # polling was faster
    completion.rearm()
    kernel.enabled()
    kernel.high = True  # the next run ends, and its interrupt is on its way
    assert not completion.wait(0)
    assert kernel.high
    kernel.deliver()
    assert completion.wait(0)
    assert completion.delivered == 1


def test_after_polling_the_next_interrupt_is_asked_for_before_anyone_waits(kernel: Kernel, completion: UioCompletion):
    completion.wait(0)
    assert kernel.enabled()
    completion.rearm()
    assert kernel.enabled()


def test_a_stopped_one_asks_for_nothing_and_says_that_none_came(kernel: Kernel, completion: UioCompletion):
    completion.stop()
    completion.rearm()
    assert not completion.wait(0)
    assert completion.delivered == 0
