"""The whole ResNet-50 at 224x224 through the NPU's RTL: every feature compared with the golden model, every cycle accounted for.

``make resnet50-rtl`` runs this; ``python benchmarks/resnet50_rtl.py --help`` lists what can be varied. It fails when one feature differs
or the array is less busy than the configuration must reach. Numbers and what they mean: docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timeline
import workload
from cycle_model import LayerCost, bandwidth_bound, layer_costs
from numpy.typing import NDArray
from tqdm import tqdm

from driver.golden import GoldenDevice
from driver.runtime import Counters, Npu, Result
from hls.npu.layer import CompileError
from hw.isa import ConfigurationError
from hw.program import Program
from hw.sources import BUILD
from quantize.dataset import written_whole
from sim.build import BuildError
from sim.verilated import VerilatedDevice

REPORTS = BUILD / "reports"


@dataclass(frozen=True)
class Goal:
    """What a configuration is measured with, and what it must reach."""

    grant: float
    """Share of the cycles in which a memory port may move a beat."""
    utilisation: float


GOALS = {
    "zcu104": Goal(0.8, 0.95),
    "kv260": Goal(0.8, 0.95),
    "u250": Goal(1.0, 0.94),
    "sim-small": Goal(1.0, 0.97),
}
LATENCY = (100, 200)
WITHIN_BOUND = 1.03
"""Where bandwidth rules the utilisation out, this much of the bandwidth bound will do."""
BACK_TO_BACK = 1.01
"""From image to image it may take this much of what the layers compute, without image and features."""


@dataclass(frozen=True)
class Measurement:
    """What the RTL answered, and what it took."""

    results: list[Result]
    first_start: int
    """The simulator's clock at the start of the first run."""
    ends: list[int]
    """The simulator's clock at the end of each run, registers read included."""
    wall_seconds: float

    @property
    def slowest(self) -> Counters:
        """The counters of the image that took the most cycles."""
        return max((result.counters for result in self.results), key=lambda counters: counters.cycles)

    @property
    def cycles_per_image(self) -> float:
        """Clock cycles from one end to the next, all register accesses included; with one image, from the start."""
        first = self.ends[0] if len(self.ends) > 1 else self.first_start
        return (self.ends[-1] - first) / max(len(self.ends) - 1, 1)


def measure(program: Program, images: NDArray[np.uint8], device: VerilatedDevice) -> Measurement:
    """Run ``images``, uint8 [n, height, width, channels], back to back on ``device``, which is closed."""
    expected = len(images) * sum(cost.ideal for cost in layer_costs(program))
    ends: list[int] = []
    with (
        Npu(device) as npu,
        tqdm(total=expected, desc=f"{device.config.name} RTL", unit="cycle", unit_scale=True) as bar,
    ):
        npu.load(program)
        start, begin = device.cycles, time.perf_counter()
        runs: list[Future[Result]] = []
        for image in images:
            runs.append(npu.run_async(image))
            # Called by the worker before it starts the next image: time stands still meanwhile.
            runs[-1].add_done_callback(lambda _: ends.append(device.cycles))
        while wait(runs, timeout=0.5).not_done:
            bar.update(min(device.cycles - start, expected) - bar.n)
        results = [run.result() for run in runs]
        bar.update(expected - bar.n)
        return Measurement(results, start, ends, time.perf_counter() - begin)


