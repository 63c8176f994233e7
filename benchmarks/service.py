"""The service beside a stock Triton server: latency and throughput of closed-loop clients, as in the paper's Figs. 10 to 12.

``make bench-service`` runs this; ``python benchmarks/service.py --help`` lists what can be varied. Servers and load generator are
processes of their own on separate CPUs, over loopback, with ResNet-50's images: 224 x 224 x 3 in FP32, 602 kB a call. The timed device
is a stand-in that is busy 1.8 ms an image (the paper's time on the FPGA) and computes nothing; behind Triton it is a Python model that
sleeps as long. All servers of a part run at once and are measured in turn, in rounds, so that all see the same disturbances; bars hold
ratios within one round. Triton's model neither quantises nor lays out the image, our service does both. With a device of 0 ms there is a
second Triton besides, whose model runs our driver, and so does with an image what our service does, and our service on its other transport.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import loadgen
import numpy as np
import service_plots
import workload
from loadgen import Load, Measurement
from service_servers import FEATURES, MODEL, Server, quarkwave, sources_at, triton, triton_with_driver
from stock_triton import WHEEL
from tqdm import tqdm

from hw.sources import BUILD, ROOT
from quantize.dataset import written_whole

FOLDER = BUILD / "bench-service"
REPORT = BUILD / "reports" / "service.json"
BOARD = "zcu104"
"""Whose program the service loads; the timed device takes the same time for all."""
OURS, ONE, TUNED = "Quarkwave", "Triton, 1 instance", "Triton, 2 instances + lock"
SAME = "Triton, with our driver"
OTHER_TRANSPORT = "Quarkwave on grpcio"
DEVICE_MS = 1.8
PARTS = ("timed", "instant", "particles", "emulator")
"""Of a run of which nothing else is asked."""
REQUESTS = 4
"""Different images that the clients send in turn."""


@dataclass
class Part:
    """One table: servers on one kind of device, measured for several numbers of clients."""

    title: str
    device_ms: float | None
    """Time of the device, None when it is no timed one."""
    servers: dict[str, Callable[[ExitStack], Server]]
    requests: dict[str, Path]
    """Folder of requests for each server."""
    clients: list[int]
    rounds: int
    seconds: float
    measurements: dict[tuple[str, int], list[Measurement]] = field(default_factory=dict)
    cpu_ms: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    """CPU time of the server, ms a call."""

    def run(self, cores: tuple[int, ...]) -> None:
        """Measure every server at every load, interleaved in rounds."""
        with ExitStack() as stack:
            running = {name: start(stack) for name, start in self.servers.items()}
            cases = [(name, clients) for clients in self.clients for name in running]
            with tqdm(total=self.rounds * len(cases), desc=self.title, unit="load") as bar:
                for number in range(self.rounds):
                    for name, clients in cases if number % 2 == 0 else reversed(cases):
                        self._measure(name, running[name], clients, cores)
                        bar.update()

    def _measure(self, name: str, server: Server, clients: int, cores: tuple[int, ...]) -> None:
        load = Load(server.address, str(self.requests[name]), clients, self._seconds(clients), cores=cores)
        before = server.cpu_seconds()
        measurement = loadgen.measure(load)
        spent = 1e3 * (server.cpu_seconds() - before) / measurement.calls
        self.measurements.setdefault((name, clients), []).append(measurement)
        self.cpu_ms.setdefault((name, clients), []).append(spent)

    def _seconds(self, clients: int) -> float:
        """500 clients wait a second for every answer of the timed device, so they need more time for as many answers a client."""
        return self.seconds * (2.0 if clients >= 500 else 1.0)

    def rows(self) -> list[dict[str, Any]]:
        """The table: medians over the rounds with the smallest and largest round."""
        rows = []
        for (name, clients), found in self.measurements.items():
            rates = [m.throughput for m in found]
            failures: dict[str, int] = {}
            for status, count in (item for m in found for item in m.failures.items()):
                failures[status] = failures.get(status, 0) + count
            row = {
                "server": name,
                "clients": clients,
                "per_second": float(np.median(rates)),
                "per_second_rounds": [round(r, 1) for r in rates],
                "p50_ms": float(np.median([m.percentile(50) for m in found])),
                "p99_ms": float(np.median([m.percentile(99) for m in found])),
                "p99_ms_rounds": [round(m.percentile(99), 1) for m in found],
                "calls": sum(m.calls for m in found),
                "failures": failures,
                "server_cpu_ms": float(np.median(self.cpu_ms[name, clients])),
                "generator_cpu": float(np.median([m.cpu_share for m in found])),
            }
            if self.device_ms:
                row["device_busy"] = row["per_second"] * self.device_ms / 1e3
            rows.append(row)
        return rows

    def show(self) -> None:
        """Print the table."""
        print(f"\n{self.title}, {self.rounds} rounds")
        print(
            f"{'':28}{'clients':>8}{'calls/s':>9}{'rounds':>14}{'p50 ms':>9}{'p99 ms':>9}{'calls':>8}{'failed':>8}"
            f"{'device':>8}{'CPU ms':>8}{'gen.':>6}"
        )
        for row in self.rows():
            spread = f"{min(row['per_second_rounds']):.0f} to {max(row['per_second_rounds']):.0f}"
            busy = f"{row['device_busy']:.1%}" if "device_busy" in row else "-"
            print(
                f"{row['server']:28}{row['clients']:8}{row['per_second']:9.1f}{spread:>14}{row['p50_ms']:9.1f}"
                f"{row['p99_ms']:9.1f}{row['calls']:8}{sum(row['failures'].values()):8}{busy:>8}"
                f"{row['server_cpu_ms']:8.2f}{row['generator_cpu']:6.2f}"
            )

    def draw(self, path: Path) -> None:
        """The figure."""
        names = list(self.servers)
        latencies: dict[str, dict[int, Any]] = {name: {} for name in names}
        throughput: dict[str, dict[int, list[float]]] = {name: {} for name in names}
        for (name, clients), found in sorted(self.measurements.items(), key=lambda item: item[0][1]):
            latencies[name][clients] = np.concatenate([m.latencies for m in found])
            throughput[name][clients] = [m.throughput for m in found]
        service_plots.draw(self.title, latencies, throughput, path)
        print(f"figure: {path}")


# What is measured ----------------------------------------------------------------------------------------------------


def parts(options: argparse.Namespace, beside: Mapping[str, Path], server_cores: tuple[int, ...]) -> dict[str, Part]:
    """All parts, by the name that --parts knows, and "before" with our sources at the revisions ``beside``."""
    program = workload.program_file(BOARD)
    images = workload.jet_sample(REQUESTS).astype(np.float32)[:, None] / 256
    particles = workload.constituents_sample(REQUESTS)[:, None]
    features, probabilities = ("features",), ("probabilities",)
    to_features = loadgen.write_requests(FOLDER / "features", MODEL, "image", list(images), features)
    to_tags = loadgen.write_requests(FOLDER / "tags", "tagger", "image", list(images), probabilities)
    to_tags_of_particles = loadgen.write_requests(
        FOLDER / "particles", "constituents_tagger", "constituents", list(particles), probabilities
    )
    classifier = FOLDER / "classifier.npz"
    _write_classifier(classifier)

    def ours(
        device: str, classifier: Path | None = None, transport: str = "auto", sources: Path = ROOT
    ) -> Callable[[ExitStack], Server]:
        log = FOLDER / f"quarkwave-{device.replace(':', '-')}-{transport}-{sources.name}.log"
        return lambda stack: stack.enter_context(
            quarkwave(program, device, server_cores, log, classifier, transport, sources)
        )

    def stock(ms: float, instances: int) -> Callable[[ExitStack], Server]:
        folder = FOLDER / f"triton-{ms:g}ms-{instances}"
        return lambda stack: stack.enter_context(triton(folder, ms, instances, server_cores))

    def same_work(device: str) -> Callable[[ExitStack], Server]:
        folder = FOLDER / f"triton-driver-{device.replace(':', '-')}"
        return lambda stack: stack.enter_context(triton_with_driver(folder, program, device, server_cores))

    def part(
        title: str,
        device_ms: float | None,
        servers: dict[str, Callable[[ExitStack], Server]],
        *requests: Path,
        **more: Any,
    ) -> Part:
        folders = requests if len(requests) > 1 else requests * len(servers)
        defaults = {"clients": options.clients, "rounds": options.rounds, "seconds": options.seconds}
        return Part(title, device_ms, servers, dict(zip(servers, folders, strict=True)), **(defaults | more))

    before = {f"Quarkwave at {revision}": ours("timed:0ms", sources=sources) for revision, sources in beside.items()}
    timed = f"timed:{DEVICE_MS}ms"
    few = [c for c in options.clients if c in (10, 50)] or options.clients[:1]
    return {
        "timed": part(
            f"Timed device of {DEVICE_MS} ms, FP32 images of 602 kB",
            DEVICE_MS,
            {OURS: ours(timed), ONE: stock(DEVICE_MS, 1), TUNED: stock(DEVICE_MS, 2)},
            to_features,
        ),
        "instant": part(
            "Timed device of 0 ms (the front end alone), FP32 images of 602 kB",
            0.0,
            {
                OURS: ours("timed:0ms"),
                OTHER_TRANSPORT: ours("timed:0ms", transport="grpcio"),
                ONE: stock(0.0, 1),
                SAME: same_work("timed:0ms"),
            },
            to_features,
            clients=few,
        ),
        "before": part(
            "What changed since: timed device of 0 ms, FP32 images of 602 kB",
            0.0,
            {OURS: ours("timed:0ms")} | before,
            to_features,
            clients=few,
        ),
        "particles": part(
            f"What a jet's particles save: tagging on a timed device of {DEVICE_MS} ms",
            DEVICE_MS,
            {"image, FP32, 602 kB": ours(timed, classifier), "particles, 3.2 kB": ours(timed, classifier)},
            to_tags,
            to_tags_of_particles,
            clients=[c for c in options.clients if c <= 50] or options.clients[:1],
        ),
        "emulator": part(
            "Bit-exact emulator, ResNet-50, FP32 images of 602 kB",
            None,
            {OURS: ours("emulator")},
            to_features,
            rounds=1,
            seconds=options.emulator_seconds,
        ),
    }


def _write_classifier(path: Path) -> None:
    """A classifier of ResNet-50's features with random weights: its time is that of a trained one."""
    rng = np.random.default_rng(1)
    shapes = {"w1": (FEATURES, 16), "b1": (16,), "w2": (16, 2), "b2": (2,)}
    with written_whole(path) as temporary:
        np.savez(temporary, **{f"classifier/{k}": rng.standard_normal(v).astype(np.float32) for k, v in shapes.items()})


