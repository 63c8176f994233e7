"""PYNQ's driver of the NPU's IP: the registers, buffers and interrupt of one core as a ``driver.device.Device``."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NoReturn

from pynq import DefaultIP

from driver.board import sensors
from driver.board.interrupt import Completion, completion_of
from driver.board.memory import BoardBuffer, ContiguousMemory
from driver.board.platform import platform_of
from driver.device import DeviceError, DeviceResetError, DeviceTimeoutError, Readings
from hw.board import board_names
from hw.isa import MAGIC, REGISTER_BITS, ArrayConfig, ConfigurationError, Control, Register, load_config
from hw.synth.kernel import VLNV

log = logging.getLogger(__name__)
REGISTER_BYTES = 1 << REGISTER_BITS
LOOK_SECONDS = 0.02
"""How often one that waits for the interrupt looks whether it got lost."""
LOST_SECONDS = 0.05
"""An interrupt that was seen pending so long ago, and has not come, got lost."""
POLL_SECONDS = 0.0002
"""How often one looks that has no interrupt."""
LOST_MAX = 3
"""Interrupts lost in a row after which the driver relies on polling until one comes."""
IDLE_SECONDS = 1.0
"""How long close() lets a run come to its end."""
DONE = 1
"""Bit of the interrupt registers."""


class NpuIP(DefaultIP):
    """One NPU on a board, a ``driver.device.Device``. PYNQ makes it when the overlay is loaded, by the IP's type."""

    bindto = [VLNV]  # noqa: RUF012 - PYNQ reads it off the class

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__(description=description)
        self.kind = "board"
        self._registers32 = self.mmio.array  # MMIO.read() and write() do the same in twice the time
        self.platform = platform_of(self.device, description)
        self.memory = ContiguousMemory(self.platform, self.idle)
        self.closing = ExitStack()
        """What ends with the device: the simulated board that was made for it."""
        self.lost_interrupts = 0
        """Interrupts that were found by looking, since they had not come."""
        self._cell: str = description["fullpath"]
        self._ports = sum(bool(re.fullmatch(r"program_\d+", name, re.IGNORECASE)) for name in description["registers"])
        self._lost_in_a_row = 0
        self._pending_since: float | None = None
        """When a look first found the interrupt pending that is still so."""
        self._acknowledging = threading.Lock()
        self._completion: Completion | None = None
        self._wants_interrupts = True
        self._access = threading.Lock()
        """Held for each access to a register: none is under way once abandon() has returned."""
        self._abandoned = False
        self.reload: Callable[[], None] | None = None
        """What resets the logic: the overlay's, which abandons all NPUs in it and loads the bitstream."""
        self.config = self._find_config()
        self.open()

    # The Device protocol ---------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> BoardBuffer:
        """Contiguous memory of ``nbytes``. Raises DeviceError when there is none left."""
        return self.memory.allocate(nbytes)

    def read_register(self, offset: int) -> int:
        """A 32-bit register. Raises DeviceResetError once abandoned, as all that touches registers."""
        with self._access:
            if (
                self._abandoned or offset & 3 or not 0 <= offset < REGISTER_BYTES
            ):  # here, not in a call: an image takes hundreds
                self._refuse(offset)
            return int(self._registers32[offset >> 2])

    def write_register(self, offset: int, value: int) -> None:
        """Write a 32-bit register."""
        with self._access:
            if (
                self._abandoned or offset & 3 or not 0 <= offset < REGISTER_BYTES
            ):  # here, not in a call: an image takes hundreds
                self._refuse(offset)
            self._registers32[offset >> 2] = int(value)

    def wait(self, timeout: float) -> None:
        """Return when the NPU has signalled done. Raises DeviceTimeoutError after ``timeout`` seconds, DeviceResetError once abandoned."""
        deadline = time.monotonic() + timeout
        while True:
            self._check_not_abandoned()
            left = deadline - time.monotonic()
            if self._signalled(max(0.0, min(left, LOOK_SECONDS))):
                return
            if left <= 0:
                raise DeviceTimeoutError(
                    f"the NPU {self._cell!r} was not done after {timeout:g} s: allow more time; if it does not come back, "
                    "restart the overlay"
                )

    def close(self) -> None:
        """release(), and what was put on ``closing``. May be called again. Raises like release()."""
        self.release()
        self.closing.close()

    # Beyond the protocol ---------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Let a run come to its end, give every buffer back and switch the interrupt off, until open().

        Raises DeviceError, and keeps the buffers, when the run does not end within a second.
        """
        end = time.monotonic() + IDLE_SECONDS
        while not self._abandoned and not self.idle() and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        self.write_register(Register.GLOBAL_INTERRUPT_ENABLE, 0)
        self._stop_completion()
        self.memory.free_all()

    def abandon(self) -> None:
        """Wait no longer for a run that is on, and touch no register in any thread: the NPU is about to be reset. open() ends this."""
        self._stop_completion()
        with self._access:
            self._abandoned = True

    def reset(self) -> None:
        """Reset the NPU, whatever it is doing, and with it all others in its bitstream, which their own reset() takes into use again.

        Runs are lost, buffers stay. Raises DeviceError when the NPU belongs to no overlay that could load its bitstream.
        """
        if self.reload is None:
            raise DeviceError(f"the NPU {self._cell!r} was not opened by NpuOverlay, which would reset it")
        self.reload()
        self.open(self._wants_interrupts)

    @property
    def abandoned(self) -> bool:
        """Whether it was reset and not yet taken into use again."""
        return self._abandoned

    def open(self, interrupts: bool = True) -> None:
        """Take the NPU into use, by interrupt where there is one, as the constructor does; needed again only after release().

        ``interrupts=False`` polls.
        """
        self._wants_interrupts = interrupts
        self._abandoned = False
        self._stop_completion()
        self.write_register(Register.GLOBAL_INTERRUPT_ENABLE, 0)
        self.write_register(Register.INTERRUPT_ENABLE, DONE)
        self._acknowledge()
        if not interrupts:
            return
        try:
            self._completion = completion_of(self.device, self._cell, self._acknowledge)
        except (ValueError, OSError) as error:  # no UIO device for it, or not ours
            log.warning("no interrupt from %s (%s); the driver polls instead", self._cell, error)
        if self._completion is not None:
            self.write_register(Register.GLOBAL_INTERRUPT_ENABLE, 1)

    @property
    def uses_interrupt(self) -> bool:
        """Whether completion comes by interrupt; otherwise it is polled for."""
        return self._completion is not None

    @property
    def interrupts(self) -> int:
        """Interrupts that came."""
        return self._completion.delivered if self._completion else 0

    @property
    def clock_mhz(self) -> float:
        """The NPU's clock. Setting it raises DeviceError during a run, ValueError beyond what the board's bitstream is made for."""
        return self.platform.clock_mhz

    @clock_mhz.setter
    def clock_mhz(self, megahertz: float) -> None:
        if not 0 < megahertz <= self.config.clock_mhz:
            raise ValueError(
                f"the NPU was built for up to {self.config.clock_mhz:g} MHz, {megahertz:g} MHz would give wrong results"
            )
        if not self.idle():
            raise DeviceError("the clock cannot be changed during a run")
        self.platform.clock_mhz = megahertz

    def sensors(self) -> Readings:
        """Power and temperatures, where the board measures them."""
        return sensors.read(self.platform.rails())

    def idle(self) -> bool:
        """Whether no run is on and no START waits; an abandoned NPU is not known to be."""
        return not self._abandoned and bool(self.read_register(Register.CONTROL) & Control.IDLE)

    def _signalled(self, seconds: float) -> bool:
        """Whether done is signalled within about ``seconds``."""
        completion = self._completion
        if completion is None:
            time.sleep(min(seconds, POLL_SECONDS))
            return self._acknowledge()
        relied_on = self._lost_in_a_row < LOST_MAX
        if not relied_on:
            time.sleep(min(seconds, POLL_SECONDS))
        if self._came(completion, seconds if relied_on else 0.0):
            return True
        if not self._overdue(LOST_SECONDS if relied_on else 0.0):
            return False
        if self._came(completion, 0.0):  # between the two looks: where accesses take long, most do
            return True
        if not self._acknowledge():
            return False
        self.lost_interrupts += 1
        self._lost_in_a_row += 1
        if self._lost_in_a_row == LOST_MAX:
            log.warning("%d interrupts of the NPU in a row did not come; the driver polls until one does", LOST_MAX)
        completion.rearm()
        return True

    def _came(self, completion: Completion, seconds: float) -> bool:
        """Whether an interrupt comes within ``seconds``: then the driver relies on them."""
        if not completion.wait(seconds):
            return False
        self._lost_in_a_row, self._pending_since = 0, None
        return True

    def _overdue(self, seconds: float) -> bool:
        """Whether the NPU has been asking for attention for ``seconds`` as far as one can see: then its interrupt got lost."""
        now = time.monotonic()
        if not self.read_register(Register.INTERRUPT_STATUS) & DONE:
            self._pending_since = None
            return False
        if self._pending_since is None:
            self._pending_since = now
        return now - self._pending_since >= seconds

    def _stop_completion(self) -> None:
        if self._completion is not None:
            self._completion.stop()
            self._completion = None

    def _acknowledge(self) -> bool:
        """Lower the interrupt; whether it was high. Bits are toggled by writing, so only one thread may do it."""
        with self._acknowledging:
            pending = self.read_register(Register.INTERRUPT_STATUS)
            if pending:
                self.write_register(Register.INTERRUPT_STATUS, pending)
            return bool(pending & DONE)

    def _check_not_abandoned(self) -> None:
        if self._abandoned:
            raise DeviceResetError(f"the NPU {self._cell!r} is being restarted: run the image again")

    def _refuse(self, offset: int) -> NoReturn:
        self._check_not_abandoned()
        raise ValueError(f"there is no register at {offset:#x}")

    def _find_config(self) -> ArrayConfig:
        """The first configuration in hw/boards that the ID registers and the ports describe."""
        if self.read_register(Register.ID_MAGIC) != MAGIC:
            raise DeviceError(
                f"{self._cell!r} is no NPU (its ID register reads {self.read_register(Register.ID_MAGIC):#x}, not {MAGIC:#x}): "
                "is the bitstream the one that belongs to this .hwh?"
            )
        array, stream = self.read_register(Register.ID_ARRAY), self.read_register(Register.ID_STREAM)
        words = self.read_register(Register.ID_MEMORY)
        for config in map(load_config, board_names()):
            same_array = (config.cp, config.kp, config.total_words) == (array & 0xFFFF, array >> 16, words)
            if same_array and (config.stream_bytes, config.acc_depth, config.ports) == (
                stream & 0xFFFF,
                stream >> 16,
                self._ports,
            ):
                return config
        raise ConfigurationError(
            f"the NPU {self._cell!r} ({array & 0xFFFF} x {array >> 16} multipliers, {words} activation words, {self._ports} ports) "
            "is none of hw/boards: add the board's file"
        )
