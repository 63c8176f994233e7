"""One bounded queue before all devices: who computes what, what happens to those who leave, and to devices that fail.

Everything here runs in the event loop's thread, so nothing is locked. A request waits in the queue until a device has room: AHEAD images
are handed to a device, so that it finds the next one when it has finished one. An image whose caller left, or whose time is over, is
dropped before it reaches a device. A device that errs, hangs or dies is taken out, opened anew and brought back; its images go to the
front of the queue, the one that it failed on at most ATTEMPTS times.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence

import grpc

from driver.device import DeviceError
from driver.runtime import Result
from host_service.errors import RequestError
from host_service.lane import Job, Lane
from host_service.runners import Runner, WriteImage
from hw.program import Program

LOG = logging.getLogger(__name__)
QUEUE = 1024
"""Default of the images that may wait."""
ATTEMPTS = 3
"""How often one image is tried when devices fail on it."""
OUTAGE = 3
"""After so many failed attempts to bring back every device, requests are refused until one is back."""


class Scheduler:
    """Runs images on ``runners``, one lane each; ``limit``: images that may wait; ``timeout``: seconds of an image on a device."""

    def __init__(self, runners: Sequence[Runner], *, limit: int = QUEUE, timeout: float) -> None:
        self.limit = limit
        self.lanes = [Lane(number, runner, self, timeout) for number, runner in enumerate(runners)]
        self._queue: deque[Job] = deque()
        self._waiting = 0
        """Jobs of the queue that somebody still waits for."""
        self.refused = 0
        """Images that found the queue full."""
        self.dropped = 0
        """Images whose caller left, or whose time was over, before a device had them."""
        self.on_works: Callable[[bool], None] = lambda works: None
        """Called when there is no device that works any more, and when there is one again."""
        self._worked = True
        self._mean_seconds = 0.01

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._waiting

    async def start(self, program: Program) -> None:
        """Open every device with ``program``. Raises DeviceError when one fails: better now than under load."""
        await asyncio.gather(*(lane.start(program) for lane in self.lanes))

    @property
    def npus(self) -> int:
        """Of all devices."""
        return sum(lane.runner.npus for lane in self.lanes)

    @property
    def works(self) -> bool:
        """Whether there is a device that works, or soon may."""
        for lane in self.lanes:  # noqa: SIM110  asked for every request: any() takes twice as long
            if lane.failures < OUTAGE:
                return True
        return False

    async def run(self, program: Program, images: Sequence[WriteImage], deadline: float = math.inf) -> list[Result]:
        """The results of ``images``, in order; each is written when a device has room for it.

        ``deadline``: by the event loop's clock. Raises what ``images`` raise, RequestError (RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED,
        UNAVAILABLE), or the DeviceError of devices that failed again and again. When the caller is cancelled, what has not begun never
        will.
        """
        self._admit(len(images))
        loop = asyncio.get_running_loop()
        jobs = [Job(program, image, deadline, loop.create_future()) for image in images]
        timer = None if math.isinf(deadline) else loop.call_at(deadline, _expire, jobs)
        try:
            for job in jobs:
                self._enqueue(job)
            self.pump()
            if len(jobs) == 1:
                return [await jobs[0].answer]
            return await asyncio.gather(*(job.answer for job in jobs))
        finally:
            if timer is not None:
                timer.cancel()
            for job in jobs:
                self._leave(job)

    async def close(self) -> None:
        """Shut every device; what still waits fails."""
        for job in self._queue:
            job.fail(RequestError("the service is stopping: ask another one", grpc.StatusCode.UNAVAILABLE))
        self._queue.clear()
        await asyncio.gather(*(lane.close() for lane in self.lanes))

    # The queue -------------------------------------------------------------------------------------------------------

    def _admit(self, count: int) -> None:
        if not self.works:
            text = f"no device works: {self.lanes[0].error}; the service goes on trying to bring them back"
            raise RequestError(text, grpc.StatusCode.UNAVAILABLE, retry_ms=1000)
        if self._waiting + count > self.limit:
            self.refused += count
            ready = max(1, sum(lane.runner.npus for lane in self.lanes if lane.state == "ready"))
            retry_ms = max(1, round(1e3 * self._waiting * self._mean_seconds / ready))
            text = f"{self._waiting} images wait and the queue holds {self.limit}: send these {count} again in {retry_ms} ms"
            raise RequestError(text, grpc.StatusCode.RESOURCE_EXHAUSTED, retry_ms)

    def _enqueue(self, job: Job, *, first: bool = False) -> None:
        job.queued = True
        self._waiting += 1
        (self._queue.appendleft if first else self._queue.append)(job)

    def _leave(self, job: Job) -> None:
        """Nobody waits for ``job`` any longer: answered, or its caller has left."""
        if not job.answer.done():
            job.answer.cancel()
        elif not job.answer.cancelled():
            job.answer.exception()  # taken notice of
        if job.queued:
            job.queued = False
            self._waiting -= 1
            self.dropped += 1
        if job.lane is not None:
            job.lane.leave(job)

    def pump(self) -> None:
        """Hand jobs to devices with room, oldest first."""
        if self.works != self._worked:
            self._tell()
        while self._queue:
            job = self._queue[0]
            if not job.queued:  # its caller has left
                self._queue.popleft()
                continue
            if job.answer.done():
                self._unqueue()
                self.dropped += 1
                continue
            lane = self._lane_for(job)
            if lane is None:
                return
            if job.deadline < math.inf and job.deadline <= asyncio.get_running_loop().time():
                job.fail(_too_late())
                continue
            self._unqueue()
            lane.give(job)

    def _tell(self) -> None:
        self._worked = self.works
        self.on_works(self._worked)

    def _unqueue(self) -> None:
        self._queue.popleft().queued = False
        self._waiting -= 1

    def _lane_for(self, job: Job) -> Lane | None:
        """The least busy lane that takes ``job``. A lane changes its program when it is empty; until then older jobs go first."""
        found, least = None, math.inf
        for lane in self.lanes:
            if lane.takes(job.program):
                load = len(lane.running) / lane.runner.npus
                if load < least:
                    found, least = lane, load
        if found is not None:
            return found
        idle = next((lane for lane in self.lanes if lane.state == "ready" and not lane.running), None)
        if idle is not None and idle.program is not job.program:
            idle.switch(job.program)
        return None

    # What lanes report -----------------------------------------------------------------------------------------------

    def computed(self, job: Job, result: Result) -> None:
        """A device has finished ``job``."""
        self._mean_seconds += 0.05 * (result.seconds - self._mean_seconds)
        if not job.answer.done():
            job.answer.set_result(result)

    def lost(self, jobs: Sequence[Job], culprit: Job | None, error: DeviceError) -> None:
        """A device failed, on ``culprit`` if that is known, with ``jobs`` handed to it: they run elsewhere."""
        if culprit is not None:
            culprit.attempts += 1
        for job in reversed(jobs):
            if job.answer.done():
                continue
            if job.attempts >= ATTEMPTS:
                job.fail(error)
            else:
                self._enqueue(job, first=True)

    def out_of_order(self, error: DeviceError) -> None:
        """A device could not be brought back; when none can, nobody shall wait in vain."""
        if self.works != self._worked:
            self._tell()
        if not self.works:
            for job in list(self._queue):
                if job.queued:
                    job.fail(RequestError(f"no device works: {error}", grpc.StatusCode.UNAVAILABLE, retry_ms=1000))


def _too_late() -> RequestError:
    return RequestError(
        "the request's time was over before a device could answer it", grpc.StatusCode.DEADLINE_EXCEEDED
    )


def _expire(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.fail(_too_late())