def golden(program: Program, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """The integer features of each image by the golden model."""
    with Npu(GoldenDevice(program.config)) as npu:
        npu.load(program)
        return [npu.run(image).result for image in tqdm(images, desc="golden model", unit="image")]


def layer_table(costs: list[LayerCost], counters: Counters, bytes_per_cycle: float) -> list[dict[str, Any]]:
    """One row a layer, in cycles; the last row is what comes after the last layer. Rows add up to ``counters.cycles``."""
    rows: list[dict[str, Any]] = []
    for cost, layer in zip(costs, counters.layers, strict=True):
        image = counters.image_stall if cost.descriptor.in_is_image else 0  # only one layer reads the image
        rows.append(
            {
                "name": layer.name,
                "cycles": layer.cycles,
                "ideal": cost.ideal,
                "bound": round(cost.bound(bytes_per_cycle)),
                "mac_busy": layer.mac_busy,
                "drain": layer.drain,
                "weight_stall": layer.weight_stall,
                "image_stall": image,
                "overhead": layer.cycles - layer.mac_busy - layer.drain - layer.weight_stall - image,
                "stream_bytes": cost.stream_bytes,
            }
        )
    left = counters.cycles - sum(row["cycles"] for row in rows)
    nothing = dict.fromkeys(rows[0], 0)
    return [*rows, nothing | {"name": "feature store", "cycles": left, "overhead": left}]


def report(
    program: Program, options: argparse.Namespace, measured: Measurement, expected: list[NDArray[Any]]
) -> dict[str, Any]:
    """Everything that was measured, JSON-able."""
    config, counters, costs = program.config, measured.slowest, layer_costs(program)
    rate = config.stream_bytes * options.bandwidth
    bound = bandwidth_bound(costs, rate)
    results = [result.result for result in measured.results]
    return {
        "config": config.name,
        "version": options.version,
        "seed": options.seed,
        "cp": config.cp,
        "kp": config.kp,
        "clock_mhz": config.clock_mhz,
        "weight_bytes_per_cycle": config.stream_bytes,
        "grant": options.bandwidth,
        "latency": options.latency,
        "macs": program.macs,
        "stream_bytes": len(program.stream),
        "images": len(results),
        "features": int(sum(result.size for result in expected)),
        "features_equal": int(sum(np.count_nonzero(a == b) for a, b in zip(results, expected, strict=True))),
        "cycles": counters.cycles,
        "cycles_by_image": [result.counters.cycles for result in measured.results],
        "cycles_per_image": measured.cycles_per_image,
        "compute_cycles": sum(layer.cycles for layer in counters.layers) - counters.image_stall,
        "ideal_cycles": sum(cost.ideal for cost in costs),
        "bound_cycles": round(bound),
        "utilisation": counters.utilisation(program.macs, config),
        "ideal_utilisation": program.macs / (sum(cost.ideal for cost in costs) * config.macs),
        "bound_utilisation": program.macs / (bound * config.macs),
        "stalls": {name: getattr(counters, name) for name in ("weight_stall", "image_stall", "drain", "overhead")},
        "mac_busy": counters.mac_busy,
        "layers": layer_table(costs, counters, rate),
        "wall_seconds": measured.wall_seconds,
    }


def verdict(facts: dict[str, Any]) -> list[tuple[bool, str]]:
    """What was to be shown, and whether it was."""
    goal: float
    goal, used, bound = GOALS[facts["config"]].utilisation, facts["utilisation"], facts["bound_utilisation"]
    checks: list[tuple[bool, str]] = [
        (facts["features_equal"] == facts["features"], f"{facts['features_equal']}/{facts['features']} features equal")
    ]
    if bound >= goal:
        checks.append((used >= goal, f"utilisation {used:.4f} of at least {goal}"))
    else:
        off = facts["cycles"] / facts["bound_cycles"]
        text = f"utilisation {used:.4f}: bandwidth allows {bound:.4f}, cycles are {off:.4f} of that bound, at most {WITHIN_BOUND}"
        checks.append((off <= WITHIN_BOUND, text))
    if facts["images"] > 1:
        off = facts["cycles_per_image"] / facts["compute_cycles"]
        checks.append(
            (off < BACK_TO_BACK, f"image to image takes {off:.4f} of the computing cycles, less than {BACK_TO_BACK}")
        )
    return checks


def show(facts: dict[str, Any]) -> None:
    """Print the report."""
    columns = ("cycles", "ideal", "mac_busy", "drain", "weight_stall", "image_stall", "overhead")
    print(f"\n{'layer':14}" + "".join(f"{name.replace('_', ' '):>13}" for name in columns) + "  busy")
    for row in facts["layers"]:
        print(f"{row['name']:14}" + "".join(f"{row[name]:13,}" for name in columns), end="")
        print(f"{row['mac_busy'] / max(row['cycles'], 1):6.1%}")
    sums = {name: sum(row[name] for row in facts["layers"]) for name in columns}
    print(f"{'sum':14}" + "".join(f"{sums[name]:13,}" for name in columns), end="")
    print(f"{sums['mac_busy'] / sums['cycles']:6.1%}\n")

    array = facts["cp"] * facts["kp"]
    print(
        f"{facts['config']}, {facts['cp']} x {facts['kp']} MACs, ResNet-50 {facts['version']}, {facts['macs']:,} MACs an image"
    )
    print(
        f"memory: {facts['weight_bytes_per_cycle']} bytes/cycle of weights, {facts['grant']:.0%} of the beats granted, "
        f"latency {facts['latency'][0]} to {facts['latency'][1]} cycles"
    )
    for label, cycles, used in (
        ("slowest image", facts["cycles"], facts["utilisation"]),
        ("array never waits", facts["ideal_cycles"], facts["ideal_utilisation"]),
        ("bandwidth bound", facts["bound_cycles"], facts["bound_utilisation"]),
    ):
        at_clock = (
            f", {cycles / facts['clock_mhz'] / 1e3:.3f} ms at {facts['clock_mhz']:g} MHz" if facts["clock_mhz"] else ""
        )
        print(f"{label:18}{cycles:12,} cycles, utilisation {used:.4f}{at_clock}")
    print(
        f"{'above the bound':18}{facts['cycles'] - facts['bound_cycles']:12,} cycles, {facts['cycles'] / facts['bound_cycles'] - 1:.2%}"
    )
    steady = facts["cycles_per_image"]
    print(f"{'computing':18}{facts['compute_cycles']:12,} cycles, without loading the image and storing the features")
    print(
        f"{'image to image':18}{steady:12,.0f} cycles, registers included, utilisation {facts['macs'] / (steady * array):.4f}"
    )
    print(f"simulated in {facts['wall_seconds']:.1f} s, {facts['wall_seconds'] / facts['images']:.1f} s an image")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="zcu104", choices=GOALS, help="array in hw/boards (default: %(default)s)")
    parser.add_argument(
        "--version", default="v1.5", choices=workload.VERSIONS, help="of ResNet-50 (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of weights and memory timing (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1, help="jets to send, back to back (default: %(default)s)")
    parser.add_argument("--bandwidth", type=float, help="share of beats granted (default: 0.8 on PYNQ boards, else 1)")
    parser.add_argument(
        "--latency",
        type=int,
        nargs=2,
        default=LATENCY,
        metavar=("MIN", "MAX"),
        help="of a read, in cycles (default: 100 200)",
    )
    parser.add_argument("--out", type=Path, default=REPORTS, help="folder for report and plot (default: build/reports)")
    options = parser.parse_args(arguments)
    if options.bandwidth is None:
        options.bandwidth = GOALS[options.config].grant
    return options


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Build, run, compare; the report."""
    images = workload.jet_sample(options.images)
    program = workload.program(options.config, options.version, options.seed)
    device = VerilatedDevice(
        program.config, latency=tuple(options.latency), bandwidth=options.bandwidth, seed=options.seed
    )
    measured = measure(program, images, device)
    return report(program, options, measured, golden(program, images))


def main() -> int:
    """Measure and report; returns 0 only when everything was shown."""
    options = parse_arguments()
    try:
        facts = run(options)
    except (BuildError, CompileError, ConfigurationError, ValueError) as error:
        sys.exit(f"error: {error}")
    show(facts)
    path = options.out / f"resnet50-{options.config}.json"
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n")
    picture = path.with_suffix(".png")
    timeline.draw(facts, workload.program(options.config, options.version, options.seed), picture)
    print(f"report: {path}\ntimeline: {picture}\n")
    checks = verdict(facts)
    for shown, text in checks:
        print(f"{'OK' if shown else 'FAILED'}: {text}")
    return 0 if all(shown for shown, _ in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