# What must hold ------------------------------------------------------------------------------------------------------


def bars(timed: Part, instant: Part) -> list[tuple[str, float, str, float]]:
    """(what, measured, ">=" or "<=", bar) for every bar that the measured loads allow to judge."""
    found = []

    def ratio(part: Part, other: str, clients: int, value: Callable[[Measurement], float]) -> float | None:
        ours, theirs = (part.measurements.get((name, clients), []) for name in (OURS, other))
        pairs = [value(a) / value(b) for a, b in zip(ours, theirs, strict=False) if value(b)]
        return float(np.median(pairs)) if pairs else None

    def compare(part: Part, other: str, clients: int, rate: float, p99: float | None) -> None:
        measured = ratio(part, other, clients, lambda m: m.throughput)
        if measured is not None:
            where = f"{clients} clients, against {other}, device {part.device_ms:g} ms"
            found.append((f"throughput, {where}", measured, ">=", rate))
            if p99 is not None:
                tail = ratio(part, other, clients, lambda m: m.percentile(99))
                found.append((f"p99, {where}", tail or float("nan"), "<=", p99))

    compare(timed, ONE, 50, 1.25, 0.8)
    compare(timed, TUNED, 50, 1.0, 1.05)
    compare(instant, ONE, 50, 0.9, None)
    compare(instant, SAME, 50, 0.9, None)
    for row in timed.rows():
        if row["server"] == OURS and row["clients"] >= 10:
            found.append((f"device busy, {row['clients']} clients", row["device_busy"], ">=", 0.97))
        if row["server"] == OURS and row["clients"] == 500:
            found.append(("failed calls, 500 clients", float(sum(row["failures"].values())), "<=", 0.0))
            found.append(("calls, 500 clients", float(row["calls"]), ">=", 30_000.0))
    return found


