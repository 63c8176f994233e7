"""From simulated collisions to tags over gRPC: jets, a trained network, the NPU's RTL, and an unmodified Triton client.

Every feature that comes back over the wire is compared, as an integer, with the golden model and with QKeras; one unequal feature and the
demo fails. ``make demo`` runs this; ``python examples/demo.py --help`` lists what can be varied.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: no lines about missing GPUs

import argparse
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from tritonclient.grpc import InferenceServerClient, InferInput

from driver.golden import GoldenDevice
from driver.runtime import Npu
from hls.convert import convert
from hw.program import Program
from quantize import checkpoint, dataset, jets
from quantize.images import jet_images
from quantize.plots import draw_tagged_jets

SEED = 2019
"""Of the demo's jets; no training has used it."""
STEPS = 6
CYCLES_OF = ("mac_busy", "weight_stall", "image_stall", "drain", "overhead")
"""The counters that every cycle of a run is in one of."""


@dataclass(frozen=True)
class Sample:
    """The demo's jets: images uint8 [n, size, size, 3] and is_top bool [n], top and QCD in turns."""

    images: NDArray[np.uint8]
    is_top: NDArray[np.bool_]


@dataclass(frozen=True)
class Tagged:
    """What the service answered, one row a jet, and how long each call took."""

    p_top: NDArray[np.float32]
    sums: NDArray[np.int32]
    features: NDArray[np.float32]
    counters: dict[str, NDArray[np.uint32]]
    milliseconds: NDArray[np.float64]


