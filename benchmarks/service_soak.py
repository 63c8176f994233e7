"""The service over many requests: every answer compared with the golden model, and the memory of its processes watched.

``make soak-service``: 100,000 requests by 50 closed-loop clients, one in twenty cancelled, one in twenty wrong. It fails unless every
request has its right answer or status, and the peak of the memory after the first fifth is less than GROWTH above that before. A figure
of the memory of each process goes to build/reports.

Callers leave within ``--patience`` seconds, most while their request waits. With 0 they leave as they send: gRPC loses some 80 bytes of
each such call (https://github.com/grpc/grpc/issues/43360), which keep pages of the heap from going back.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import psutil
from service_servers import serving
from tqdm import tqdm
from tritonclient.grpc import service_pb2 as pb

from driver.golden import GoldenDevice
from driver.runtime import Npu
from hw.program import Program
from hw.sources import BUILD

INFER = "/inference.GRPCInferenceService/ModelInfer"
FIGURE = BUILD / "reports" / "service-soak.png"
GROWTH = 0.05
"""Of the most memory at any time, from the first fifth of the requests to the rest."""


class Soak:
    """The clients, and what became of their requests."""

    def __init__(self, program: Program, seed: int, patience: float) -> None:
        self.patience = patience
        self.rng = np.random.default_rng(seed)
        layout = program.image
        shape = (layout.height, layout.width, layout.channels)
        images = [self.rng.integers(0, 256, shape, np.uint8) for _ in range(20)]
        with Npu(GoldenDevice(program.config)) as npu:
            npu.load(program)
            self.sums = [npu.run(image).result.astype("<i4").tobytes() for image in images]
        self.requests = [_request(image) for image in images]
        self.found: Counter[str] = Counter()
        self.left = 0

    async def run(self, address: str, count: int, clients: int, progress: tqdm) -> None:
        """Send ``count`` requests."""
        self.left = count
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_unary(INFER)
            await asyncio.gather(*(self._client(call, progress) for _ in range(clients)))

    async def _client(self, call: grpc.aio.UnaryUnaryMultiCallable, progress: tqdm) -> None:
        while self.left > 0:
            self.left -= 1
            progress.update()
            number, kind = int(self.rng.integers(len(self.requests))), self.rng.random()
            data = self.requests[number]
            if kind < 0.05:
                data = data[: int(self.rng.integers(len(data)))]
            sent = call(data, timeout=120)
            if kind > 0.95:
                await asyncio.sleep(self.rng.random() * self.patience)
                sent.cancel()
            try:
                answer = pb.ModelInferResponse.FromString(await sent)
            except grpc.aio.AioRpcError as error:
                expected = ("INVALID_ARGUMENT", "NOT_FOUND")
                name = error.code().name
                self.found[f"refused: {name}" if kind < 0.05 and name in expected else f"WRONG: {name}"] += 1
            except asyncio.CancelledError:
                self.found["cancelled"] += 1
            else:
                right = answer.raw_output_contents[0] == self.sums[number]
                self.found["right" if right else "WRONG: answer"] += 1


def _request(image: np.ndarray) -> bytes:
    request = pb.ModelInferRequest(model_name="featurizer", raw_input_contents=[image.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=(1, *image.shape))
    request.outputs.add(name="feature_sums")
    return request.SerializeToString()


def memory(pid: int) -> list[float]:
    """MiB that a process and each of its children have for themselves."""
    process = psutil.Process(pid)
    return [p.memory_full_info().uss / 2**20 for p in (process, *process.children(recursive=True))]


def draw(requests: list[int], found: list[list[float]], path: Path) -> None:
    """The memory of each process over the requests."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    for number, values in enumerate(zip(*found, strict=True)):
        axes.plot(requests, values, marker=".", label="service" if number == 0 else f"device {number}")
    axes.set(xlabel="requests", ylabel="memory of its own, MiB", ylim=(0, None))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"figure: {path}")


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="a small program; the device is the emulator")
    parser.add_argument("--device", default="emulator")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument(
        "--patience", type=float, default=0.05, help="of callers who leave, seconds (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    soak, parts = Soak(Program.load(options.program), options.seed, options.patience), 20
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--program", options.program, "--device", options.device]
        with serving(arguments, Path(folder) / "log") as server, tqdm(total=options.requests, unit="request") as bar:
            found = []
            for _ in range(parts):
                asyncio.run(soak.run(server.address, options.requests // parts, options.clients, bar))
                found.append(memory(server.pid))
    print("outcomes:", ", ".join(f"{kind} {count}" for kind, count in sorted(soak.found.items())))
    whole = [sum(processes) for processes in found]
    print(f"MiB after each {options.requests // parts} requests:", " ".join(f"{m:.1f}" for m in whole))
    print("the service's own:", " ".join(f"{processes[0]:.1f}" for processes in found))
    draw([options.requests // parts * (n + 1) for n in range(parts)], found, FIGURE)
    early = parts // 5
    growth = max(whole[early:]) / max(whole[:early]) - 1  # peaks: what a trim of the heap gave back comes again
    print(f"growth of the peak after the first fifth: {growth:+.1%} (allowed: {GROWTH:.0%})")
    wrong = any(kind.startswith("WRONG") for kind in soak.found)
    return 1 if wrong or growth > GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
