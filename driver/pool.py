"""Several NPUs as one: the runtime's own methods, over any number of devices, of which any but the last may fail.

Every device keeps its runtime (``driver.runtime.Npu``) with its thread. Images wait in one queue, and each NPU takes the next one when it
has room, so a faster one takes more. An NPU that fails is taken out of service, its images go to others, and it comes back once it has
been recovered. Each image is answered once: with its result, or with the error of its last attempt.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from driver.device import Device, DeviceError, DeviceResetError, DeviceTimeoutError
from driver.pipeline import SLOTS, Result
from driver.runtime import TIMEOUT, WATCHDOG_CYCLES, Npu, in_order
from hw.program import Program, ProgramError

log = logging.getLogger(__name__)
AHEAD = SLOTS + 1
"""Images that an NPU has at a time: those that the device takes, and one that is packed and ready."""
ATTEMPTS = 3
"""Times an image is tried before its caller gets the error, each on another NPU than the last where there is one."""
LOST_AFTER = 3
"""Failures in a row, of runs or of recoveries, after which nothing waits for an NPU any more; it is tried on."""
PAUSE_SECONDS = (0.5, 60.0)
"""Between a second failure in a row and its recovery; doubled with each further one, up to the latter."""


class State(Enum):
    """Of an NPU in a pool."""

    IN_SERVICE = "in service"
    RECOVERING = "recovering"
    LOST = "lost"
    """Failed LOST_AFTER times in a row: images are not kept waiting for it. It is still tried again, ever more seldom."""


@dataclass(eq=False)
class Member:
    """One NPU of a pool, and how it fares. The pool alone changes it."""

    name: str
    """The device's kind and its place in the pool."""
    npu: Npu
    state: State = State.IN_SERVICE
    images: int = 0
    """Answered."""
    failures: int = 0
    """Images that failed here, and recoveries that did."""
    failures_in_a_row: int = 0
    error: Exception | None = None
    """The last one."""
    at_work: dict[Future[Result], _Image] = field(default_factory=dict)
    """Its images, by the futures of its runtime."""


@dataclass(eq=False)
class _Image:
    """An image on its way through the pool."""

    program: Program
    words: NDArray[np.uint8]
    future: Future[Result] = field(default_factory=Future)
    attempts: int = 0
    failed_on: Member | None = None