def main() -> int:
    """Run the demo; returns 0 only when every feature was equal at every level."""
    options = parse_arguments()
    warnings.filterwarnings("ignore", module="keras.*")  # what QKeras makes Keras say about its quantisers
    trained = checkpoint.load(options.network)

    step(1, "jets")
    sample = read_jets(options, trained.network.config.size)
    step(2, f"network {options.network.name}: hls4ml compiles it for the NPU of {options.board!r}")
    model = checkpoint.to_keras(trained.network)
    program = compile_network(model, options)
    step(3, f"{len(sample.images)} jets through eager QKeras")
    eager = eager_sums(model, sample.images, program)
    step(4, "the same through the integer golden model")
    golden = golden_sums(program, sample.images)
    step(5, f"the same through the gRPC service on device {options.device!r}, with tritonclient")
    with running_service(options) as address:
        tagged = tag(address, sample.images)
    step(6, "the answers")
    print_table(sample, tagged, golden, program)
    picture = options.out / "jets.png"
    draw_tagged_jets(sample.images, sample.is_top.astype(int), tagged.p_top, picture)
    print(f"picture: {picture}")
    return verdict(eager, golden, tagged, program, options.device)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", type=Path, default=checkpoint.DEMO, help="trained artefact (.npz)")
    parser.add_argument("--board", default="sim-small", help="configuration in hw/boards (default: %(default)s)")
    parser.add_argument(
        "--device", default="rtl", help="rtl: the Verilated NPU; golden: its model (default: %(default)s)"
    )
    parser.add_argument("--jets", type=int, default=20, help="how many to send (default: %(default)s)")
    parser.add_argument("--jet-file", type=Path, help="take them from this HDF5 file (public layout), not from Pythia")
    parser.add_argument(
        "--out", type=Path, default=Path("build/demo"), help="folder for results (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.jets < 2:
        parser.error("--jets must be at least 2: one of each kind")
    return options


def step(number: int, text: str) -> None:
    """Say what happens now."""
    print(f"\n[{number}/{STEPS}] {text}", flush=True)


def read_jets(options: argparse.Namespace, size: int) -> Sample:
    """Jets that no training has seen, as images; generates them when there are none."""
    each = (options.jets + 1) // 2
    path = options.jet_file
    if path is None:
        folder = options.out / f"jets-{each}"
        path = folder / "test.h5"
        if not path.is_file():
            jets.generate(folder, jets.Recipe(seed=SEED, batches_per_chunk=1), each, {"test": 1.0})
    found = dataset.read(path)
    tops, qcd = np.flatnonzero(found.is_top == 1)[:each], np.flatnonzero(found.is_top == 0)[:each]
    if len(tops) < each or len(qcd) < each:
        raise SystemExit(f"{path} has only {len(tops)} top and {len(qcd)} QCD jets: ask for fewer with --jets")
    chosen = found[np.stack([tops, qcd], axis=1).reshape(-1)[: options.jets]]
    print(f"{len(chosen)} jets from {path}")
    return Sample(jet_images(chosen.constituents, size), chosen.is_top == 1)


def compile_network(model: Any, options: argparse.Namespace) -> Program:
    """The QKeras network as a program file, through hls4ml and the NPU backend."""
    convert(model, "NPU", output_dir=str(options.out), name="demo", board=options.board).write()
    program = Program.load(program_path(options))
    print(
        f"{program_path(options)}: {len(program.layer_names)} layers, {program.macs / 1e6:.1f} M multiply-accumulates"
    )
    return program


def program_path(options: argparse.Namespace) -> Path:
    """Where the program file lies."""
    return Path(options.out) / "demo.npu"


def eager_sums(model: Any, images: NDArray[np.uint8], program: Program) -> NDArray[np.int64]:
    """The features of QKeras, called eagerly (its predict() rounds elsewhere), as the integers they stand for: [n, channels]."""
    output = program.output
    rows = []
    with tqdm(total=len(images), unit="jet") as bar:
        for batch in np.array_split(images, -(-len(images) // 5)):
            rows.append(model((batch / 256).astype(np.float32), training=False).numpy())
            bar.update(len(batch))
    sums = np.concatenate(rows).astype(np.float64) * output.divisor * 2.0**output.fraction_bits
    return np.rint(sums).astype(np.int64)


def golden_sums(program: Program, images: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The integers of the golden model, [n, channels]."""
    with Npu(GoldenDevice(program.config)) as npu:
        npu.load(program)
        return np.stack([npu.run(image).result for image in tqdm(images, unit="jet")])


@contextmanager
def running_service(options: argparse.Namespace) -> Iterator[str]:
    """The service as a process of its own; yields "host:port"."""
    command = [sys.executable, "-m", "host_service", "serve", "--port", "0", "--device", options.device]
    command += ["--program", str(program_path(options)), "--classifier", str(options.network)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the service did not start (exit status {process.wait()}); its message stands above")
        print(line.strip())
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def tag(address: str, images: NDArray[np.uint8]) -> Tagged:
    """Send the images one by one with the stock Triton client."""
    rows: dict[str, list[NDArray[Any]]] = {}
    milliseconds = []
    client = InferenceServerClient(address)
    columns = client.get_model_config("tagger").config.parameters["npu_counters"].string_value.split(",")
    for image in tqdm(images, unit="jet"):
        tensor = InferInput("image", [1, *image.shape], "UINT8")
        tensor.set_data_from_numpy(image[None])
        begin = time.perf_counter()
        answer = client.infer("tagger", [tensor])
        milliseconds.append(1e3 * (time.perf_counter() - begin))
        for name in ("probabilities", "feature_sums", "features", "npu_counters"):
            rows.setdefault(name, []).append(answer.as_numpy(name)[0])
    client.close()
    tables = {name: np.stack(values) for name, values in rows.items()}
    return Tagged(
        p_top=tables["probabilities"][:, 1],
        sums=tables["feature_sums"],
        features=tables["features"],
        counters=dict(zip(columns, tables["npu_counters"].T, strict=True)),
        milliseconds=np.array(milliseconds),
    )


def print_table(sample: Sample, tagged: Tagged, golden: NDArray[np.int32], program: Program) -> None:
    """One line a jet."""
    cycles = tagged.counters["cycles"].astype(np.int64)
    print(
        f"{'jet':>4} {'truth':>6} {'P(top)':>7} {'features equal':>15} {'NPU cycles':>11} {'MAC use':>8} {'latency':>11}"
    )
    for n, top in enumerate(sample.is_top):
        equal = f"{np.count_nonzero(tagged.sums[n] == golden[n])}/{golden.shape[1]}"
        use = f"{program.macs / (cycles[n] * program.config.macs):8.1%}" if cycles[n] else f"{'-':>8}"
        truth = "top" if top else "QCD"
        print(
            f"{n:4} {truth:>6} {tagged.p_top[n]:7.3f} {equal:>15} {cycles[n] or '-':>11} {use} {tagged.milliseconds[n]:8.1f} ms"
        )
    right = np.count_nonzero((tagged.p_top > 0.5) == sample.is_top)
    print(f"{right} of {len(sample.is_top)} jets tagged right at P(top) = 0.5")


def verdict(eager: NDArray[np.int64], golden: NDArray[np.int32], tagged: Tagged, program: Program, device: str) -> int:
    """Say whether every level gave the same integers, and what it cost; 0 when they did."""
    rungs = {
        "eager QKeras == golden model": eager == golden,
        f"golden model == {device} over gRPC": golden == tagged.sums,
        "real features == sums / pixels / scale": program.features(golden) == tagged.features,
    }
    for text, equal in rungs.items():
        print(f"{text:40} {np.count_nonzero(equal):6} of {equal.size}  {'equal' if equal.all() else 'UNEQUAL'}")
    if not all(equal.all() for equal in rungs.values()):
        print("FAILED: the levels disagree")
        return 1
    cycles, array = tagged.counters["cycles"].astype(np.int64).mean(), program.config
    print(f"OK: {len(golden)} jets, every feature equal at every level")
    if cycles:
        use = program.macs / (cycles * array.macs)
        print(f"    {cycles:,.0f} NPU cycles a jet: {use:.1%} of what {array.cp} x {array.kp} multipliers could do")
        parts = {name: tagged.counters[name].mean() / cycles for name in CYCLES_OF}
        print(f"    of which {', '.join(f'{name} {share:.1%}' for name, share in parts.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
