"""What goes into a board's archive: overlay, program, classifier, jets to try it on, notebook, service, installer and our wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from driver.deploy.archive import MOMENT, npz_bytes, write_archive
from driver.golden import GoldenDevice
from driver.runtime import Npu
from hw.board import Board, VitisBuild, VivadoBuild, load_board
from hw.isa import VERSION, ConfigurationError
from hw.program import Program, ProgramError
from hw.sources import ROOT
from hw.synth.hwh import hwh_text

HERE = Path(__file__).parent
NOTEBOOK = ROOT / "examples" / "notebooks" / "quarkwave.ipynb"
BUILD_TOOL = "setuptools==80.10.2"
"""What builds the wheel; its version stands in the wheel, so another one makes other bytes."""


class PackageError(RuntimeError):
    """The archive could not be made; the message says what to do."""


@dataclass(frozen=True)
class Sample:
    """Jets that come with the archive: images uint8 [n, size, size, 3], is_top bool [n]."""

    images: NDArray[np.uint8]
    is_top: NDArray[np.bool_]


def package(
    board_name: str,
    program: Program,
    classifier: Path,
    sample: Sample,
    out: Path,
    *,
    wheel: Path | None = None,
    synthesised: Path = ROOT / "build" / "synth",
) -> Path:
    """Write ``out``/quarkwave-<version>-<board>.tar.gz and return its path; the same inputs give the same bytes.

    ``classifier``: an .npz with the classifier (a checkpoint has it). ``wheel``: ours; built from the sources where there is none.
    ``synthesised``: where ``make synth`` leaves bitstreams. Raises ConfigurationError for a board that no driver knows, ProgramError
    when the program was compiled for another one, ValueError for a bad classifier, PackageError when the wheel cannot be built.
    """
    board = load_board(board_name)
    if board.build is not None and not isinstance(board.build, VivadoBuild | VitisBuild):
        raise ConfigurationError(
            f"{board_name} has no processor that could run the driver: nothing can be installed on it"
        )
    if program.config != board.array:
        raise ProgramError(
            f"program {program.name!r} was compiled for {program.config.name!r}: compile it for {board_name!r}"
        )
    overlay, bitstream = overlay_files(board, synthesised / board_name)
    files = {f"overlay/{name}": data for name, data in overlay.items()}
    files |= {
        "model/program.npu": program.to_bytes(),
        "model/classifier.npz": npz_bytes(_classifier_arrays(classifier)),
        "notebook/jets.npz": npz_bytes(
            {"images": sample.images, "is_top": sample.is_top, "sums": golden_sums(program, sample.images)}
        ),
        "notebook/quarkwave.ipynb": NOTEBOOK.read_bytes(),
    }
    for name in ("install.sh", "serve", "quarkwave.toml", "quarkwave.service"):
        files[name] = (HERE / name).read_bytes()
    with tempfile.TemporaryDirectory(prefix="quarkwave-") as folder:
        wheel = wheel or build_wheel(Path(folder))
        files[wheel.name] = wheel.read_bytes()
    release = version("quarkwave")
    facts = {
        "version": release,
        "board": board_name,
        "isa": str(VERSION),
        "program": program.name,
        "bitstream": bitstream,
    }
    top = f"quarkwave-{release}-{board_name}"
    return write_archive(out / f"{top}.tar.gz", top, facts, files)


def overlay_files(board: Board, synthesised: Path) -> tuple[dict[str, bytes], str]:
    """The bitstream that ``make synth`` has left in ``synthesised``, and its handoff; and a sentence on the bitstream.

    Without a bitstream a Zynq board gets the handoff that its board file implies. A bitstream's own is never replaced by that.
    """
    if board.build is None:
        return {}, f"none: {board.name} is an array for simulation"
    missing = f"none: make it with `make synth BOARD={board.name}`, and the archive again with `make package BOARD={board.name}`"
    if isinstance(board.build, VitisBuild):
        xclbin = synthesised / "npu.xclbin"
        return ({"quarkwave.xclbin": xclbin.read_bytes()}, "yes") if xclbin.is_file() else ({}, missing)
    bit, hwh = synthesised / "npu.bit", synthesised / "npu.hwh"
    if not bit.is_file():
        return {"quarkwave.hwh": hwh_text(board).encode()}, missing
    if not hwh.is_file():
        raise PackageError(f"{bit} lacks its npu.hwh: `make synth BOARD={board.name}` makes both")
    return {"quarkwave.bit": bit.read_bytes(), "quarkwave.hwh": hwh.read_bytes()}, "yes"


def golden_sums(program: Program, images: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The integers that every right answer has, int32 [n, channels], from the golden model."""
    with Npu(GoldenDevice(program.config)) as npu:
        npu.load(program)
        return np.stack([npu.run(image).result for image in tqdm(images, desc="expected features", unit="jet")])


def demo_jets(size: int, folder: Path, each: int = 10) -> Sample:
    """``each`` top and QCD jets in turns, of ``size`` x ``size`` pixels; generated into ``folder`` when they are not there."""
    from quantize import dataset, jets  # Pythia and pandas: not on a board
    from quantize.images import jet_images

    path = folder / "test.h5"
    if not path.is_file():
        jets.generate(folder, jets.Recipe(seed=2019, batches_per_chunk=1), each, {"test": 1.0})
    found = dataset.read(path)
    tops, qcd = (np.flatnonzero(found.is_top == label)[:each] for label in (1, 0))
    chosen = found[np.stack([tops, qcd], axis=1).reshape(-1)]
    return Sample(jet_images(chosen.constituents, size), chosen.is_top == 1)


def build_wheel(out: Path) -> Path:
    """Our wheel, built in ``out`` from a copy of the sources, so that nothing of an earlier build can get into it."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="quarkwave-") as folder:
        sources, constraint = Path(folder) / "sources", Path(folder) / "constraint.txt"
        _copy_sources(sources)
        constraint.write_text(f"{BUILD_TOOL}\n")
        command = [sys.executable, "-m", "uv", "build", "--quiet", "--system-certs", "--wheel", "--out-dir", str(out)]
        command += ["--no-create-gitignore", "--python", sys.executable, "--build-constraints", str(constraint)]
        done = subprocess.run(
            [*command, str(sources)],
            env={**os.environ, "SOURCE_DATE_EPOCH": str(MOMENT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    wheels = sorted(out.glob(f"quarkwave-{version('quarkwave')}-*.whl"))
    if done.returncode or len(wheels) != 1:
        raise PackageError(f"the wheel could not be built:\n{done.stdout[-2000:]}")
    return wheels[0]


def _copy_sources(target: Path) -> None:
    """pyproject.toml, what it names, and every package; the same modes everywhere, since they stand in the wheel."""
    if not (ROOT / "pyproject.toml").is_file():
        raise PackageError("archives are made in a checkout of the repository: there is no pyproject.toml here")
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, target / name)
    for name in _packages():
        shutil.copytree(
            ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile
        )
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _packages() -> Iterable[str]:
    return sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "build")


def _classifier_arrays(path: Path) -> dict[str, NDArray]:
    """Those of a trained artefact that the service reads, under their names there."""
    from quantize.classifier import load_classifier

    load_classifier(path)  # complains where there is something to complain about
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files if name.startswith("classifier/")}
