"""The gRPC service on a free port of this machine, its event loop in a thread, for tests that call it as clients do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from driver.device import Device
from driver.golden import GoldenDevice
from driver.runtime import Npu
from host_service.server import Service
from hw.program import Program
from quantize.classifier import Classifier


@contextmanager
def running_service(
    program: Program, classifier: Classifier | None = None, device: Device | None = None, timeout: float = 60.0
) -> Iterator[str]:
    """Serve ``program`` on ``device`` (default: the golden model); yields "host:port"."""
    npu = Npu(device or GoldenDevice(program.config), timeout=timeout)
    npu.load(program)
    service = Service(npu, classifier)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    try:
        yield f"127.0.0.1:{call(service.start())}"
    finally:
        call(service.stop(grace=10))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def random_classifier(seed: int, features: int, hidden: int = 16) -> Classifier:
    """An untrained classifier whose probabilities spread."""
    rng = np.random.default_rng(seed)
    shapes = ((features, hidden), (hidden,), (hidden, 2), (2,))
    return Classifier(*(rng.standard_normal(shape).astype(np.float32) * 0.2 for shape in shapes))
