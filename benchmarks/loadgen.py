"""A load generator for the service: closed-loop clients in one process of their own.

    python benchmarks/loadgen.py --address 127.0.0.1:8001 --clients 50 --seconds 10

Every client has one request under way and sends the next when the answer has come. Requests are serialised once and sent as the same
bytes, answers are not parsed beyond their status and length, and the transport is gRPC's C core, so that the generator takes less CPU
than a server (its share is part of the result: near 1.0 the figures would be its own, not the server's). Clients share at most
CONNECTIONS connections, as threads of one job do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from tritonclient.grpc import service_pb2 as pb

INFER = "/inference.GRPCInferenceService/ModelInfer"
CONNECTIONS = 50
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True)
class Load:
    """What to send: ``requests`` is a folder with serialised ModelInferRequests, one a file, which the clients take in turn."""

    address: str
    requests: str
    clients: int
    seconds: float
    """Of measuring, after ``warm_up`` seconds of the same load."""
    warm_up: float = 1.0
    timeout: float = 600.0
    """Deadline of a call, seconds."""
    cores: tuple[int, ...] = ()
    """CPUs to run on (none: all)."""


@dataclass(frozen=True)
class Measurement:
    """What came back. Latencies and throughput are of the calls that were answered within the measuring time."""

    clients: int
    calls: int
    """Sent in all, warm-up included."""
    failures: dict[str, int]
    """Calls without the right answer, by status; of all calls."""
    seconds: float
    latencies: NDArray[np.float32]
    """Milliseconds, [calls answered while measuring]."""
    cpu_share: float
    """CPU time of the generator over the time it ran: 1.0 is one whole core."""

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """Of the latency, in ms; NaN when nothing was answered."""
        return float(np.percentile(self.latencies, percent)) if len(self.latencies) else float("nan")


def write_requests(folder: Path, model: str, name: str, arrays: list[NDArray], outputs: tuple[str, ...]) -> Path:
    """One serialised request for each of ``arrays`` (the values of the input ``name``, batch included); returns ``folder``."""
    types = {np.dtype(np.float32): "FP32", np.dtype(np.uint8): "UINT8"}
    folder.mkdir(parents=True, exist_ok=True)
    for number, values in enumerate(arrays):
        request = pb.ModelInferRequest(model_name=model)
        request.inputs.add(name=name, datatype=types[values.dtype], shape=values.shape)
        for output in outputs:
            request.outputs.add(name=output)
        request.raw_input_contents.append(np.ascontiguousarray(values).tobytes())
        (folder / f"{number:03d}.request").write_bytes(request.SerializeToString())
    return folder


def measure(load: Load) -> Measurement:
    """Run ``load`` in a process of its own. Raises CalledProcessError when that fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "latencies.npy"
        command = [sys.executable, __file__, "--quiet", "--latencies", str(out)]
        for key, value in asdict(load).items():
            if key == "cores":
                command += ["--cores", *map(str, value)] if value else []
            else:
                command += [f"--{key.replace('_', '-')}", str(value)]
        answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        return Measurement(**answer, latencies=np.load(out))


class Generator:
    """The clients, all driven by gRPC's callbacks. One lock guards what the callbacks of all connections share."""

    def __init__(self, load: Load) -> None:
        self._load = load
        files = sorted(Path(load.requests).glob("*.request"))
        if not files:
            raise FileNotFoundError(f"no *.request in {load.requests}")
        self._requests = [file.read_bytes() for file in files]
        # A pool of one's own for each channel makes it a connection of its own.
        options = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
        count = min(load.clients, CONNECTIONS)
        self._channels = [grpc.insecure_channel(load.address, options=options) for _ in range(count)]
        self._lock = threading.Lock()
        self._finished = threading.Semaphore(0)
        self._latencies: list[float] = []
        self._failures: Counter[str] = Counter()
        self._calls = 0
        self._answer_bytes = 0
        self._begin = self._end = float("inf")

    def run(self) -> Measurement:
        """Warm up, measure, wait for the last answers."""
        calls = [channel.unary_unary(INFER) for channel in self._channels]  # no serialisers: bytes in, bytes out
        for call in calls:  # opens the connection
            answer = call(self._requests[0], timeout=self._load.timeout, wait_for_ready=True)
        self._answer_bytes = len(answer)
        for client in range(self._load.clients):
            self._send(calls[client % len(calls)], client)
        # The warm-up begins when every client has sent: their callbacks compete with this thread meanwhile.
        wall, cpu = time.perf_counter(), time.process_time()
        self._begin = wall + self._load.warm_up
        self._end = self._begin + self._load.seconds
        for _ in range(self._load.clients):
            self._finished.acquire()
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        for channel in self._channels:
            channel.close()
        latencies = np.array(self._latencies, np.float32)
        return Measurement(
            self._load.clients, self._calls, dict(self._failures), self._load.seconds, latencies, round(share, 3)
        )

    def _send(self, call: grpc.UnaryUnaryMultiCallable, turn: int) -> None:
        sent = time.perf_counter()
        future = call.future(self._requests[turn % len(self._requests)], timeout=self._load.timeout)

        def answered(future: grpc.Future) -> None:
            now = time.perf_counter()
            error = future.exception()
            failure = None
            if error is not None:
                failure = error.code().name if isinstance(error, grpc.RpcError) else type(error).__name__
            elif len(future.result()) != self._answer_bytes:
                failure = "WRONG_LENGTH"
            with self._lock:
                self._calls += 1
                if failure:
                    self._failures[failure] += 1
                elif self._begin <= now < self._end:
                    self._latencies.append(1e3 * (now - sent))
            if now < self._end:
                self._send(call, turn + 1)
            else:
                self._finished.release()

        future.add_done_callback(answered)


def main() -> int:
    """Run one load and print it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--address", required=True, help="host:port")
    parser.add_argument("--requests", required=True, help="folder of serialised requests, as write_requests() makes it")
    parser.add_argument("--clients", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="to measure (default: %(default)s)")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=600.0, help="deadline of a call, seconds")
    parser.add_argument("--cores", type=int, nargs="+", default=(), help="CPUs to run on (default: all)")
    parser.add_argument("--latencies", type=Path, help="write every latency (ms, float32) to this .npy file")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = vars(parser.parse_args())
    latencies, quiet = options.pop("latencies"), options.pop("quiet")
    if options["clients"] < 1 or options["seconds"] <= 0:
        parser.error("clients and seconds must be positive")
    if options["cores"]:
        os.sched_setaffinity(0, options["cores"])
    result: list[Measurement] = []
    worker = threading.Thread(target=lambda: result.append(Generator(Load(**options)).run()), daemon=True)
    worker.start()
    _wait(worker, options["warm_up"] + options["seconds"], quiet)
    if not result:
        return 1
    facts = {key: value for key, value in vars(result[0]).items() if key != "latencies"}
    if latencies:
        np.save(latencies, result[0].latencies)
    else:
        facts |= {"throughput": result[0].throughput} | {f"p{p}_ms": result[0].percentile(p) for p in (50, 99)}
    print(json.dumps(facts))
    return 0


def _wait(worker: threading.Thread, seconds: float, quiet: bool) -> None:
    """Until ``worker`` ends, with a progress bar over the ``seconds`` it should take."""
    with tqdm(
        total=round(seconds, 1), unit="s", disable=quiet, bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s"
    ) as bar:
        while worker.is_alive():
            worker.join(0.5)
            bar.update(min(0.5, bar.total - bar.n))


if __name__ == "__main__":
    sys.exit(main())
