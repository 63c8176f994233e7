"""A device's process: answers the messages of ``host_service.device_process`` with the driver.

One NPU is driven in the process's only thread: a message wakes it, the image is laid out from the shared memory straight into the NPU's
buffer, and the result goes back, without a thread to hand anything to. While it waits for the NPU, it starts the next image that has come.
Several NPUs of one overlay are a pool (``driver.pool``), each with a thread.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from driver.device import Device, DeviceError, DeviceTimeoutError, Sensing, open_devices
from driver.pipeline import Job, Pipeline, Result
from driver.pool import Pool
from driver.runtime import WATCHDOG_CYCLES
from host_service.allocator import keep_large_blocks, settle
from host_service.slots import Slots
from hw.isa import ArrayConfig
from hw.program import Program

MESSAGE = 1 << 20
"""Most bytes of a message."""
SENSORS = -1
"""In place of a call's number: the message is what the device's sensors say."""
SENSORS_SECONDS = 5.0
"""How often they are read."""
SWITCH_SECONDS = 0.0005
"""How long one thread of a pool may keep the others waiting."""

Finish = Callable[[int, Result | BaseException | None], None]
"""Takes an image's number and what became of it: its result, an error, or None when it was cancelled."""


class Engine(Protocol):
    """What computes the images."""

    def load(self, program: Program, slots: Slots) -> None:
        """Take ``program``, whose images stand in ``slots``. Raises DeviceError."""

    def run(self, number: int, slot: int) -> None:
        """Begin with the image in ``slot``, or put it behind those that are on."""

    def cancel(self, number: int) -> None:
        """Nobody waits for that image: if it is not on, it need not be."""

    def work(self) -> None:
        """Compute what run() left to do in this thread."""


