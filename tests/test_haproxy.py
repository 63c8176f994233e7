"""Three services behind HAProxy with host_service/deploy/haproxy/haproxy.cfg: clients with retries see no failure when one is killed."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from random_networks import featurizer, random_image
from service_servers import Server, serving
from stock_triton import free_port
from tritonclient.grpc import InferenceServerClient

from driver.runtime import Npu
from driver.timed import TimedDevice
from host_service.client import RemoteNpu
from hw.sources import ROOT

CONFIGURATION = ROOT / "host_service" / "deploy" / "haproxy" / "haproxy.cfg"
PROGRAM = featurizer(71)
BATCH = 40
"""Images of a call: more bytes in all (the clients have ten) than gRPC keeps for retries by default."""
CLIENTS = 10


@dataclass
class Cluster:
    """Three services and the address of the HAProxy before them."""

    address: str
    ports: list[tuple[int, int]]
    """gRPC and HTTP port of each service."""
    start: Callable[[int], Server]
    """Start service i (again)."""
    servers: list[Server]

    def calls(self, i: int) -> int:
        """Calls that service i has answered, asked past HAProxy."""
        with InferenceServerClient(f"127.0.0.1:{self.ports[i][0]}") as client:
            (stats,) = client.get_inference_statistics("featurizer").model_stats
            return int(stats.inference_stats.success.count)


@contextmanager
def haproxy(ports: list[tuple[int, int]], log: Path) -> Iterator[str]:
    """HAProxy before the services; yields its address."""
    address = f"127.0.0.1:{free_port()}"
    variables = {"QUARKWAVE_BIND": address}
    for i, (grpc_port, http_port) in enumerate(ports, 1):
        variables |= {f"QUARKWAVE_SERVER_{i}": f"127.0.0.1:{grpc_port}", f"QUARKWAVE_HEALTH_{i}": str(http_port)}
    with log.open("w") as out:
        command = ["haproxy", "-db", "-f", str(CONFIGURATION)]
        process = subprocess.Popen(command, env=os.environ | variables, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(300)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    PROGRAM.save(tmp_path / "net.npu")
    ports = [(free_port(), free_port()) for _ in range(3)]
    with ExitStack() as stack:

        def start(i: int) -> Server:
            grpc_port, http_port = ports[i]
            arguments = ["--program", tmp_path / "net.npu", "--device", "timed:2ms", "--http-port", http_port]
            return stack.enter_context(serving(arguments, tmp_path / f"service-{i}.log", port=grpc_port))

        servers = [start(i) for i in range(3)]
        address = stack.enter_context(haproxy(ports, tmp_path / "haproxy.log"))
        yield Cluster(address, ports, start, servers)


def until(what: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


class Clients:
    """Threads that send batches, each its own, and check every answer, until stopped."""

    def __init__(self, address: str) -> None:
        self.answered = [0] * CLIENTS
        self.failures: list[Exception] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i, address)) for i in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int, address: str) -> None:
        rng = np.random.default_rng(number)
        images = np.stack([random_image(rng, PROGRAM) for _ in range(BATCH)])
        with Npu(TimedDevice(PROGRAM.config, setting="0ms")) as npu:
            npu.load(PROGRAM)
            expected = [npu.run(image).result for image in images]
        try:
            with RemoteNpu(address, timeout=300.0) as npu:
                while not self._stop.is_set():
                    results = npu.run_batch(images)
                    assert np.array_equal([r.result for r in results], expected)
                    self.answered[number] += 1
        except Exception as error:
            self.failures.append(error)

    def more(self) -> None:
        """Wait until every client has had two more answers: what it sends next was sent after this call."""
        before = list(self.answered)
        until(
            lambda: bool(self.failures) or all(now >= then + 2 for now, then in zip(self.answered, before, strict=True))
        )

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(300)


def test_one_of_three_killed_under_load_and_brought_back(cluster: Cluster):
    until(lambda: answers(cluster.address))
    clients = Clients(cluster.address)
    try:
        until(lambda: clients.failures != [] or all(cluster.calls(i) > 0 for i in range(3)))  # all three share the load
        clients.more()
        os.kill(cluster.servers[0].pid, signal.SIGKILL)
        clients.more()
        clients.more()
        cluster.start(0)
        until(lambda: clients.failures != [] or cluster.calls(0) > 0)
        clients.more()
    finally:
        clients.stop()
    assert clients.failures == []


def answers(address: str) -> bool:
    """Whether HAProxy has found a service."""
    with InferenceServerClient(address) as client:
        try:
            return bool(client.is_server_ready(client_timeout=5))
        except Exception:
            return False
