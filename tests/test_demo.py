"""The demo, run as a user runs it, on the golden device and a small network; and that it fails when one feature is wrong."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from random_networks import CHANNELS, featurizer
from running_service import random_classifier

from quantize import checkpoint, dataset, resnet

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"
FEATURES = 64


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random network with a classifier, and a file of made-up jets in the public layout."""
    folder = tmp_path_factory.mktemp("demo")
    network = checkpoint.random_quantised(resnet.ResNetConfig(stages=(1, 1), width=8, size=32), seed=1)
    checkpoint.save(folder / "net.npz", checkpoint.Checkpoint(network, random_classifier(1, FEATURES)))
    rng = np.random.default_rng(1)
    momenta = rng.normal([600, 0, 0], 40, (6, 30, 3)).astype(np.float32)
    constituents = np.zeros((6, dataset.CONSTITUENTS, 4), np.float32)
    constituents[:, :30, 1:] = momenta
    constituents[:, :30, 0] = np.linalg.norm(momenta, axis=-1)
    jets = dataset.Jets(constituents, np.array([0, 0, 0, 1, 1, 1]), np.zeros((6, 4), np.float32))
    dataset.write(folder / "jets.h5", jets, "test")
    return folder


def test_the_demo_runs_from_jets_to_tags_and_a_picture(files: Path):
    command = [
        sys.executable,
        str(DEMO),
        "--network",
        f"{files}/net.npz",
        "--jet-file",
        f"{files}/jets.h5",
        "--jets",
        "5",
    ]
    command += ["--device", "golden", "--out", f"{files}/out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=DEMO.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(rf"^ *\d+ +(top|QCD) +(0|1)\.\d+ +{FEATURES}/{FEATURES} ", done.stdout, re.MULTILINE)
    assert [truth for truth, _ in rows] == ["top", "QCD", "top", "QCD", "top"]
    assert done.stdout.count(f"{5 * FEATURES} of {5 * FEATURES}  equal") == 3
    assert "OK: 5 jets, every feature equal at every level" in done.stdout
    assert (files / "out" / "jets.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_with_too_few_jets_is_refused(demo: ModuleType, files: Path):
    with pytest.raises(SystemExit, match="has only 3 top and 3 QCD jets: ask for fewer"):
        demo.read_jets(SimpleNamespace(jets=20, jet_file=files / "jets.h5"), 32)


@pytest.mark.parametrize("rung", ["eager", "golden", "sums", "features"])
def test_one_wrong_feature_anywhere_fails_the_demo(demo: ModuleType, rung: str, capsys: pytest.CaptureFixture):
    program = featurizer(1)
    sums = np.random.default_rng(1).integers(0, 9000, (3, CHANNELS)).astype(np.int32)

    def verdict() -> int:
        values = {
            "eager": sums.astype(np.int64),
            "golden": sums.copy(),
            "sums": sums.copy(),
            "features": program.features(sums),
        }
        if wrong:
            values[wrong][1, 2] += 1
        counters = {name: np.full(3, 9000, np.uint32) for name in ("cycles", *demo.CYCLES_OF)}
        tagged = SimpleNamespace(sums=values["sums"], features=values["features"], counters=counters)
        return demo.verdict(values["eager"], values["golden"], tagged, program, "rtl")

    wrong = ""
    assert verdict() == 0
    wrong = rung
    assert verdict() == 1
    assert "UNEQUAL" in capsys.readouterr().out