class Child:
    """Serves the messages of ``connection``."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._engine: Engine | None = None
        self._slots: Slots | None = None
        self._slot_of: dict[int, int] = {}

    def serve(self) -> None:
        """Until the parent closes the connection or is gone."""
        with suppress(EOFError):
            while True:
                self._take(self._connection.recv(MESSAGE))
                if self._engine is not None:
                    self._engine.work()

    def look(self) -> None:
        """Take the messages that have come. Raises EOFError when the parent is gone."""
        with suppress(BlockingIOError):
            while True:
                self._take(self._connection.recv(MESSAGE, socket.MSG_DONTWAIT))

    def _take(self, data: bytes) -> None:
        if not data:
            raise EOFError
        number, method, *arguments = pickle.loads(data)
        try:
            getattr(self, method)(number, *arguments)
        except Exception as error:
            self._slot_of.pop(number, None)
            self._answer(number, error)

    # Messages --------------------------------------------------------------------------------------------------------

    def open(self, number: int, name: str, config: ArrayConfig, timeout: float) -> None:
        """Open what ``name`` is; the answer is how many NPUs that are."""
        devices = open_devices(name, config)
        self._engine = (
            Alone(devices[0], timeout, self._finish, self.look)
            if len(devices) == 1
            else Together(devices, timeout, self._finish)
        )
        settle()
        self._answer(number, value=len(devices))
        sensing = next((device for device in devices if isinstance(device, Sensing)), None)
        if sensing is not None:  # NPUs of one overlay share the board's sensors
            threading.Thread(target=self._watch_sensors, args=(sensing,), name="sensors", daemon=True).start()

    def load(self, number: int, program: str, slots: str, count: int) -> None:
        """Load the program in the file ``program``; the file ``slots`` is the memory of ``count`` slots."""
        assert self._engine is not None
        loaded = Program.load(program)
        with open(slots, "r+b") as file:
            self._slots = Slots(file.fileno(), loaded, count)
        self._engine.load(loaded, self._slots)
        self._answer(number)

    def run(self, _: int, images: Sequence[tuple[int, int]]) -> None:
        """Compute ``images``, each a number and its slot; the answer to each is the seconds that it took and its counters.

        The result stands in the slot.
        """
        assert self._engine is not None
        for number, slot in images:
            self._slot_of[number] = slot
            try:
                self._engine.run(number, slot)
            except DeviceError as error:
                del self._slot_of[number]
                self._answer(number, error)

    def cancel(self, number: int) -> None:
        """See Engine; there is an answer to what is cancelled, none to this."""
        if self._engine is not None and number in self._slot_of:
            self._engine.cancel(number)

    # Answers ---------------------------------------------------------------------------------------------------------

    def _finish(self, number: int, outcome: Result | BaseException | None) -> None:
        slot = self._slot_of.pop(number)
        if isinstance(outcome, Result):
            assert self._slots is not None
            self._slots.results[slot] = outcome.result
            self._answer(number, value=(outcome.seconds, tuple(vars(outcome.counters).values())))
        elif outcome is None:
            self._send(number, "cancelled", "")
        else:
            self._answer(number, outcome)

    def _answer(self, number: int, error: BaseException | None = None, value: object = None) -> None:
        """An error goes as its kind and text: exceptions with constructors of their own do not survive a pickle."""
        if error is None:
            self._send(number, None, value)
        elif isinstance(error, DeviceTimeoutError):
            self._send(number, "timeout", str(error))
        elif isinstance(error, DeviceError):
            self._send(number, "device", str(error))
        else:
            self._send(number, "other", f"{type(error).__name__}: {error}")

    def _send(self, number: int, failure: str | None, value: object) -> None:
        self._connection.send(pickle.dumps((number, failure, value), pickle.HIGHEST_PROTOCOL))

    def _watch_sensors(self, device: Sensing) -> None:
        """Report power and temperature until the parent is gone."""
        with suppress(OSError):
            while True:
                self._send(SENSORS, None, device.sensors())
                time.sleep(SENSORS_SECONDS)


@dataclass(eq=False)
class _Image(Job):
    """An image of Alone."""

    number: int = 0
    unwanted: bool = False

    def cancelled(self) -> bool:
        """See Job."""
        return self.unwanted


class Alone:
    """The Engine of one NPU, in the caller's thread; ``look`` takes the messages that have come, while an image is on."""

    def __init__(self, device: Device, timeout: float, finish: Finish, look: Callable[[], None]) -> None:
        self._device = device
        self._timeout = timeout
        self._finish = finish
        self._look = look
        self._pipeline: Pipeline | None = None
        self._images: deque[_Image] = deque()
        """Behind the one that work() has."""

    def load(self, program: Program, slots: Slots) -> None:
        """See Engine."""
        pipeline = Pipeline(
            self._device, program, self._next, timeout=self._timeout, watchdog=WATCHDOG_CYCLES, layer_counters=False
        )
        if self._pipeline is not None:
            self._pipeline.drain()
            self._pipeline.free()
        self._pipeline, self._slots, self._packer = pipeline, slots, program.packer()

    def run(self, number: int, slot: int) -> None:
        """See Engine."""
        if self._pipeline is None:
            raise DeviceError("no program is loaded")
        lay_out = partial(self._packer.pack, self._slots.images[slot])
        self._images.append(_Image(self._pipeline, lay_out, number=number))

    def cancel(self, number: int) -> None:
        """See Engine."""
        image = next((image for image in self._images if image.number == number), None)
        if image is not None:
            image.unwanted = True
            self._images.remove(image)
            self._finish(number, None)

    def work(self) -> None:
        """See Engine."""
        while self._images:
            image = self._images.popleft()
            try:
                outcome: Result | Exception = image.pipeline.run(image)
            except EOFError:
                raise
            except Exception as error:
                outcome = error
            self._finish(image.number, outcome)
            self._look()

    def _next(self) -> Job | None:
        """The image behind the one that is on."""
        if not self._images:
            self._look()
        return self._images[0] if self._images else None


class Together:
    """The Engine of several NPUs."""

    def __init__(self, devices: Iterable[Device], timeout: float, finish: Finish) -> None:
        self._pool = Pool(list(devices), timeout=timeout, layer_counters=False)
        self._finish = finish
        self._running: dict[int, Future[Result]] = {}

    def load(self, program: Program, slots: Slots) -> None:
        """See Engine."""
        self._pool.load(program)
        self._slots = slots

    def run(self, number: int, slot: int) -> None:
        """See Engine."""
        future = self._running[number] = self._pool.run_async(self._slots.images[slot])
        future.add_done_callback(partial(self._done, number))

    def cancel(self, number: int) -> None:
        """See Engine."""
        future = self._running.get(number)
        if future is not None:
            future.cancel()

    def work(self) -> None:
        """The pool's threads do it."""

    def _done(self, number: int, future: Future[Result]) -> None:
        del self._running[number]
        self._finish(number, None if future.cancelled() else future.exception() or future.result())


def main() -> None:
    """The process's whole life; signals to the service's group are the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    keep_large_blocks()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        Child(socket.socket(fileno=int(sys.argv[1]))).serve()
    finally:
        os._exit(0)  # the parent is gone; a device that hangs must not keep the process


if __name__ == "__main__":
    main()