class Pool:
    """Runs one program on all of ``devices``, which it owns and closes. The options are those of ``driver.runtime.Npu``.

    May be shared by threads and awaited from asyncio, as an Npu. Raises ValueError when there is no device.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        *,
        timeout: float = TIMEOUT,
        watchdog: int = WATCHDOG_CYCLES,
        layer_counters: bool = True,
    ) -> None:
        if not devices:
            raise ValueError("a pool needs a device")
        self.members = tuple(
            Member(
                f"{device.kind} {number}",
                Npu(device, timeout=timeout, watchdog=watchdog, layer_counters=layer_counters),
            )
            for number, device in enumerate(devices)
        )
        self._program: Program | None = None
        self._queue: deque[_Image] = deque()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._recoveries: set[threading.Thread] = set()

    def load(self, program: Program | str | Path) -> Program:
        """Put a program (or a program file) into the memory of every NPU; returns it. Images given before still run with the one before.

        An NPU that cannot take it is taken out of service. Raises ProgramError or OSError for a bad file, DeviceError when no NPU can
        take it: the program loaded before then stays.
        """
        if not isinstance(program, Program):
            program = Program.load(program)
        self._hand_out(everything=True)
        with ThreadPoolExecutor(len(self.members)) as threads:
            errors = list(threads.map(partial(_load, program=program), self.members))
        if all(errors):
            raise next(error for error in errors if error)
        with self._lock:
            self._program = program
            for member, error in zip(self.members, errors, strict=True):
                if error:
                    self._take_out(member, error)
        return program

    @property
    def program(self) -> Program:
        """The program that is loaded. Raises DeviceError when there is none."""
        if self._program is None:
            raise DeviceError("no program is loaded: call load() first")
        return self._program

    def run(self, image: NDArray[np.uint8]) -> Result:
        """Compute one image, uint8 [height, width, channels], on whichever NPU has room first. Raises what Npu.run() raises."""
        return self.run_async(image).result()

    def run_async(self, image: NDArray[np.uint8]) -> Future[Result]:
        """Like run(), without waiting. A bad image raises ValueError here; errors of the NPUs come from the future."""
        program = self.program
        waiting = _Image(program, program.pack_image(image))
        with self._lock:
            if self._closed.is_set():
                raise DeviceError("the pool is closed")
            self._queue.append(waiting)
        self._hand_out()
        return waiting.future

    def run_many(self, images: Iterable[NDArray[np.uint8]]) -> Iterator[Result]:
        """The results of ``images``, in order, computed on all NPUs; takes as many ahead as keep them busy. Raises as Npu.run_many()."""
        return in_order(self.run_async, images, ahead=AHEAD * len(self.members))

    def close(self) -> None:
        """Finish the images that are running, cancel those that wait, and close every device. May be called again.

        Raises the first DeviceError of a device that cannot be closed, after all others were.
        """
        self._closed.set()
        with self._lock:
            waiting, self._queue = list(self._queue), deque()
            recoveries = list(self._recoveries)
        for image in waiting:
            image.future.cancel()
        for thread in recoveries:
            thread.join()
        errors = []
        for member in self.members:
            try:
                member.npu.close()
            except DeviceError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Images ----------------------------------------------------------------------------------------------------------

    def _hand_out(self, everything: bool = False) -> None:
        """Give images that wait to NPUs with room; with ``everything`` to those without, too, so that none is left.

        When all NPUs are lost, those that wait get the last error.
        """
        handed: list[tuple[Future[Result], Member]] = []
        failed: list[tuple[_Image, Exception]] = []
        with self._lock:
            while (found := self._next(everything)) is not None:
                image, member = found
                self._queue.remove(image)
                try:
                    inner = member.npu.run_packed(image.program, image.words)
                except DeviceError as error:  # another program by now
                    failed.append((image, error))
                    continue
                member.at_work[inner] = image
                image.future.add_done_callback(partial(_cancel_too, inner))
                handed.append((inner, member))
            if all(member.state is State.LOST for member in self.members):
                failed += [(image, self._all_lost()) for image in self._queue]
                self._queue.clear()
        for image, reason in failed:
            _answer(image.future, reason)
        for inner, member in handed:  # without the lock: one that is done already calls back at once
            inner.add_done_callback(partial(self._done, member))

    def _next(self, everything: bool) -> tuple[_Image, Member] | None:
        """The image that is handed out next, and to whom."""
        working = [member for member in self.members if member.state is State.IN_SERVICE]
        free = sorted(
            (m for m in working if everything or len(m.at_work) < AHEAD), key=lambda member: len(member.at_work)
        )
        for image in self._queue:
            for member in free:
                if member is not image.failed_on or len(self.members) == 1 or working == [member]:
                    return image, member
        return None

    def _done(self, member: Member, inner: Future[Result]) -> None:
        """``member``'s runtime has finished with an image, or gave it up."""
        error = None if inner.cancelled() else inner.exception()
        with self._lock:
            image = member.at_work.pop(inner)
            answered = not inner.cancelled()
            if inner.cancelled() or image.program is not self._program:
                if not self._closed.is_set() and not image.future.cancelled() and not answered:
                    self._queue.appendleft(image)
            elif isinstance(error, DeviceError):
                image.attempts, image.failed_on = image.attempts + 1, member
                self._take_out(member, error)
                if image.attempts < ATTEMPTS and not self._closed.is_set():
                    answered = False
                    self._queue.appendleft(image)
            elif error is None:
                member.images += 1
                member.failures_in_a_row = 0
        if answered:
            _answer(image.future, error or inner.result())
        elif self._closed.is_set():
            image.future.cancel()
        self._hand_out()

    # Failures --------------------------------------------------------------------------------------------------------

    def _take_out(self, member: Member, error: Exception) -> None:
        """Take ``member`` out of service, and begin to recover it. The caller holds the lock."""
        if member.state is not State.IN_SERVICE:
            return
        self._count_failure(member, error)
        if not self._closed.is_set():
            thread = threading.Thread(target=self._recover, args=(member,), name=f"recover {member.name}")
            self._recoveries.add(thread)
            thread.start()

    def _count_failure(self, member: Member, error: Exception) -> None:
        member.error = error
        member.failures += 1
        member.failures_in_a_row += 1
        member.state = State.LOST if member.failures_in_a_row >= LOST_AFTER else State.RECOVERING
        log.warning("%s failed and is %s: %s", member.name, member.state.value, error)

    def _recover(self, member: Member) -> None:
        """In a thread of its own: send the images of ``member`` elsewhere, and try until it is in service again."""
        with self._lock:
            waiting = list(member.at_work)
        for inner in waiting:
            inner.cancel()
        while not self._closed.wait(_pause(member.failures_in_a_row)):
            program = self._program
            try:
                if program is not None:
                    gone = isinstance(member.error, (DeviceTimeoutError, DeviceResetError))
                    member.npu.recover(program, reset=gone or member.failures_in_a_row > 1)
            except Exception as error:  # whatever it is: this NPU is not usable, and the others go on
                with self._lock:
                    self._count_failure(member, error)
                self._hand_out()
                continue
            with self._lock:
                if program is self._program:  # else another was loaded meanwhile
                    member.state = State.IN_SERVICE
                    break
        with self._lock:
            self._recoveries.discard(threading.current_thread())
        self._hand_out()

    def _all_lost(self) -> DeviceError:
        reasons = "; ".join(f"{member.name}: {member.error}" for member in self.members)
        return DeviceError(f"no NPU of the pool is in service any more ({reasons})")


def _load(member: Member, program: Program) -> Exception | None:
    """What kept ``member`` from loading ``program``, if anything did."""
    try:
        member.npu.load(program)
    except (DeviceError, ProgramError) as error:
        return error
    return None


def _pause(failures_in_a_row: int) -> float:
    first, longest = PAUSE_SECONDS
    return 0.0 if failures_in_a_row < 2 else min(first * 2.0 ** (failures_in_a_row - 2), longest)


def _answer(future: Future[Result], outcome: Result | BaseException) -> None:
    """Give ``future`` its outcome, unless it was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _cancel_too(inner: Future[Result], outer: Future[Result]) -> None:
    if outer.cancelled():
        inner.cancel()
