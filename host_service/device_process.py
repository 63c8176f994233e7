"""A device in a process of its own: one that crashes or hangs takes nobody with it, and is killed and started again.

Parent and child (``host_service.device_child``) talk over a socket pair in whole messages (SOCK_SEQPACKET, pickled tuples): (number,
method, arguments) one way, (number, failure or None, value) back. Images and results travel in shared memory (``host_service.slots``);
the child opens the parent's file descriptors through /proc. Images that are handed over in one turn of the event loop are one message:
a message may be a change of process.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from driver.device import DeviceError, DeviceTimeoutError, Readings
from driver.registers import Counters
from driver.runtime import Result
from host_service.device_child import MESSAGE, SENSORS
from host_service.runners import AHEAD, WriteImage
from host_service.slots import Slots
from hw.isa import ArrayConfig
from hw.program import Program

MOST_ANSWERS = 8
"""That are taken in one turn of the event loop."""
OPEN_SECONDS = 1800.0
"""For opening the device, which may have to be built, and for loading a program."""


class DeviceProcess:
    """The parent's end: a ``host_service.runners.Runner`` of the device ``name`` (driver.device.open_devices) for ``config``.

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
        self.npus = 1
        self._slots: Slots | None = None
        self._handed_over: list[tuple[int, int]] = []
        """Numbers and slots of images that the child has not been told of."""
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
            command = [sys.executable, "-m", "host_service.device_child", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._socket = mine
        asyncio.get_running_loop().add_reader(mine.fileno(), self._receive)
        self.npus = await asyncio.wait_for(self._call("open", self.kind, self._config, self._timeout), OPEN_SECONDS)

    async def load(self, program: Program) -> None:
        """Give the child the program and memory for its images."""
        self._slots, count = None, AHEAD * self.npus
        files = [os.memfd_create(name) for name in ("quarkwave-program", "quarkwave-slots")]
        try:
            with open(files[0], "wb", closefd=False) as stream:
                stream.write(await asyncio.to_thread(program.to_bytes))
            slots = Slots(files[1], program, count)
            paths = [f"/proc/{os.getpid()}/fd/{fd}" for fd in files]
            await asyncio.wait_for(self._call("load", *paths, count), OPEN_SECONDS)
        finally:
            for file in files:
                os.close(file)
        self._slots, self._free, self._slot_of = slots, list(range(count)), {}
        self._to_features = program.features

    def run(self, write: WriteImage) -> asyncio.Future[Result]:
        """Have the image written to shared memory and computed. At most AHEAD for each NPU at a time."""
        if self._slots is None or not self._free:
            raise DeviceError("no program is loaded, or too many images are on their way")
        write(self._slots.images[self._free[-1]])
        number, future = self._expect()
        self._slot_of[number] = slot = self._free.pop()
        if not self._handed_over:
            asyncio.get_running_loop().call_soon(self._send_images)
        self._handed_over.append((number, slot))
        return future

    def drop(self, future: asyncio.Future[Result]) -> None:
        """See Runner: the child says what became of it."""
        number = next((number for number, waiting in self._waiting.items() if waiting is future), None)
        if number is not None:
            self._send_images()  # the child must know of it before it can forget it
            self._send(number, "cancel")

    async def shut(self) -> None:
        """Kill the child, if there is one."""
        self._disconnect(DeviceError("the device's process was ended"))
        self._slots = None
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            await asyncio.to_thread(process.wait)

    def _call(self, *message: Any) -> asyncio.Future[Any]:
        number, future = self._expect()
        self._send(number, *message)
        return future

    def _expect(self) -> tuple[int, asyncio.Future[Any]]:
        """A number for a message, and the future of its answer."""
        number = self._number
        self._number += 1
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        return number, future

    def _send_images(self) -> None:
        if self._handed_over:
            images, self._handed_over = self._handed_over, []
            self._send(images[0][0], "run", images)

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
        """Take the answers that have come."""
        for _ in range(MOST_ANSWERS):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(MESSAGE)
            except BlockingIOError:
                return
            except ConnectionError:  # it was killed with messages that it had not read
                data = b""
            if not data:
                self._fail(self._death())
                return
            self._take(*pickle.loads(data))

    def _take(self, number: int, failure: str | None, value: Any) -> None:
        if number == SENSORS:
            self.readings = value
            return
        slot = self._slot_of.pop(number, None)
        if slot is not None:
            if failure is None:
                value = self._result(slot, *value)
            self._free.append(slot)
        future = self._waiting.pop(number)
        if future.done():
            return
        if failure == "cancelled":
            future.cancel()
        elif failure is None:
            future.set_result(value)
        else:
            future.set_exception((DeviceTimeoutError if failure == "timeout" else DeviceError)(value))

    def _result(self, slot: int, seconds: float, counters: tuple[Any, ...]) -> Result:
        assert self._slots is not None
        return Result(self._slots.results[slot].copy(), Counters(*counters), seconds, self._to_features)

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
        self._handed_over = []
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)
