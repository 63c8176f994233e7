"""One runtime for every device: load a program, run images, read results, counters and errors.

One worker thread owns the device, so an ``Npu`` may be shared by threads and awaited from asyncio
(``await asyncio.wrap_future(npu.run_async(image))``). Images are checked and packed in the caller's thread, and queued ones run back to
back (``driver.pipeline``).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from driver.device import Device, DeviceError, Resettable
from driver.pipeline import SLOTS, Job, Pipeline, Result
from driver.registers import Counters, LayerCounters, NpuError, RunRegisters
from hw.program import Program

__all__ = ["TIMEOUT", "WATCHDOG_CYCLES", "Counters", "LayerCounters", "Npu", "NpuError", "Result", "in_order"]

WATCHDOG_CYCLES = 1 << 20
"""Default cycles without progress before the NPU gives up: 3.5 ms at 300 MHz, thousands of memory latencies."""
TIMEOUT = 600.0
"""Default seconds for one image: a whole ResNet-50 in simulated RTL takes a minute."""
OTHER_PROGRAM = "another program was loaded before this image could run: run it again"


@dataclass(eq=False)
class _Image(Job):
    """A job of an Npu."""

    future: Future[Result] = field(default_factory=Future)
    """Whose image it is; once cancelled, nobody waits for the result."""

    def cancelled(self) -> bool:
        """See Job."""
        return self.future.cancelled()


class Npu:
    """Runs one program at a time on ``device``, which it owns and closes.

    ``timeout``: seconds for one image. ``watchdog``: see WATCHDOG_CYCLES; 0 switches it off. ``layer_counters``: read every layer's
    counters too (four register reads a layer).
    """

    def __init__(
        self, device: Device, *, timeout: float = TIMEOUT, watchdog: int = WATCHDOG_CYCLES, layer_counters: bool = True
    ) -> None:
        self.device = device
        self._timeout = timeout
        self._watchdog = watchdog
        self._layer_counters = layer_counters
        self._pipeline: Pipeline | None = None
        self._closed = False
        self._queue: deque[_Image] = deque()
        """Jobs that the worker has not come to, in its order; cancelled ones stay until it does."""
        self._queue_lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="npu")

    def load(self, program: Program | str | Path) -> Program:
        """Put a program (or a program file) into the device's memory, in place of the one before; returns it.

        Raises ProgramError or OSError for a bad file, DeviceError when it was compiled for another array or memory is short; the
        program loaded before then stays.
        """
        if not isinstance(program, Program):
            program = Program.load(program)
        self._worker.submit(self._load, program).result()
        return program

    @property
    def program(self) -> Program:
        """The program that is loaded. Raises DeviceError when there is none."""
        return self._current().program

    def run(self, image: NDArray[np.uint8]) -> Result:
        """Compute one image, uint8 [height, width, channels].

        Raises ValueError for another shape or type, NpuError when the NPU reports an error, DeviceTimeoutError when it does not
        finish. After any of them the next run works.
        """
        return self.run_async(image).result()

    def run_async(self, image: NDArray[np.uint8]) -> Future[Result]:
        """Like run(), without waiting: the future has the result. Images run in the order of the calls, back to back.

        A bad image raises ValueError here; the device's errors come from the future of the image that they belong to.
        """
        program = self.program
        return self.run_packed(program, program.pack_image(image))

    def run_packed(self, program: Program, words: NDArray[np.uint8]) -> Future[Result]:
        """Like run_async(), of an image that ``program.pack_image`` has packed. Raises DeviceError when another program is loaded."""
        pipeline = self._current()
        if pipeline.program is not program:
            raise DeviceError(OTHER_PROGRAM)
        job = _Image(pipeline, partial(_copy, words))
        with self._queue_lock:  # the worker comes to the job only when it stands in the queue
            job.future = self._worker.submit(self._run, job)
            self._queue.append(job)
        return job.future

    def run_many(self, images: Iterable[NDArray[np.uint8]]) -> Iterator[Result]:
        """The results of ``images``, in order, computed back to back; takes a few images ahead of the result that is asked for.

        Raises what run() raises, in the place of the image's result; the images after it are then not run.
        """
        return in_order(self.run_async, images)

    def recover(self, program: Program, *, reset: bool = False) -> None:
        """Load ``program`` after an error, once the device has become idle; with ``reset``, reset the device before that.

        Raises DeviceError when a reset was asked for and the device is busy and cannot be reset, or what load() raises.
        """
        self._worker.submit(self._recover, program, reset).result()

    def close(self) -> None:
        """Finish the image that is running, cancel those that wait, free the buffers and close the device. May be called again."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        if self._closed:
            return
        self._closed = True
        if self._pipeline is not None:
            with suppress(DeviceError):
                self._pipeline.drain()
            self._pipeline.free()
            self._pipeline = None
        self.device.close()

    def __enter__(self) -> Npu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _current(self) -> Pipeline:
        if self._pipeline is None:
            raise DeviceError("no program is loaded: call load() first")
        return self._pipeline

    # In the worker's thread ------------------------------------------------------------------------------------------

    def _load(self, program: Program) -> None:
        pipeline = Pipeline(
            self.device,
            program,
            self._next_job,
            timeout=self._timeout,
            watchdog=self._watchdog,
            layer_counters=self._layer_counters,
        )
        if self._pipeline is not None:
            self._pipeline.free()
        self._pipeline = pipeline

    def _recover(self, program: Program, reset: bool) -> None:
        if reset and isinstance(self.device, Resettable):
            self.device.reset()
        elif reset and not RunRegisters(self.device).idle():
            raise DeviceError(f"the {self.device.kind} device is still busy, and cannot be reset")
        self._load(program)

    def _run(self, job: _Image) -> Result:
        with self._queue_lock:
            while self._queue.popleft() is not job:
                pass  # those before were cancelled
        if job.pipeline is not self._pipeline:
            raise DeviceError(OTHER_PROGRAM)
        return job.pipeline.run(job)

    def _next_job(self) -> Job | None:
        with self._queue_lock:
            return next((job for job in self._queue if not job.cancelled()), None)


def _copy(words: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    np.copyto(out, words.reshape(-1))


def in_order(
    run_async: Callable[[NDArray[np.uint8]], Future[Result]], images: Iterable[NDArray[np.uint8]], ahead: int = SLOTS
) -> Iterator[Result]:
    """The results of ``images`` in their order, with ``ahead`` of them handed to ``run_async`` before the one that is waited for."""
    futures: deque[Future[Result]] = deque()
    try:
        for image in images:
            futures.append(run_async(image))
            if len(futures) > ahead:  # with SLOTS, one more than the device takes is packed and ready
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()
