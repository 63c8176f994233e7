"""AMD's AXI interrupt controller (PG099), as far as PYNQ uses it: level inputs, no vectors, no nesting.

An input that is high sets its pending bit, and sets it again after an acknowledgement as long as it stays high: software that acknowledges
here before it does so at the source is interrupted once more.
"""

from __future__ import annotations

from driver.device import DeviceError

PENDING, ENABLED_PENDING, ENABLE, ACKNOWLEDGE, SET_ENABLE, CLEAR_ENABLE, MASTER_ENABLE = (
    0x00,
    0x04,
    0x08,
    0x0C,
    0x10,
    0x14,
    0x1C,
)
"""ISR, IPR, IER, IAR, SIE, CIE and MER of the guide."""
LINE, CAPTURE = 1, 2
"""Bits of MER: the output as a whole, and whether inputs are taken at all; the latter stays on once it is."""


class AxiInterruptController:
    """The registers, and the level of the output."""

    def __init__(self) -> None:
        self._inputs = self._pending = self._enabled = self._master = 0

    @property
    def output(self) -> bool:
        """The level of ``irq``."""
        return bool(self._master & LINE and self._pending & self._enabled)

    def drive(self, number: int, high: bool) -> None:
        """The level of an input."""
        self._inputs = self._inputs | 1 << number if high else self._inputs & ~(1 << number)
        self._capture()

    def read(self, offset: int) -> int:
        """A register. Raises DeviceError for one that is not modelled."""
        values = {
            PENDING: self._pending,
            ENABLED_PENDING: self._pending & self._enabled,
            ENABLE: self._enabled,
            MASTER_ENABLE: self._master,
        }
        if offset not in values:
            raise DeviceError(f"the model of the interrupt controller has no register at {offset:#x} to be read")
        return values[offset]

    def write(self, offset: int, value: int) -> None:
        """Write a register. Raises DeviceError for one that is not modelled."""
        if offset == ENABLE:
            self._enabled = value
        elif offset == SET_ENABLE:
            self._enabled |= value
        elif offset == CLEAR_ENABLE:
            self._enabled &= ~value
        elif offset == ACKNOWLEDGE:
            self._pending &= ~value
        elif offset == MASTER_ENABLE:
            self._master = value | self._master & CAPTURE
        else:
            raise DeviceError(f"the model of the interrupt controller has no register at {offset:#x} to be written")
        self._capture()

    def _capture(self) -> None:
        if self._master & CAPTURE:
            self._pending |= self._inputs
