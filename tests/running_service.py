"""The gRPC service on a free port of this machine, its event loop in a thread, for tests that call it as clients do."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from driver.device import Device
from driver.golden import GoldenDevice
from driver.runtime import Npu
from host_service.configuration import Configuration, configuration_of
from host_service.device_process import DeviceProcess
from host_service.server import Service
from hw.program import Program
from quantize.classifier import Classifier

WAIT = 300.0
"""Seconds after which something that should have happened is given up; a busy machine may take long."""

RUNNING: set[Service] = set()
"""The services of this process."""


@dataclass
class Running:
    """A service that runs: its "host:port", itself, and how to run something in its event loop."""

    address: str
    service: Service
    call: Callable[[Any], Any]

    @property
    def http(self) -> str:
        """URL of the page and the metrics."""
        return f"http://127.0.0.1:{self.service.http_port}"


@contextmanager
def serving(make: Callable[[], Any], http: bool = False) -> Iterator[Running]:
    """Run the service that the coroutine function ``make`` makes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(WAIT)

    try:
        service = call(make())
        RUNNING.add(service)
        try:
            yield Running(f"127.0.0.1:{call(service.start(http_port=0 if http else -1))}", service, call)
        finally:
            RUNNING.remove(service)
            call(service.stop(grace=10))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def running_service(
    program: Program, classifier: Classifier | None = None, device: Device | None = None, timeout: float = 60.0
) -> Iterator[str]:
    """Serve ``program`` on ``device`` (default: the golden model) in this process; yields "host:port"."""
    npu = Npu(device or GoldenDevice(program.config), timeout=timeout)
    npu.load(program)

    async def make() -> Service:
        return Service.local(npu, classifier)

    with serving(make) as running:
        yield running.address


@contextmanager
def running_configuration(folder, http: bool = False, **values: Any) -> Iterator[Running]:
    """Serve what a configuration file with these tables would ask for, its devices in processes of their own."""
    configuration: Configuration = configuration_of(values, folder)
    with serving(lambda: Service.of(configuration), http) as running:
        yield running


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until ``condition()`` holds."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {WAIT:g} s: {what}"
        time.sleep(0.02)


def device_process(running: Running, number: int = 0) -> DeviceProcess:
    """Device ``number`` of the service, which runs in a process of its own."""
    runner = running.service.scheduler.lanes[number].runner
    assert isinstance(runner, DeviceProcess)
    return runner


@contextmanager
def devices_held(running: Running) -> Iterator[None]:
    """Meanwhile the devices' processes stand still: they take images, up to their number, and finish none."""
    pids = [device_process(running, number).pid for number in range(len(running.service.scheduler.lanes))]
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def random_classifier(seed: int, features: int, hidden: int = 16) -> Classifier:
    """An untrained classifier whose probabilities spread."""
    rng = np.random.default_rng(seed)
    shapes = ((features, hidden), (hidden,), (hidden, 2), (2,))
    return Classifier(*(rng.standard_normal(shape).astype(np.float32) * 0.2 for shape in shapes))
