"""A device in a process of its own: one that crashes or hangs takes nobody with it, and is killed and started again.

Parent and child talk over a socket pair in whole messages (SOCK_SEQPACKET, pickled tuples): (number, method, arguments) one way,
(number, failure or None, value) back. Images travel in shared memory without a name, so that nothing is left behind by a process that
was killed; the child opens the parent's file descriptors through /proc.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driver.device import DeviceError, DeviceTimeoutError, Readings, Sensing, open_device
from driver.runtime import Npu, Result
from host_service.allocator import keep_large_blocks
from hw.isa import ArrayConfig
from hw.program import Program

SLOTS = 8
"""Images that the shared memory holds."""
MESSAGE = 1 << 20
"""Most bytes of a message: a result and its pickle are some ten thousand."""
OPEN_SECONDS = 1800.0
"""For opening the device, which may have to be built, and for loading a program."""
SENSORS = -1
"""In place of a call's number: the message is what the device's sensors say."""
SENSORS_SECONDS = 5.0
"""How often they are read."""
SWITCH_SECONDS = 0.0005
"""How long the child's thread that lays out images may keep the one waiting that serves the device."""


class DeviceProcess:
    """The parent's end: a ``host_service.runners.Runner`` of the device ``name`` (driver.device.open_device) for ``config``.

    ``timeout``: seconds for one image.
    """

    def __init__(self, name: str, config: ArrayConfig, timeout: float) -> None:
        self.kind = name
        self.on_lost: Callable[[DeviceError], None] = lambda error: None
        self.readings = Readings()
        self._config = config
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._image_shape: tuple[int, ...] = ()
        self._memory = -1
        """File descriptor of the shared memory."""
        self._slots: NDArray[np.uint8] | None = None
        self._free: list[int] = []
        self._slot_of: dict[int, int] = {}

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return self._process.pid if self._process else None

    async def open(self) -> None:
        """Start a new process and open the device in it. Raises DeviceError."""
        await self.shut()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.setblocking(False)
        with theirs:
            command = [sys.executable, "-m", "host_service.device_process", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._socket = mine
        asyncio.get_running_loop().add_reader(mine.fileno(), self._receive)
        await asyncio.wait_for(self._call("open", self.kind, self._config, self._timeout), OPEN_SECONDS)

    async def load(self, program: Program) -> None:
        """Give the child the program and memory for its images."""
        image = program.image
        self._image_shape = (image.height, image.width, image.channels)
        self._release_memory()
        self._memory = os.memfd_create("quarkwave-images")
        os.ftruncate(self._memory, SLOTS * int(np.prod(self._image_shape)))
        memory = mmap.mmap(self._memory, 0)
        self._slots = np.frombuffer(memory, np.uint8).reshape(SLOTS, *self._image_shape)
        self._free, self._slot_of = list(range(SLOTS)), {}
        file = os.memfd_create("quarkwave-program")
        try:
            with open(file, "wb", closefd=False) as stream:
                stream.write(await asyncio.to_thread(program.to_bytes))
            paths = [f"/proc/{os.getpid()}/fd/{fd}" for fd in (file, self._memory)]
            await asyncio.wait_for(self._call("load", *paths), OPEN_SECONDS)
        finally:
            os.close(file)

    def run(self, image: NDArray[np.uint8]) -> asyncio.Future[Result]:
        """Copy the image into shared memory and have it computed. At most SLOTS at a time."""
        if image.dtype != np.uint8 or image.shape != self._image_shape:
            raise ValueError(f"the image is {image.dtype} {image.shape}, the program expects uint8 {self._image_shape}")
        if self._slots is None or not self._free:
            raise DeviceError("no program is loaded, or too many images are on their way")
        self._slots[slot := self._free.pop()] = image
        self._slot_of[self._number] = slot
        return self._call("run", slot)

    def drop(self, future: asyncio.Future[Result]) -> None:
        """See Runner: the child says what became of it."""
        number = next((number for number, waiting in self._waiting.items() if waiting is future), None)
        if number is not None:
            self._send(number, "cancel")

    async def shut(self) -> None:
        """Kill the child, if there is one."""
        self._disconnect(DeviceError("the device's process was ended"))
        self._release_memory()
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            await asyncio.to_thread(process.wait)

    def _release_memory(self) -> None:
        self._slots = None
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _call(self, *message: Any) -> asyncio.Future[Any]:
        number = self._number
        self._number += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._send(number, *message)
        return future

    def _send(self, number: int, *message: Any) -> None:
        if self._socket is None:
            self._fail("the device's process is not there")
            return
        try:
            self._socket.send(pickle.dumps((number, *message)))
        except ConnectionError:
            self._fail(self._death())
        except OSError as error:
            self._fail(f"the device's process does not take requests ({error})")

    def _death(self) -> str:
        status = self._process.poll() if self._process else None
        return "the device's process died" + ("" if status is None else f" (exit status {status})")

    def _receive(self) -> None:
        """Take every answer that has come."""
        while self._socket is not None:
            try:
                data = self._socket.recv(MESSAGE)
            except BlockingIOError:
                return
            except ConnectionError:  # it was killed with messages that it had not read
                data = b""
            if not data:
                self._fail(self._death())
                return
            number, failure, value = pickle.loads(data)
            if number == SENSORS:
                self.readings = value
                continue
            if number in self._slot_of:
                self._free.append(self._slot_of.pop(number))
            future = self._waiting.pop(number)
            if future.done():
                continue
            if failure == "cancelled":
                future.cancel()
            elif failure is None:
                future.set_result(value)
            else:
                future.set_exception((DeviceTimeoutError if failure == "timeout" else DeviceError)(value))

    def _fail(self, text: str) -> None:
        """The child is lost."""
        error = DeviceError(text)
        self._disconnect(error)
        self.on_lost(error)

    def _disconnect(self, error: DeviceError) -> None:
        """The connection is over: so is everything that waits for an answer."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self.readings = Readings()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)


# The child -----------------------------------------------------------------------------------------------------------


class _Child:
    """Answers the parent's messages with a ``driver.runtime.Npu``."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._npu: Npu | None = None
        self._slots: NDArray[np.uint8] | None = None
        self._running: dict[int, Future[Result]] = {}

    def serve(self) -> None:
        """Until the parent closes the connection or is gone."""
        while data := self._connection.recv(MESSAGE):
            number, method, *arguments = pickle.loads(data)
            if method == "cancel":
                future = self._running.get(number)
                if future is not None:
                    future.cancel()
                continue
            try:
                getattr(self, method)(number, *arguments)
            except Exception as error:
                self._answer(number, error)

    def open(self, number: int, name: str, config: ArrayConfig, timeout: float) -> None:
        device = open_device(name, config)
        self._npu = Npu(device, timeout=timeout, layer_counters=False)
        self._answer(number)
        if isinstance(device, Sensing):
            threading.Thread(target=self._watch_sensors, args=(device,), name="sensors", daemon=True).start()

    def _watch_sensors(self, device: Sensing) -> None:
        """Report power and temperature until the parent is gone."""
        with suppress(OSError):
            while True:
                self._send(SENSORS, None, device.sensors())
                time.sleep(SENSORS_SECONDS)

    def load(self, number: int, program: str, images: str) -> None:
        assert self._npu is not None
        loaded = self._npu.load(Program.load(program)).image
        with open(images, "r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        self._slots = np.frombuffer(memory, np.uint8).reshape(-1, loaded.height, loaded.width, loaded.channels)
        self._answer(number)

    def run(self, number: int, slot: int) -> None:
        assert self._npu is not None and self._slots is not None
        future = self._npu.run_async(self._slots[slot])
        self._running[number] = future
        future.add_done_callback(lambda done: self._finish(number, done))

    def _finish(self, number: int, done: Future[Result]) -> None:
        self._running.pop(number, None)
        if done.cancelled():
            self._send(number, "cancelled", "")
        elif error := done.exception():
            self._answer(number, error)
        else:
            self._answer(number, value=done.result())

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


def main() -> None:
    """The child's whole life; signals to the service's group are the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keep_large_blocks()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        _Child(socket.socket(fileno=int(sys.argv[1]))).serve()
    finally:
        os._exit(0)  # the parent is gone; a device that hangs must not keep the process


if __name__ == "__main__":
    main()
