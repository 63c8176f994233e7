"""How fast the bit-exact emulator is: side by side with ONNX Runtime's own int8 ResNet-50 and with float Keras, on this machine.

``make bench-emulator`` runs this; ``python benchmarks/emulator.py --help`` lists what can be varied. Every contestant has a process of its
own for each number of threads, bound to as many cores; rounds interleave them, so that all see the same disturbances. The emulator's
first result is compared with the golden model's by ``==``. Run it on a quiet machine: it prints the load that it found.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import workload
from numpy.typing import NDArray
from tqdm import tqdm

from hw.sources import BUILD

REPORT = BUILD / "reports" / "emulator.json"
BOARD = "zcu104"
"""Whose program the emulator runs; the integers are the same for all."""
OURS, YARDSTICK = "emulator", "ONNX Runtime int8"
BAR = 0.8
"""The emulator must reach this share of the yardstick's speed, whatever the threads and the batch."""
IMAGES_A_TURN = 8
"""At batch 1 a turn runs this many images, one by one."""

Images = NDArray[np.uint8]
Run = Callable[[Images], Any]


def emulator(version: str, threads: int) -> Run:
    """The program on the emulator's engine, from packed images; refuses to be measured when it is wrong."""
    from driver.emulator import Engine

    program = workload.program(BOARD, version)
    engine = Engine.of(program, threads)
    jets = workload.jet_sample(1)
    if not np.array_equal(engine.run_images(program, jets)[0], golden(program, jets[0])):
        raise AssertionError("the emulator does not give the golden model's integers")
    packed: dict[int, Images] = {}

    def run(images: Images) -> Any:
        if len(images) not in packed:
            packed[len(images)] = np.stack([program.pack_image(image) for image in images])
        return engine.run(packed[len(images)])

    return run


def golden(program: Any, image: Images) -> NDArray[Any]:
    """The integer features by the golden model."""
    from driver.golden import GoldenDevice
    from driver.runtime import Npu

    with Npu(GoldenDevice(program.config)) as npu:
        npu.load(program)
        return npu.run(image).result


def onnx_int8(version: str, threads: int) -> Run:
    """ONNX Runtime on a graph of QLinearConv and QLinearAdd, as its quantiser writes them."""
    from onnx_int8 import resnet50

    from driver.onnx_runtime import session

    network = session(resnet50(version), threads)
    return lambda images: network.run(None, {"image": np.ascontiguousarray(images.transpose(0, 3, 1, 2))})


