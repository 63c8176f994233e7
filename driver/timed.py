"""A stand-in for timing: a device that is busy for a stated time an image, by the clock, and computes nothing.

For benchmarks of what stands around the NPU (``--device timed:1.8ms``): the registers, buffers and waiting START are the real ones, so
the host's work is the real work. Its results are no inference: value i is byte i of the packed image, which shows whether every caller
got the answer to the own image. A run that waits begins when the one before it ends, however late the host looks, as in the NPU. Unlike
the NPU it shows the host every run's end, also that of one which the host came too late for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import numpy as np

from driver.device import Buffer, DeviceError, DeviceTimeoutError
from driver.golden import GoldenDevice
from driver.memory import SharedMemory
from hw.isa import ArrayConfig, ErrorCode, ProgramHeader, Register

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class TimedDevice(GoldenDevice):
    """A stand-in for benchmarks: busy for a stated time an image (timed:1.8ms), answers bytes of the image.

    A ``driver.device.Device`` for ``config``; ``setting`` is the time of an image. Raises DeviceError for another text.
    """

    kind = "timed"

    def __init__(self, config: ArrayConfig, memory_bytes: int = 1 << 30, setting: str = "1.8ms") -> None:
        super().__init__(config, memory_bytes)
        self.period = seconds_of(setting)
        self.kind = f"timed:{setting}"
        self._due = 0.0
        """When the run that is on, or the last one, ends."""
        self._in_a_row = False
        self._header: ProgramHeader | None = None
        self._header_at: tuple[int, ...] = ()
        """The addresses of the program whose header that is."""

    def allocate(self, nbytes: int) -> Buffer:
        """Memory that host and device share without copies, as a board's. Raises DeviceError when there is none left."""
        return _SharedBuffer(self.memory, nbytes)

    def wait(self, timeout: float) -> None:
        """Sleep until the run that is on is done; return at once if there is none. Raises DeviceTimeoutError."""
        deadline = time.monotonic() + timeout
        finished = self._registers[Register.RUNS]
        while self._run is not None and self._registers[Register.RUNS] == finished:
            now = time.monotonic()
            if now < self._due and now >= deadline:
                raise DeviceTimeoutError(f"the {self.kind} device is busy after {timeout:g} s")
            if now < self._due:
                time.sleep(min(self._due, deadline) - now)
            self._proceed()

    def _finish(self, error: ErrorCode | int, layer: int) -> None:
        self._in_a_row = True
        super()._finish(ErrorCode(error), layer)
        self._in_a_row = False

    def _compute(self) -> Iterator[None]:
        begin = self._due if self._in_a_row else time.monotonic()
        self._due = begin + self.period
        return self._until(self._due)

    def _until(self, due: float) -> Iterator[None]:
        while time.monotonic() < due:
            yield
        header = self._program_header()
        words = self._memory(
            Register.IMAGE_ADDRESS,
            header.image_words * header.image_beats * self.config.port_bytes,
            ErrorCode.IMAGE_READ,
        )
        result = self._memory(
            Register.FEATURE_ADDRESS, header.feature_words * self.config.cp, ErrorCode.FEATURE_WRITE
        ).view("<i4")
        result[:] = words[: result.size] if words.size >= result.size else np.resize(words, result.size)
        self._layers_done = header.layers

    def _program_header(self) -> ProgramHeader:
        """The header of the program that the registers point to, checked as the golden model does when the address is new."""
        addresses = tuple(self._address(Register.PROGRAM_ADDRESS + 8 * port) for port in range(self.config.ports))
        if self._header is None or addresses != self._header_at:
            self._header, self._header_at = self._read_program().header, addresses
        return self._header


class _SharedBuffer:
    """A ``driver.device.Buffer`` in coherent memory: nothing to flush, nothing to invalidate."""

    def __init__(self, memory: SharedMemory, nbytes: int) -> None:
        self.address = memory.arena.allocate(nbytes)
        self.array = memory.at(self.address, nbytes)
        self._arena = memory.arena

    def flush(self) -> None:
        """The device sees it already."""

    def invalidate(self) -> None:
        """The host sees it already."""

    def free(self) -> None:
        """Give the memory back."""
        self._arena.free(self.address)


def seconds_of(text: str) -> float:
    """Seconds of a time with its unit, like ``1.8ms``. Raises DeviceError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s)", text)
    if not match:
        raise DeviceError(f"{text!r} is no time: write a number and its unit, like timed:1.8ms (us, ms or s)")
    return float(match[1]) * UNITS[match[2]]
