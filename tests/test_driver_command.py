"""`python -m driver`: the command line, run as a user runs it."""

from pathlib import Path

import numpy as np
import pytest
from random_networks import feature_sums, featurizer, featurizer_layers, random_image

from driver.__main__ import main

PROGRAM = featurizer(8)
IMAGES = np.stack([random_image(np.random.default_rng(seed), PROGRAM) for seed in range(3)])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    PROGRAM.save(tmp_path / "net.npu")
    np.save(tmp_path / "images.npy", IMAGES)
    return tmp_path


def test_run_prints_a_line_an_image_and_writes_the_results(files: Path, capsys: pytest.CaptureFixture):
    out = files / "results.npz"
    assert main(["run", "--program", f"{files}/net.npu", "--images", f"{files}/images.npy", "--out", str(out)]) == 0
    assert len([line for line in capsys.readouterr().out.splitlines() if line.split()[0].isdigit()]) == 3
    with np.load(out) as stored:
        expected = [feature_sums(featurizer_layers(8), image) for image in IMAGES]
        assert np.array_equal(stored["result"], expected)
        assert np.array_equal(stored["features"], [PROGRAM.features(e) for e in expected])


def test_check_compares_with_the_golden_model(files: Path, capsys: pytest.CaptureFixture):
    arguments = ["run", "--program", f"{files}/net.npu", "--images", f"{files}/images.npy", "--count", "2", "--check"]
    assert main(arguments) == 0
    assert "all 2 images equal the golden model" in capsys.readouterr().out


def test_a_bad_file_is_one_clear_line(files: Path, capsys: pytest.CaptureFixture):
    assert main(["run", "--program", f"{files}/images.npy", "--images", f"{files}/images.npy"]) == 1
    assert "is not an NPU program" in capsys.readouterr().err


def test_devices_lists_what_is_installed(capsys: pytest.CaptureFixture):
    assert main(["devices"]) == 0
    assert "golden" in capsys.readouterr().out


def test_help_lists_the_commands(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert {"run", "devices"} <= set(
        capsys.readouterr().out.replace(",", " ").replace("{", " ").replace("}", " ").split()
    )
