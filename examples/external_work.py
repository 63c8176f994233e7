"""The paper's ExternalWork pattern in asyncio: while the FPGA tags a jet, the event's thread does other work.

    python examples/external_work.py --servers host1:8001 host2:8001 --jets test.h5

In CMSSW a module's acquire() sends a request and returns at once, the framework runs other modules, and produce() gets the answer when it
has come (Duarte et al. 2019, section 4). Here an event is a jet, its other work takes a stated time of a CPU, and several streams of
events are under way, as in a job with several threads. A call that finds no server or a full queue is sent again by gRPC itself, with
doubling pauses; when a server stays away, the next one takes over.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from host_service.client import channel_options
from quantize import dataset

MODEL = "constituents_tagger"
ELSEWHERE = ("StatusCode.UNAVAILABLE", "StatusCode.RESOURCE_EXHAUSTED")
"""Statuses after which another server may answer."""


class JetTagger:
    """What a producer holds: asks ``servers`` ("host:port"), the first of them that answers. ``timeout``: seconds for each."""

    def __init__(self, servers: Sequence[str], timeout: float = 30.0) -> None:
        self._clients = [InferenceServerClient(server, channel_args=channel_options()) for server in servers]
        self._timeout = timeout
        self._first = 0
        self.failovers = 0

    def acquire(self, constituents: NDArray[np.float32]) -> asyncio.Task[float]:
        """Send a jet, [n <= 200, 4] of E, px, py, pz, and return at once."""
        return asyncio.create_task(self._ask(constituents))

    async def produce(self, pending: asyncio.Task[float]) -> float:
        """P(top), when it has come. Raises InferenceServerException when no server has answered."""
        return await pending

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.close()

    async def _ask(self, constituents: NDArray[np.float32]) -> float:
        tensor = InferInput("constituents", [1, *constituents.shape], "FP32")
        tensor.set_data_from_numpy(constituents[None])
        wanted = [InferRequestedOutput("probabilities")]
        first, count = self._first, len(self._clients)
        for step in range(count):
            client = self._clients[(first + step) % count]
            try:
                answer = await client.infer(MODEL, [tensor], outputs=wanted, client_timeout=self._timeout)
                return float(answer.as_numpy("probabilities")[0, 1])
            except InferenceServerException as error:
                if error.status() not in ELSEWHERE or step == count - 1:
                    raise
                if self._first == first:  # the first call that notices; the others follow it
                    self._first = (first + 1) % count
                    self.failovers += 1
        raise AssertionError("there is at least one server")


def other_work(seconds: float) -> None:
    """The rest of the event, on a CPU."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        np.linalg.svd(np.ones((32, 32)))


async def process(tagger: JetTagger, jets: NDArray[np.float32], streams: int, work: float) -> NDArray[np.float64]:
    """P(top) of ``jets`` [n, 200, 4], with ``streams`` of events at a time; every event has ``work`` seconds of other work."""
    loop, p_top = asyncio.get_running_loop(), np.zeros(len(jets))
    events = iter(tqdm(range(len(jets)), unit="event"))

    async def stream(threads: ThreadPoolExecutor) -> None:
        for number in events:
            pending = tagger.acquire(jets[number])
            await loop.run_in_executor(threads, other_work, work)
            p_top[number] = await tagger.produce(pending)

    with ThreadPoolExecutor(streams) as threads:
        await asyncio.gather(*(stream(threads) for _ in range(streams)))
    return p_top


async def run(options: argparse.Namespace) -> int:
    """Tag the file's jets and say how much of the waiting was hidden."""
    jets = dataset.read(options.jets, options.limit)
    tagger = JetTagger(options.servers)
    try:
        begin = time.perf_counter()
        p_top = await process(tagger, jets.constituents, options.streams, options.work / 1e3)
        elapsed = time.perf_counter() - begin
    finally:
        await tagger.close()
    right = np.mean((p_top > 0.5) == (jets.is_top == 1))
    print(f"{len(jets)} events, {options.streams} streams, {options.work:g} ms of other work each: {elapsed:.2f} s")
    print(f"right: {right:.1%}; changes of server: {tagger.failovers}")
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", nargs="+", default=["localhost:8001"], help="host:port (default: localhost:8001)")
    parser.add_argument("--jets", type=Path, required=True, help="HDF5 file of `python -m quantize jets`")
    parser.add_argument("--limit", type=int, help="only the first jets")
    parser.add_argument("--streams", type=int, default=4, help="events under way (default: %(default)s)")
    parser.add_argument("--work", type=float, default=5.0, help="ms of other work an event (default: %(default)s)")
    options = parser.parse_args()
    try:
        return asyncio.run(run(options))
    except (OSError, ValueError, InferenceServerException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