def keras(version: str, threads: int) -> Run:
    """The float network with batch normalisation folded, as a compiled TensorFlow function."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from quantize import resnet

    model = resnet.folded(resnet.ResNetConfig(version=version))  # type: ignore[arg-type]
    compiled = tf.function(lambda x: model(x, training=False))
    return lambda images: compiled(tf.constant(images, tf.float32) / 256).numpy()


CONTESTANTS: dict[str, Callable[[str, int], Run]] = {OURS: emulator, YARDSTICK: onnx_int8, "Keras float32": keras}


class Contestant:
    """One contestant in a process of its own, bound to ``threads`` cores."""

    def __init__(self, name: str, version: str, threads: int) -> None:
        self.name, self.threads = name, threads
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, version, threads), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def turn(self, batch: int) -> dict[str, float]:
        """Milliseconds an image, wall and CPU."""
        self._ours.send(batch)
        answer: dict[str, float] = self._answer()
        return answer

    def stop(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            return self._ours.recv()
        except EOFError:
            raise SystemExit(f"{self.name} failed; its message stands above") from None


def _serve(pipe: Connection, name: str, version: str, threads: int) -> None:
    """Answer every batch size with the time of a turn, until the pipe closes."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    run = CONTESTANTS[name](version, threads)
    jets = workload.jet_sample(2 * workload.JETS_PER_CLASS)
    pipe.send("ready")
    warm: set[int] = set()
    while True:
        try:
            batch = pipe.recv()
        except EOFError:
            return
        images = np.resize(jets, (batch, *jets.shape[1:]))
        if batch not in warm:
            run(images)
            warm.add(batch)
        turns = max(1, IMAGES_A_TURN // batch)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(turns):
            run(images)
        scale = 1e3 / (turns * batch)
        pipe.send({"ms": scale * (time.perf_counter() - wall), "cpu_ms": scale * (time.process_time() - cpu)})


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each contestant, number of threads and batch: medians and quartiles over the rounds, milliseconds an image."""
    rows = []
    cases = [(name, batch) for batch in options.batches for name in CONTESTANTS]
    for threads in options.threads:
        contestants = {name: Contestant(name, options.version, threads) for name in CONTESTANTS}
        samples: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in cases}
        for number in tqdm(range(options.rounds), desc=f"{threads} thread{'s' * (threads > 1)}", unit="round"):
            for name, batch in cases if number % 2 == 0 else reversed(cases):
                samples[name, batch].append(contestants[name].turn(batch))
        for contestant in contestants.values():
            contestant.stop()
        for (name, batch), taken in samples.items():
            rows.append(
                {"name": name, "threads": threads, "batch": batch, **_summary(taken, samples[YARDSTICK, batch])}
            )
    return rows


def _summary(taken: list[dict[str, float]], yardstick: list[dict[str, float]]) -> dict[str, float]:
    low, median, high = (float(v) for v in np.percentile([sample["ms"] for sample in taken], (25, 50, 75)))
    speeds = {
        key: float(np.median([other[of] / one[of] for one, other in zip(taken, yardstick, strict=True)]))
        for key, of in (("speed", "ms"), ("speed_by_cpu_time", "cpu_ms"))
    }
    cpu = float(np.median([sample["cpu_ms"] for sample in taken]))
    return {"ms": median, "ms_quartile_1": low, "ms_quartile_3": high, "cpu_ms": cpu, **speeds}


def c_simulation(version: str) -> dict[str, Any]:
    """One image through hls4ml's C simulation of the same network, which g++ compiles first."""
    from hls.vitis.csim import CSimulation
    from hls.vitis.project import convert_sized, write_project
    from quantize import checkpoint

    model = checkpoint.load_quantised(workload.network_file(version))
    simulation = CSimulation(write_project(convert_sized(model, BUILD / "resnet50" / f"csim-{version}")), optimise=3)
    begin = time.perf_counter()
    simulation.predict(workload.jet_sample(1))
    ms = 1e3 * (time.perf_counter() - begin)
    return {"name": "hls4ml C simulation", "threads": 1, "batch": 1, "ms": ms}


def show(facts: dict[str, Any]) -> None:
    """Print the table."""
    print(
        f"\nResNet-50 {facts['version']} at 224 x 224 on {facts['cpu']}, {facts['cores']} cores, {facts['rounds']} rounds"
    )
    print(
        f"{'':22}{'threads':>8}{'batch':>7}{'ms an image':>13}{'quartiles':>18}{'CPU ms':>9}{'speed':>8}{'by CPU':>8}"
    )
    for row in facts["rows"]:
        print(f"{row['name']:22}{row['threads']:8}{row['batch']:7}{row['ms']:13.1f}", end="")
        if "speed" in row:
            quartiles = f"{row['ms_quartile_1']:.1f} to {row['ms_quartile_3']:.1f}"
            print(f"{quartiles:>18}{row['cpu_ms']:9.1f}{row['speed']:7.2f}x{row['speed_by_cpu_time']:7.2f}x", end="")
        print()
    print(f"speed: against {YARDSTICK}, the median over the rounds of the ratio within one round")
    print(f"load average before and after: {facts['load_before']:.1f}, {facts['load_after']:.1f}")


def main() -> int:
    """Measure and report; returns 0 only when the emulator is fast enough."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--version", default="v1.5", choices=workload.VERSIONS, help="of ResNet-50 (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=9, help="interleaved (default: %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32], help="(default: 1 32)")
    parser.add_argument("--csim", action="store_true", help="also hls4ml's C simulation, which takes many minutes")
    parser.add_argument("--out", type=Path, default=REPORT, help="report (default: build/reports/emulator.json)")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if min(options.rounds, *options.threads, *options.batches) < 1 or max(options.threads) > cores:
        parser.error(f"rounds, threads and batches must be positive, and threads at most {cores}, the cores there are")

    workload.program(BOARD, options.version)  # makes it before anything is measured
    workload.jet_sample(1)
    before = os.getloadavg()[0]
    rows = measure(options)
    if options.csim:
        rows.append(c_simulation(options.version))
    facts = {
        "version": options.version,
        "cpu": _cpu(),
        "cores": cores,
        "onnxruntime": onnxruntime.__version__,
        "rounds": options.rounds,
        "load_before": before,
        "load_after": os.getloadavg()[0],
        "rows": rows,
    }
    show(facts)
    from quantize.dataset import written_whole

    with written_whole(options.out) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n")
    print(f"report: {options.out}\n")
    slow = [row for row in rows if row["name"] == OURS and row["speed"] < BAR]
    for row in slow:
        print(
            f"FAILED: {row['speed']:.2f} of the yardstick's speed with {row['threads']} threads, batch {row['batch']}; at least {BAR}"
        )
    if not slow:
        print(f"OK: at least {BAR} of the yardstick's speed in every case")
    return 1 if slow else 0


def _cpu() -> str:
    """The CPU's name."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.is_file()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