def missed(found: list[tuple[str, float, str, float]]) -> int:
    """Print the bars; returns how many do not hold."""
    count = 0
    print()
    for what, measured, sign, bar in found:
        holds = measured >= bar if sign == ">=" else measured <= bar
        count += not holds
        print(f"{'ok    ' if holds else 'MISSED'}  {what}: {measured:.3g} (bar: {sign} {bar:g})")
    return count


# Command line --------------------------------------------------------------------------------------------------------


def main() -> int:
    """Measure, print, draw; returns 0 only when every bar holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[1, 10, 50, 100, 500], help="(default: 1 10 50 100 500)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="of measuring a load in a round (default: %(default)s)"
    )
    parser.add_argument("--emulator-seconds", type=float, default=20.0, help="the same with the emulator")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="(default: all)")
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[],
        metavar="REVISION",
        help="of git: measure our service beside itself as it was then, with a device of 0 ms (and only that, unless there are --parts)",
    )
    parser.add_argument(
        "--shared-cores", action="store_true", help="do not keep servers and load generator on separate CPUs"
    )
    parser.add_argument(
        "--out", type=Path, default=REPORT, help="report; figures stand beside it (default: build/reports)"
    )
    options = parser.parse_args()
    if min(options.rounds, *options.clients) < 1 or options.seconds <= 0:
        parser.error("rounds, clients and seconds must be positive")

    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    split = options.shared_cores or not half
    server_cores, generator_cores = ((), ()) if split else (tuple(cores[:half]), tuple(cores[half:]))
    FOLDER.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped too
    load_before = os.getloadavg()[0]
    try:
        beside = {name: sources_at(name, FOLDER / f"sources-{number}") for number, name in enumerate(options.beside)}
    except ValueError as error:
        parser.error(str(error))
    every = parts(options, beside, server_cores)
    names = options.parts or ([] if options.beside else PARTS)
    chosen = {name: every[name] for name in (*names, *(["before"] if options.beside else []))}
    for part in chosen.values():
        part.run(generator_cores)
    print(
        f"\n{_cpu()}, {len(cores)} cores; servers on {list(server_cores) or 'all'}, load generator on {list(generator_cores) or 'all'}"
    )
    print(f"load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after; gRPC {grpc.__version__}; {WHEEL}")
    for part in chosen.values():
        part.show()
    print(
        "device: share of the time that the device is busy; CPU ms: of the server, a call; gen.: share of a core that the generator takes"
    )
    found = bars(every["timed"], every["instant"])
    report = {
        "cpu": _cpu(),
        "cores": len(cores),
        "server_cores": server_cores,
        "generator_cores": generator_cores,
        "grpc": grpc.__version__,
        "triton": WHEEL,
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "rounds": options.rounds,
        "seconds": options.seconds,
        "parts": {part.title: part.rows() for part in chosen.values()},
        "bars": [dict(zip(("what", "measured", "sign", "bar"), bar, strict=True)) for bar in found],
    }
    with written_whole(options.out) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nreport: {options.out}")
    for name, part in chosen.items():
        part.draw(options.out.with_name(f"{options.out.stem}-{name}.png"))
    return 1 if missed(found) else 0


def _cpu() -> str:
    """The CPU's name."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
