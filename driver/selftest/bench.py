"""The device on the test bench: runs of programs at addresses of one's choice, straight through the registers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driver.device import Buffer, Device, DeviceError, DeviceTimeoutError
from driver.golden import GoldenDevice
from driver.registers import Counters, Outcome, RunRegisters
from hw.board import board_names
from hw.isa import MAGIC, ArrayConfig, Register, load_config
from hw.program import Program
from hw.stream import stripe

WATCHDOG_CYCLES = 1 << 16
"""Without progress: 0.2 ms at 300 MHz, hundreds of memory latencies."""
TIMEOUT = 60.0
"""Seconds for one of the small runs; it takes microseconds on a board, a second in RTL."""


class Bench:
    """``device``, which stays its owner's, with what was found out about it. Use as a context manager: it gives its buffers back.

    ``expected`` is the array that should be there, if that is known; ``program`` the network to try; ``memory_bytes`` how much memory
    each of the memory checks walks over; ``images`` how many images the network is run on.
    """

    def __init__(
        self,
        device: Device,
        *,
        expected: ArrayConfig | None = None,
        program: Program | None = None,
        memory_bytes: int = 8 << 20,
        images: int = 4,
        timeout: float = TIMEOUT,
    ) -> None:
        self.device = device
        self.expected = expected
        self.program = program
        self.memory_bytes = memory_bytes
        self.images = images
        self.timeout = timeout
        self.is_model = isinstance(device, GoldenDevice)
        """Arithmetic only: no registers, memory ports or clock of hardware."""
        self.registers = RunRegisters(device)
        self.config = find_config(device)
        """The array that the ID registers describe; None when that is none that this software knows."""
        self._buffers = ExitStack()

    @property
    def array(self) -> ArrayConfig:
        """``config``. Raises DeviceError where it is None."""
        if self.config is None:
            raise DeviceError("no array that this software knows answers")
        return self.config

    def buffer(self, nbytes: int) -> Buffer:
        """Shared memory until the end, or until keep() ends."""
        buffer = self.device.allocate(nbytes)
        self._buffers.callback(buffer.free)
        return buffer

    def filled(self, data: NDArray[Any]) -> Buffer:
        """Shared memory that holds ``data``."""
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        buffer = self.buffer(flat.size)
        buffer.array[: flat.size] = flat
        buffer.flush()
        return buffer

    def load(self, program: Program) -> list[int]:
        """Put ``program`` into memory; the address for each weight port."""
        return [self.filled(part).address for part in stripe(program.stream, program.config)]

    def try_run(self, program: Program, weights: Sequence[int], image: int, result: int) -> Outcome:
        """Run ``program`` with everything at these addresses; what the registers say then.

        Raises DeviceTimeoutError when it does not end, DeviceError when the run before has not ended.
        """
        if not self.registers.idle():
            raise DeviceError("the NPU is still busy with an earlier run")
        before = self.registers.finished()
        self.registers.forget()  # a check may have written them
        self.registers.start(program, weights, image, result, WATCHDOG_CYCLES)
        end = time.monotonic() + self.timeout
        while (run := self.registers.finished()) == before:
            left = end - time.monotonic()
            if left <= 0:
                raise DeviceTimeoutError(f"a run of a few thousand cycles did not end within {self.timeout:g} s")
            self.device.wait(left)
        outcome = self.registers.outcome(run, program, layer_counters=True)
        if outcome is None:
            raise DeviceError("another run finished meanwhile: does another program use the NPU?")
        return outcome

    def run(self, program: Program, weights: Sequence[int], image: int, result: int) -> Outcome:
        """Like try_run(), and raises NpuError when the NPU reports an error."""
        outcome = self.try_run(program, weights, image, result)
        outcome.check(program)
        return outcome

    def compute(self, program: Program, image: NDArray[np.uint8]) -> NDArray[Any]:
        """The result of ``image``, with buffers of its own."""
        with self.keep():
            result = self.buffer(program.result_bytes)
            packed = self.filled(program.pack_image(image))
            self.run(program, self.load(program), packed.address, result.address)
            result.invalidate()
            return program.read_result(result.array[: program.result_bytes])

    def cost(self, program: Program) -> Counters:
        """What the NPU counts on an image of zeros."""
        with self.keep():
            image = self.filled(np.zeros(program.image_bytes, np.uint8))
            result = self.buffer(program.result_bytes)
            return self.run(program, self.load(program), image.address, result.address).counters

    def keep(self) -> _Kept:
        """A context at whose end the buffers that were made in it are given back."""
        return _Kept(self)

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._buffers.close()


class _Kept:
    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def __enter__(self) -> None:
        self._outer, self._bench._buffers = self._bench._buffers, ExitStack()

    def __exit__(self, *_: object) -> None:
        inner, self._bench._buffers = self._bench._buffers, self._outer
        inner.close()


def find_config(device: Device) -> ArrayConfig | None:
    """The configuration that the ID registers describe: the device's own, or one of hw/boards."""
    read = device.read_register
    if read(Register.ID_MAGIC) != MAGIC:
        return None
    array, memory, stream = (read(r) for r in (Register.ID_ARRAY, Register.ID_MEMORY, Register.ID_STREAM))
    for c in (device.config, *map(load_config, board_names())):
        if (array, memory, stream) == (c.kp << 16 | c.cp, c.total_words, c.acc_depth << 16 | c.stream_bytes):
            return c
    return None
