"""A program in the device's memory, and its runs one behind the other: one computes, one waits, each in buffers of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driver.device import Buffer, Device, DeviceError, DeviceTimeoutError
from driver.registers import Counters, Outcome, RunRegisters, check_fits, has_finished, number_after
from hw.program import Program, ProgramError
from hw.stream import stripe

SLOTS = 2
"""Runs that the device has at a time: one computes, one waits."""
LOOK_SECONDS = 0.002
"""How often one that waits for the only run looks for a further image: a fraction of an image's time on a board."""


@dataclass(frozen=True)
class Result:
    """The answer to one image."""

    result: NDArray[Any]
    """The integers as the NPU computed them, shape and type of ``Program.output``."""
    counters: Counters
    seconds: float
    """Wall time from handing the image to the device, or from the result before where that came later, to having the result."""
    to_features: Callable[[NDArray[Any]], NDArray[np.float32]]

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """The integers' real values (``Program.features``)."""
        return self.to_features(self.result)


@dataclass(eq=False)
class Job:
    """An image on its way through ``pipeline``."""

    pipeline: Pipeline
    lay_out: Callable[[NDArray[np.uint8]], object]
    """Writes the packed image (``Program.pack_image``) to the buffer, uint8 [image_bytes], when its run is started."""
    slot: _Slot | None = None
    """Where it was started."""
    begin: float = 0.0
    outcome: Outcome | None = None

    def cancelled(self) -> bool:
        """Whether nobody waits for the result."""
        return False


@dataclass(eq=False)
class _Slot:
    """The buffers of one run."""

    image: Buffer
    result: Buffer
    run: int
    """Number of the last run on these buffers."""
    job: Job | None = None
    """Whose run that is, until its result has been read."""


