"""One device of the scheduler: what it is computing, how it is, and how it comes back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from operator import add, attrgetter
from typing import Literal, Protocol

from driver.device import DeviceError, DeviceTimeoutError
from driver.pool import ATTEMPTS
from driver.runtime import Counters, Result
from host_service.runners import AHEAD, Runner, WriteImage
from hw.program import Program

LOG = logging.getLogger(__name__)
GRACE = 5.0
"""Seconds beyond an image's time limit, in which the device's own report of it is awaited."""
COUNTERS = tuple(field.name for field in fields(Counters) if field.name != "layers")
_counts = attrgetter(*COUNTERS)
BACK_OFF = (0.05, 0.2, 1.0, 5.0, 30.0)
"""Seconds before the first, second, ... attempt to bring a device back; the last again and again."""

State = Literal["starting", "ready", "loading", "lost", "closed"]


@dataclass(eq=False)
class Job:
    """One image on its way."""

    program: Program
    write: WriteImage
    """Makes the image, where the device's process finds it."""
    deadline: float
    answer: asyncio.Future[Result]
    queued: bool = False
    attempts: int = 0
    lane: Lane | None = None
    """Whose device has it."""

    def fail(self, error: Exception) -> None:
        """Answer with ``error``, unless there is an answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Dispatcher(Protocol):
    """To whom a lane reports."""

    def computed(self, job: Job, result: Result) -> None:
        """The device has finished ``job``."""

    def lost(self, jobs: Sequence[Job], culprit: Job | None, error: DeviceError) -> None:
        """The device failed, on ``culprit`` if that is known, with ``jobs`` handed to it."""

    def out_of_order(self, error: DeviceError) -> None:
        """An attempt to bring the device back failed."""

    def pump(self) -> None:
        """There may be room for a job."""


class Lane:
    """The device behind ``runner``; reports to ``dispatcher``."""

    def __init__(self, number: int, runner: Runner, dispatcher: Dispatcher, timeout: float) -> None:
        self.number = number
        self.runner = runner
        runner.on_lost = self._gone
        self.state: State = "starting"
        self.program: Program | None = None
        self.running: dict[Job, asyncio.Future[Result]] = {}
        """In the order in which the device has them."""
        self.error: DeviceError | None = None
        """What it failed with last."""
        self.failures = 0
        """Attempts in a row that did not bring it back."""
        self.faults = 0
        """How often it was taken out."""
        self.images = 0
        self.busy_seconds = 0.0
        self._counted: tuple[int, ...] = (0,) * len(COUNTERS)
        self.timeout = timeout
        """Seconds for an image."""
        self._dispatcher = dispatcher
        self._watch: asyncio.TimerHandle | None = None
        self._since = 0.0
        """Since when the oldest image has been the oldest, by the event loop's clock."""
        self._task: asyncio.Task[None] | None = None

    @property
    def counters(self) -> dict[str, int]:
        """Sums of the NPU's counters over all images."""
        return dict(zip(COUNTERS, self._counted, strict=True))

    async def start(self, program: Program) -> None:
        """Open the device and load ``program``. Raises DeviceError."""
        await self.runner.open()
        await self._load(program)

    def takes(self, program: Program) -> bool:
        """Whether it has room for an image of ``program`` now."""
        return self.state == "ready" and self.program is program and len(self.running) < AHEAD * self.runner.npus

    def give(self, job: Job) -> None:
        """Hand ``job`` to the device, which takes() it."""
        try:
            future = self.runner.run(job.write)
        except DeviceError as error:
            self.running[job] = asyncio.get_running_loop().create_future()
            self._fail(job, error)
            return
        except Exception as error:  # it is the image's fault: a RequestError, or worse
            job.fail(error)
            return
        job.lane = self
        self.running[job] = future
        if len(self.running) == 1:
            self._watch_over()
        future.add_done_callback(partial(self._finished, job))

    def switch(self, program: Program) -> None:
        """Load another program; nothing is running."""
        self.state = "loading"
        self._task = asyncio.get_running_loop().create_task(self._switch(program))

    async def close(self) -> None:
        """Shut the device."""
        self.state = "closed"
        if self._task is not None:
            self._task.cancel()
        if self._watch is not None:
            self._watch.cancel()
        await self.runner.shut()

    def leave(self, job: Job) -> None:
        """Nobody waits for ``job`` any longer; the device need not begin it."""
        if job in self.running:
            self.runner.drop(self.running[job])

    def _finished(self, job: Job, done: asyncio.Future[Result]) -> None:
        if self.running.get(job) is not done:
            return  # the device was taken out meanwhile, and the job runs elsewhere
        if done.cancelled():
            self._drop(job)
            return
        error = done.exception()
        if error is not None:
            self._fail(
                job, error if isinstance(error, DeviceError) else DeviceError(f"{type(error).__name__}: {error}")
            )
        else:
            result = done.result()
            self.images += 1
            self.busy_seconds += result.seconds
            self._counted = tuple(map(add, self._counted, _counts(result.counters)))
            self._dispatcher.computed(job, result)
            self._drop(job)

    def _drop(self, job: Job) -> None:
        """The device is through with ``job``: on to the next."""
        del self.running[job]
        job.lane = None
        self._watch_over()
        self._dispatcher.pump()

    def _watch_over(self) -> None:
        """Give the oldest image its time, from now."""
        self._since = asyncio.get_running_loop().time()
        if self._watch is None and self.running:
            self._watch = asyncio.get_running_loop().call_later(self._patience, self._look_after)

    def _look_after(self) -> None:
        """The time of the image that was the oldest a while ago is over: is that of the one that is the oldest now?"""
        self._watch = None
        if self.running and self.state in ("ready", "loading"):
            left = self._since + self._patience - asyncio.get_running_loop().time()
            if left > 0:
                self._watch = asyncio.get_running_loop().call_later(left, self._look_after)
            else:
                self._hangs()

    @property
    def _patience(self) -> float:
        """Seconds for an image; several NPUs are a pool, which tries it several times."""
        return self.timeout * (ATTEMPTS if self.runner.npus > 1 else 1) + GRACE

    def _gone(self, error: DeviceError) -> None:
        if self.state == "ready":
            self._fail(next(iter(self.running), None), error)

    def _hangs(self) -> None:
        text = f"the {self.runner.kind} device hangs: no answer within {self.timeout:g} s"
        self._fail(next(iter(self.running)), DeviceTimeoutError(text))

    # Failing and coming back -----------------------------------------------------------------------------------------

    def _fail(self, culprit: Job | None, error: DeviceError) -> None:
        """Take the device out; its jobs run elsewhere, and it is brought back."""
        if self.state in ("lost", "closed"):  # the runner was lost while it took this job
            self._give_back(culprit, error)
            return
        LOG.error("device %d (%s) is taken out: %s", self.number, self.runner.kind, error)
        self.state, self.error = "lost", error
        self.faults += 1
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._give_back(culprit, error)
        self._task = asyncio.get_running_loop().create_task(self._recover())
        self._dispatcher.pump()

    def _give_back(self, culprit: Job | None, error: DeviceError) -> None:
        jobs, self.running = self.running, {}
        for job, future in jobs.items():
            job.lane = None
            future.cancel()
            if self.state == "closed":
                job.fail(error)
        self._dispatcher.lost(list(jobs), culprit, error)

    async def _recover(self) -> None:
        program = self.program
        while True:
            await asyncio.sleep(BACK_OFF[min(self.failures, len(BACK_OFF) - 1)])
            begin = time.monotonic()
            try:
                await self.runner.open()
                if program is not None:
                    await self._load(program)
            except (DeviceError, OSError, asyncio.TimeoutError) as error:
                self.failures += 1
                self.error = error if isinstance(error, DeviceError) else DeviceError(str(error))
                LOG.error("device %d (%s) does not come back: %s", self.number, self.runner.kind, error)
                self._dispatcher.out_of_order(self.error)
            else:
                LOG.info("device %d is back after %.2f s", self.number, time.monotonic() - begin)
                return

    async def _load(self, program: Program) -> None:
        await self.runner.load(program)
        self.program, self.state, self.failures = program, "ready", 0
        self._dispatcher.pump()

    async def _switch(self, program: Program) -> None:
        try:
            await self._load(program)
        except (DeviceError, OSError, asyncio.TimeoutError) as error:
            self.state = "ready"
            self._fail(None, error if isinstance(error, DeviceError) else DeviceError(str(error)))
