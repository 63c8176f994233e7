"""The paper's Table 1 and Fig. 4 on our jets: float, quantised, fine-tuned, on the NPU, with the classifier re-fit, and boosted trees.

Every row carries its statistical error and stands beside the paper's (Duarte et al., arXiv:1904.08986), which was measured on other
jets. The NPU's features are the integers of a device, by default the bit-exact emulator, and are compared with eager QKeras, integer
by integer; one that differs and the run fails. ``make physics`` runs this.

A folder made by ``python -m quantize demo-net --out FOLDER`` has all rows. Rows whose file is not there are named, with the
command that makes it; with no such folder at all, the network that ships is measured on jets that are made for it.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: no lines about missing GPUs

import argparse
import json
import sys
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from driver.device import DeviceError
from hls.convert import convert
from host_service.client import open_npu
from hw.program import Program
from quantize import boosted_tree, checkpoint, dataset, float_network, jets, plots, torch_train, train
from quantize.dataset import Jets, written_whole
from quantize.evaluate import Performance, auc_difference, evaluate
from quantize.pipeline import CALIBRATED, FINETUNED, FLOAT, NETWORK, STAGES
from quantize.torch_network import Featurizer, Folded, Quantised
from quantize.torch_pipeline import FEATURES
from quantize.train import LabelledImages

PAPER = {
    "floating point": (0.9009, 0.9797, 670.8),
    "quantised": (0.8413, 0.9754, 414.6),
    "quantised, fine-tuned": (0.9296, 0.9825, 970.7),
    "NPU": (0.9257, 0.9821, 934.8),
    "NPU, classifier re-fit": (0.9348, 0.9830, 999.6),
}
"""Accuracy, AUC and 1/eB at eS = 30 % of the paper's Table 1; its NPU is Brainwave."""
TREES = "boosted trees, no images"
COMPARED = (
    ("quantised", "floating point"),
    ("quantised, fine-tuned", "floating point"),
    ("NPU, classifier re-fit", "floating point"),
    ("NPU, classifier re-fit", TREES),
)
"""Rows whose AUCs are subtracted; each with the error of the difference, by bootstrap over the same jets."""
FRESH = jets.Recipe(seed=7200)
"""Of jets that are made when there are none; no training has used it."""
WITNESSED = 16
"""How many jets go through eager QKeras where PyTorch computes the rows."""
JETS_PER_CLASS = 5_000
SPLIT = {"train": 0.5, "test": 0.5}


@dataclass(frozen=True)
class Row:
    """A tagger on the test jets: P(top) [n], and what it reached."""

    p_top: NDArray
    performance: Performance


