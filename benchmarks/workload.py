"""The workload that the measurements share: ResNet-50 with random weights, its programs, and jets to send through it.

Everything is made once and kept under build/resnet50, in files named after a hash of what goes into them. Only making a network or a
program imports TensorFlow.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw.isa import load_config
from hw.program import Program
from hw.sources import BUILD, ROOT
from quantize import dataset, jets
from quantize.images import jet_images

FOLDER = BUILD / "resnet50"
VERSIONS = ("v1", "v1.5")
SIZE = 224
JETS_PER_CLASS = 8
CALIBRATION_JETS = 4
RECIPE = jets.Recipe(seed=50)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no lines about missing GPUs
warnings.filterwarnings("ignore", module="keras.*")  # what QKeras makes Keras say about its quantisers


def network_file(version: str = "v1.5", seed: int = 1) -> Path:
    """The checkpoint of a ResNet-50 with random weights, its scales calibrated on jets (quantize.checkpoint.random_quantised)."""
    path = FOLDER / f"network-{version}-seed{seed}-{_network_digest()}.npz"
    if not path.is_file():
        from quantize import checkpoint, resnet

        config = resnet.ResNetConfig(size=SIZE, version=version)  # type: ignore[arg-type]
        network = checkpoint.random_quantised(config, seed, jet_sample(CALIBRATION_JETS))
        checkpoint.save(path, checkpoint.Checkpoint(network, None, {"weights": f"random, seed {seed}"}))
    return path


def program(board: str, version: str = "v1.5", seed: int = 1) -> Program:
    """That network compiled for ``board`` by hls4ml. Raises CompileError, with what is short, when it does not fit."""
    return Program.load(program_file(board, version, seed))


def program_file(board: str, version: str = "v1.5", seed: int = 1) -> Path:
    """The file of program()."""
    config = load_config(board)
    compiler = [ROOT / "hls" / "convert.py", *(ROOT / "hls" / "npu").glob("*.py")]
    compiler += [ROOT / "hw" / f"{name}.py" for name in ("image_layout", "isa", "program", "stream")]
    path = FOLDER / f"resnet50-{version}-seed{seed}-{board}-{_digest(compiler, repr(config) + _network_digest())}.npu"
    if not path.is_file():
        from hls.convert import convert
        from quantize import checkpoint

        model = checkpoint.load_quantised(network_file(version, seed))
        convert(model, "NPU", str(path.parent), path.stem, board=board).write()
    return path


def jet_sample(count: int) -> NDArray[np.uint8]:
    """Images of ``count`` simulated jets, tops and QCD mixed: uint8 [count, 224, 224, 3]. Raises ValueError for more than there are."""
    return jet_images(constituents_sample(count), SIZE)


def constituents_sample(count: int) -> NDArray[np.float32]:
    """The particles of those jets: [count, 200, 4] of E, px, py, pz in GeV, zero-padded."""
    if not 1 <= count <= 2 * JETS_PER_CLASS:
        raise ValueError(f"{count} jets: there are 1 to {2 * JETS_PER_CLASS}")
    folder = FOLDER / f"jets-{_jets_digest()}"
    if not (folder / "manifest.json").is_file():
        jets.generate(folder, RECIPE, JETS_PER_CLASS, {"test": 1.0})
    return dataset.read(folder / "test.h5", limit=count).constituents


def _jets_digest() -> str:
    return _digest(_quantize("jets", "collisions", "detector", "dataset"), repr((RECIPE, JETS_PER_CLASS)))


def _network_digest() -> str:
    sources = _quantize("resnet", "calibrate", "checkpoint", "fold", "quantisers", "images")
    return _digest(sources, f"{CALIBRATION_JETS} {_jets_digest()}")


def _quantize(*names: str) -> list[Path]:
    return [ROOT / "quantize" / f"{name}.py" for name in names]


def _digest(sources: Iterable[Path], text: str = "") -> str:
    """Twelve hexadecimal digits that change with ``text`` and with any of the files."""
    digest = hashlib.sha256(text.encode())
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
