"""The load generator counts what really happened, or the service's figures would mean nothing."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import loadgen
import numpy as np
import pytest
import service_plots
from loadgen import Load
from random_networks import featurizer, random_image
from running_service import WAIT
from service_servers import serving
from tritonclient.grpc import InferenceServerClient

from hw.sources import ROOT

PROGRAM = featurizer(121)


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [random_image(np.random.default_rng(seed), PROGRAM)[None] for seed in range(3)]
    return loadgen.write_requests(tmp_path_factory.mktemp("requests"), "featurizer", "image", images, ("features",))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    PROGRAM.save(folder / "net.npu")
    with serving(["--program", folder / "net.npu", "--device", "timed:2ms"], folder / "log") as server:
        yield server.address


def calls_counted_by(address: str) -> int:
    with InferenceServerClient(address) as client:
        (stats,) = client.get_inference_statistics("featurizer").model_stats
    return int(stats.inference_stats.success.count)


def test_it_counts_the_calls_that_the_service_counts(requests: Path, address: str):
    before = calls_counted_by(address)
    found = loadgen.measure(Load(address, str(requests), clients=7, seconds=2.0, warm_up=0.3))
    opening = 7  # a call for each connection before the load begins
    assert found.failures == {}
    assert calls_counted_by(address) - before == found.calls + opening
    assert len(found.latencies) <= found.calls
    assert len(found.latencies) <= 2.0 / 2e-3 + 1 + 7, (
        "no faster than the device, but for answers that were on their way"
    )
    assert (found.latencies >= 2.0).all()
    assert found.latencies.sum() / 1e3 <= 7 * (2.0 + found.latencies.max(initial=0) / 1e3), "no more than 7 under way"


class Gate(grpc.GenericRpcHandler):
    """Answers the calls that open the connections, then none before ``clients`` are there at the same time; counts how many are."""

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self._opening = clients
        self._now = 0
        self._lock = threading.Lock()
        self._all_there = threading.Event()
        self.most = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            if self._opening:
                self._opening -= 1
                return bytes(10)
            self._now += 1
            self.most = max(self.most, self._now)
            if self._now == self._clients:
                self._all_there.set()
        self._all_there.wait(WAIT)
        with self._lock:
            self._now -= 1
        return bytes(10)


@contextmanager
def answered_by(handler: grpc.GenericRpcHandler, threads: int) -> Iterator[str]:
    """A server of so many threads; yields its address."""
    server = grpc.server(ThreadPoolExecutor(threads))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


def test_every_client_has_one_call_under_way_and_never_two(requests: Path):
    gate = Gate(clients=7)
    with answered_by(gate, threads=20) as address:
        found = loadgen.measure(Load(address, str(requests), clients=7, seconds=0.5, warm_up=0.1))
    assert found.failures == {}
    assert found.calls >= 7
    assert gate.most == 7


class Broken(grpc.GenericRpcHandler):
    """Answers the first call of a connection, then an error, a short answer, and the right one, in turns."""

    def __init__(self) -> None:
        self._calls = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._calls += 1
        if self._calls <= 3:
            return bytes(10)
        if self._calls % 3 == 0:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return bytes(9 if self._calls % 3 == 1 else 10)


def test_errors_and_short_answers_are_failures(requests: Path):
    with answered_by(Broken(), threads=1) as address:
        found = loadgen.measure(Load(address, str(requests), clients=3, seconds=0.5, warm_up=0.1))
    third = found.calls / 3
    assert set(found.failures) == {"RESOURCE_EXHAUSTED", "WRONG_LENGTH"}
    assert all(abs(count - third) <= 2 for count in found.failures.values())
    assert len(found.latencies) <= third + 2


def test_it_runs_as_a_command(requests: Path, address: str):
    command = [sys.executable, "benchmarks/loadgen.py", "--address", address, "--requests", str(requests)]
    command += ["--clients", "2", "--seconds", "0.5", "--warm-up", "0.1", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["failures"] == {}
    assert found["calls"] >= found["clients"] == 2
    assert 0 <= found["throughput"] * 0.5 <= found["calls"]


def test_a_figure_is_drawn_also_where_a_server_lacks_a_load(tmp_path: Path):
    rng = np.random.default_rng(1)
    latencies = {"ours": {1: rng.gamma(9, 1, 500), 500: rng.gamma(9, 100, 20_000)}, "theirs": {1: rng.gamma(9, 1, 300)}}
    throughput = {"ours": {1: [200.0, 210.0], 500: [540.0, 550.0]}, "theirs": {1: [190.0]}}
    service_plots.draw("a title", latencies, throughput, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