class Pipeline:
    """``program``, loaded into ``device``'s memory. Not thread safe.

    ``next_job`` gives the job that follows the one that run() has, if one is queued by now; it is called again and again. Raises
    DeviceError when the program was compiled for another array or memory is short, ProgramError when it contradicts itself.
    """

    def __init__(
        self,
        device: Device,
        program: Program,
        next_job: Callable[[], Job | None],
        *,
        timeout: float,
        watchdog: int,
        layer_counters: bool,
    ) -> None:
        check_fits(device, program)
        _check_image(program)
        self.program = program
        self.timeout = timeout
        self._device = device
        self._registers = RunRegisters(device)
        self._next_job = next_job
        self._watchdog = watchdog
        self._layer_counters = layer_counters
        self._become_idle()
        self._started = self._finished = self._registers.finished()
        """Numbers of the last run that got its START, and of the last one that was seen to have finished."""
        self._ended = 0.0
        """When the last result was read."""
        self._buffers: list[Buffer] = []
        try:
            self._weights = [self._filled(part) for part in stripe(program.stream, device.config)]
            self._slots = [
                _Slot(
                    self._filled(np.zeros(program.image_bytes, np.uint8)),
                    self._filled(np.zeros(program.header.feature_words * device.config.cp, np.uint8)),
                    self._started,
                )
                for _ in range(SLOTS)
            ]
        except BaseException:
            self.free()
            raise

    def run(self, job: Job) -> Result:
        """Finish ``job``: start it, unless that was done while the one before was computed, wait, and read the result.

        Jobs come in the order of ``next_job``; those that were cancelled are left out. Raises NpuError when the NPU reports an error,
        DeviceTimeoutError when the run takes longer than ``timeout`` seconds. The next job works after either.
        """
        try:
            if job.slot is None:
                self._wait_for(number_after(self._started, -1), start_next=False)
                self._start(job, next(slot for slot in self._slots if self._is_free(slot)))
            slot, outcome = self._finish(job)
            outcome.check(self.program)
            slot.result.invalidate()
            result = self.program.read_result(slot.result.array[: self.program.result_bytes])
        except BaseException:
            self._registers.forget()
            raise
        finally:
            begin, self._ended = max(job.begin, self._ended), time.perf_counter()
            if job.slot is not None:
                job.slot.job = None
        return Result(result, outcome.counters, self._ended - begin, self.program.features)

    def drain(self) -> None:
        """Wait for a run whose job was cancelled after its START, so that nothing uses the buffers. Raises like run()."""
        for slot in self._slots:
            if slot.job is not None:
                self._wait_for(slot.run)

    def free(self) -> None:
        """Give all buffers back."""
        for buffer in self._buffers:
            buffer.free()
        self._buffers = []

    # Starting --------------------------------------------------------------------------------------------------------

    def _become_idle(self) -> None:
        """Let every run come to its end that was started before."""
        for _ in range(SLOTS):
            if not self._registers.idle():
                self._device.wait(self.timeout)
        if not self._registers.idle():
            raise DeviceError(f"the {self._device.kind} device signals done, but does not become idle: reset it")

    def _filled(self, data: NDArray[np.uint8]) -> Buffer:
        buffer = self._device.allocate(len(data))
        self._buffers.append(buffer)
        buffer.array[: len(data)] = data
        buffer.flush()
        return buffer

    def _is_free(self, slot: _Slot) -> bool:
        """Whether nobody is going to read the slot's result, and the device is through with its buffers."""
        unwanted = slot.job is None or slot.job.cancelled()
        return unwanted and self._has_finished(slot.run)

    def _start(self, job: Job, slot: _Slot) -> None:
        """Hand the image over and give START, behind the run that is on if there is one."""
        job.begin = time.perf_counter()
        job.lay_out(slot.image.array[: self.program.image_bytes])
        slot.image.flush()
        self._give_start(job, slot)

    def _give_start(self, job: Job, slot: _Slot) -> None:
        self._finished = self._registers.finished()
        if has_finished(self._started, self._finished) and self._started != self._finished:
            self._started = self._finished  # runs that somebody else started count too
            self._registers.forget()
        addresses = [buffer.address for buffer in self._weights]
        self._registers.start(self.program, addresses, slot.image.address, slot.result.address, self._watchdog)
        self._started = slot.run = number_after(self._started)
        slot.job, job.slot = job, slot

    def _start_next(self) -> bool:
        """Start the next job behind the run that is on, if a slot is free; returns whether it is worth looking again for a job."""
        slot = next((slot for slot in self._slots if self._is_free(slot)), None)
        if slot is None:
            return False
        job = self._next_job()
        if job is None:
            return True
        if job.pipeline is not self or job.slot is not None:
            return False
        with suppress(DeviceError):  # its own run() tries again, and reports it
            self._start(job, slot)
        return False

    # Finishing -------------------------------------------------------------------------------------------------------

    def _finish(self, job: Job) -> tuple[_Slot, Outcome]:
        """Wait for a job that was started; what became of it.

        The registers show the outcome of the last finished run. Should the host come so late that the run behind has finished too,
        then that one's outcome is kept for its job, and this job is run again while nothing waits behind it.
        """
        slot = job.slot
        assert slot is not None
        while job.outcome is None:
            self._wait_for(number_after(slot.run, -1))  # a run's time begins when the one before has ended
            self._wait_for(slot.run)
            at_rest = has_finished(self._started, self._finished)
            self._keep_outcome()
            if at_rest and job.outcome is None:
                self._give_start(job, slot)
        return slot, job.outcome

    def _keep_outcome(self) -> None:
        """Give the outcome that the registers show to the job whose it is."""
        shown = self._registers.outcome(self._finished, self.program, self._layer_counters)
        if shown is None:  # another run has finished meanwhile
            self._finished = self._registers.finished()
            return
        for slot in self._slots:
            if slot.job is not None and slot.run == self._finished:
                slot.job.outcome = shown

    def _has_finished(self, run: int) -> bool:
        """Whether ``run`` has; asks the device unless that is known."""
        if not has_finished(run, self._finished):
            self._finished = self._registers.finished()
        return has_finished(run, self._finished)

    def _wait_for(self, run: int, *, start_next: bool = True) -> None:
        """Wait until ``run`` has finished, ``timeout`` seconds at most, and meanwhile start the next job behind it."""
        deadline = time.monotonic() + self.timeout
        while not self._has_finished(run):
            look_again = start_next and self._start_next()
            left = max(0.0, deadline - time.monotonic())
            try:
                self._device.wait(min(left, LOOK_SECONDS) if look_again else left)
            except DeviceTimeoutError:
                if time.monotonic() >= deadline:
                    raise
            else:  # the interrupt may be that of an earlier run
                if time.monotonic() >= deadline and not self._has_finished(run):
                    raise DeviceTimeoutError(
                        f"the {self._device.kind} device signals done, but counts no finished run: reset it"
                    )


def _check_image(program: Program) -> None:
    """Raise ProgramError unless host and hardware agree on the size of the packed image, and the host can lay it out."""
    layout, header = program.image, program.header
    config = program.config
    words = config.blocks_in(layout.lanes) * layout.rows * layout.cols
    sent = layout.word_bytes(config.cp, config.port_bytes)
    if (words, sent) != (header.image_words, program.image_word_bytes):
        raise ProgramError(
            f"program {program.name!r}: its image layout fills {words} words of {sent} bytes, "
            f"its header says {header.image_words} of {program.image_word_bytes}: compile it again"
        )
    try:
        program.packer()  # compiled here where nobody did before, not while the first image waits
    except ValueError as error:
        raise ProgramError(f"program {program.name!r}: {error}") from error