@dataclass
class Bench:
    """The test jets, the rows measured on them so far, and how to measure more."""

    test: Jets
    board: str
    device: str
    out: Path
    rtl: int = 0
    """How many jets to send through the RTL as well."""
    framework: str = "keras"
    """What computes the rows that are not the NPU's; torch, which is faster, is compared with eager QKeras on a few jets."""
    kept: Path = Path("build/physics/features")
    """Folder of the features that PyTorch has computed."""
    rows: dict[str, Row] = field(default_factory=dict)
    _drawn: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    _last: tuple[checkpoint.QuantisedNetwork, NDArray[np.float32], NDArray[np.float32]] | None = None

    def add(self, name: str, p_top: NDArray) -> None:
        """Measure a row."""
        self.rows[name] = Row(p_top, evaluate(self.test.is_top, p_top))
        print(f"{name}: {self.rows[name].performance}", flush=True)

    def add_float(self, path: Path) -> None:
        """The float network's row."""
        network = float_network.load(path)
        if network.classifier is None:
            raise ValueError(f"{path} has no classifier: there is no row to measure")
        planes = self.images(network.config.size)
        if self.framework == "torch":
            features = self._by_torch(Folded(network.config, network.weights), planes)
        else:
            features = train.features(network.to_keras(), planes)
        self.add("floating point", network.classifier.probabilities(features)[:, 1])

    def add_quantised(self, path: Path, exact_name: str | None, npu_name: str | None) -> None:
        """A quantised network's row by QKeras, and by the NPU with the same classifier; None leaves one out.

        Raises ValueError when the two do not have the same features, as integers.
        """
        trained = checkpoint.load(path)
        if trained.classifier is None:
            raise ValueError(f"{path} has no classifier: there is no row to measure")
        exact, on_npu = self._features(trained.network, path, npu_name is not None)
        if exact_name:
            self.add(exact_name, trained.classifier.probabilities(exact)[:, 1])
        if npu_name:
            self.add(npu_name, trained.classifier.probabilities(on_npu)[:, 1])

    def _features(
        self, network: checkpoint.QuantisedNetwork, path: Path, npu: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features [n, features] by eager QKeras, and (with `npu`; else empty) by the device from its own integers."""
        if self._last is not None and _same(self._last[0], network):
            return self._last[1:]  # re-fitting a classifier leaves the featurizer as it was
        model = checkpoint.to_keras(network)
        planes = self.images(network.config.size)
        exact = self._exact(network, model, planes)
        if not npu:
            return exact, exact[:0]
        convert(model, "NPU", output_dir=str(self.out), name=path.stem, board=self.board).write()
        program = Program.load(self.out / f"{path.stem}.npu")
        sums = self.on_device(self.device, program, planes)
        exact_by = "eager QKeras" if self.framework == "keras" else "PyTorch"
        must_be_equal(f"{path.name}: {exact_by} == {self.device}", _sums(exact, program), sums)
        if self.rtl:
            found = self.on_device("rtl", program, planes[: self.rtl])
            must_be_equal(f"{path.name}: {self.device} == rtl", sums[: self.rtl], found)
        self._last = (network, exact, program.features(sums))
        return self._last[1:]

    def _exact(
        self, network: checkpoint.QuantisedNetwork, model: Any, planes: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """The exact features [n, features] of the network, of which `model` is the QKeras twin."""
        if self.framework == "keras":
            return train.features(model, planes)
        exact = self._by_torch(Quantised.of(network), planes)
        must_be_equal("PyTorch == eager QKeras", exact[:WITNESSED], train.features(model, planes[:WITNESSED]))
        return exact

    def _by_torch(self, featurizer: Featurizer, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The features by PyTorch, kept where `python -m quantize refit` keeps them: what it computed need not be computed again."""
        return torch_train.kept_features(featurizer.to(torch_train.best_device()), planes, self.kept)

    def images(self, size: int) -> NDArray[np.uint8]:
        """One channel of the test jets' images, uint8 [n, size, size]; drawn once a size."""
        if size not in self._drawn:
            self._drawn[size] = LabelledImages.of(self.test.constituents, self.test.is_top, size).planes
        return self._drawn[size]

    def on_device(self, device: str, program: Program, planes: NDArray[np.uint8]) -> NDArray[np.int32]:
        """The feature sums of a device, int32 [n, features]."""
        with open_npu(device, program) as npu:
            images = (np.repeat(plane[..., None], 3, axis=-1) for plane in planes)
            found = tqdm(npu.run_many(images), desc=device, total=len(planes), unit="jet", leave=False)
            return np.stack([result.result for result in found])


def must_be_equal(what: str, one: NDArray, other: NDArray) -> None:
    """Compare integers [n, features]; says so when they are equal, and raises ValueError when not."""
    wrong = np.flatnonzero((one != other).any(axis=1))
    if len(wrong):
        raise ValueError(f"{what} fails for {len(wrong)} of {len(one)} jets, first jet {wrong[0]}")
    print(f"{what}: {one.size} features of {len(one)} jets, equal as integers", flush=True)


def _same(one: checkpoint.QuantisedNetwork, other: checkpoint.QuantisedNetwork) -> bool:
    """Whether two featurizers are the same, integer by integer."""
    return (one.config, one.fractions) == (other.config, other.fractions) and all(
        np.array_equal(mine[name], theirs[name])
        for mine, theirs in ((one.kernels, other.kernels), (one.biases, other.biases))
        for name in mine
    )


def _sums(features: NDArray[np.float32], program: Program) -> NDArray[np.int64]:
    """The integers that QKeras's features stand for."""
    output = program.output
    return np.rint(features.astype(np.float64) * output.divisor * 2.0**output.fraction_bits).astype(np.int64)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and draw; returns the exit status."""
    options = _parse(arguments)
    warnings.filterwarnings("ignore", module="keras.*")  # what QKeras makes Keras say about its quantisers
    try:
        _run(options)
    except (FileNotFoundError, ValueError, DeviceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    files = {stage: getattr(options, Path(stage).stem) or options.workshop / stage for stage in STAGES}
    if not any(path.is_file() for path in files.values()):
        print(f"no network in {options.workshop}: the one that ships takes the place of {NETWORK}")
        files[NETWORK] = checkpoint.DEMO
    folder = options.jets or _jets_folder(options.workshop, options.out)
    bench = Bench(
        dataset.read(folder / "test.h5", options.test_jets),
        options.board,
        options.device,
        options.out,
        options.rtl,
        options.framework,
        options.workshop / FEATURES if options.workshop.is_dir() else options.out / FEATURES,
    )
    present = {stage for stage, path in files.items() if path.is_file()}
    if FLOAT in present:
        bench.add_float(files[FLOAT])
    if CALIBRATED in present:
        bench.add_quantised(files[CALIBRATED], "quantised", None)
    if FINETUNED in present:
        bench.add_quantised(files[FINETUNED], "quantised, fine-tuned", "NPU")
        exact, npu = (bench.rows[name] for name in ("quantised, fine-tuned", "NPU"))
        if exact.performance != npu.performance or not np.array_equal(exact.p_top, npu.p_top):
            raise ValueError(
                "the NPU's row differs from that of the fine-tuned network: the classifier saw other features"
            )
        print("NPU row == fine-tuned row, exactly")
    if NETWORK in present:
        bench.add_quantised(files[NETWORK], None, "NPU, classifier re-fit")
    bench.add(TREES, boosted_tree.tag(dataset.read(folder / "train.h5", options.tree_jets), bench.test))
    missing = {
        stage: f"`python -m quantize {STAGES[stage]} --out {options.workshop}` makes it, `demo-net` all of them"
        for stage in STAGES
        if stage not in present
    }
    report(bench, missing, options.out)


def report(bench: Bench, missing: dict[str, str], out: Path) -> None:
    """Print the table and what follows from it; draw and write it into `out`. missing: file and what to do about it."""
    rows, test = bench.rows, bench.test
    print(f"\n{'':25} {'accuracy':>18} {'AUC':>20} {'1/eB at eS = 30 %':>18}   the paper, on its own jets")
    for name in [*PAPER, TREES]:
        paper = "  ".join(f"{value:g}" for value in PAPER.get(name, ())) or "-"
        cells = ("not measured", "", "")
        if name in rows:
            p = rows[name].performance
            cells = (str(p.accuracy), str(p.auc), str(p.rejection or "too few QCD jets"))
        print(f"{name:25} {cells[0]:>18} {cells[1]:>20} {cells[2]:>18}   {paper}")
    print(f"{int(test.is_top.sum())} top and {int((test.is_top == 0).sum())} QCD jets; all errors are statistical")
    for stage, remedy in missing.items():
        print(f"missing: {stage}; {remedy}")
    differences = {}
    for one, other in COMPARED:
        if one in rows and other in rows:
            found = auc_difference(test.is_top, rows[one].p_top, rows[other].p_top)
            differences[f"{one} - {other}"] = asdict(found)
            print(f"AUC of {one!r} - AUC of {other!r}: {found} (the same jets)")

    curves = {name: (test.is_top, row.p_top) for name, row in rows.items()}
    plots.draw_roc(curves, out / "roc.png")
    measured = {name: row.performance for name, row in rows.items()}
    plots.draw_performance(measured, PAPER, f"{len(test)} test jets", out / "table1.png")
    values = {
        "rows": {name: asdict(performance) for name, performance in measured.items()},
        "auc_differences": differences,
        "missing": missing,
    }
    with written_whole(out / "physics.json") as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")
    print(f"pictures and figures: {out}/roc.png, table1.png, physics.json")


def _jets_folder(workshop: Path, out: Path) -> Path:
    """The jets that the network was trained and tested on; where they are not, fresh ones."""
    if (workshop / "jets" / "test.h5").is_file():
        return workshop / "jets"
    few = int(JETS_PER_CLASS * SPLIT["train"])
    print(f"no jets in {workshop}: the network meets fresh ones, and the trees have only {few} a class to learn from")
    jets.generate(out / "jets", FRESH, JETS_PER_CLASS, SPLIT, len(os.sched_getaffinity(0)))
    return out / "jets"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--workshop", type=Path, default=Path("build/demo-net"), help="folder of the stages (default: %(default)s)")
    for stage, row in zip(STAGES, ("float", "quantised", "fine-tuned", "re-fit"), strict=True):
        add(f"--{Path(stage).stem}", type=Path, help=f"the {row} network, when it is not WORKSHOP/{stage}")
    add("--jets", type=Path, help="folder of train.h5 and test.h5 (default: WORKSHOP/jets)")
    add("--test-jets", type=int, help="only the first test jets")
    add("--tree-jets", type=int, help="only the first training jets for the boosted trees")
    add("--board", default="sim-small", help="configuration in hw/boards (default: %(default)s)")
    add("--device", default="emulator", help="what computes the NPU's rows (default: %(default)s)")
    add("--rtl", type=int, default=0, help="send the first RTL jets through the RTL too (default: %(default)s)")
    add("--framework", choices=("keras", "torch"), default="keras", help="of the other rows (default: %(default)s)")
    add("--out", type=Path, default=Path("build/physics"), help="folder for results (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
