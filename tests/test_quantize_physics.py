"""The paper's table on a small network: which rows there are, that the NPU's is the quantised one, and what is said of missing ones."""

import json

import numpy as np
import physics
import pytest
from test_quantize_command import learnable_jets

from quantize import checkpoint, dataset, float_network, resnet
from quantize.classifier import Classifier
from quantize.fold import ConvWeights
from quantize.pipeline import quantise

CONFIG = resnet.ResNetConfig(stages=(1, 1), width=8, size=32)
SEED = 89


def random_classifier(seed):
    rng = np.random.default_rng(seed)
    shapes = ((CONFIG.features, 5), (5,), (5, 2), (2,))
    return Classifier(*(rng.standard_normal(shape).astype(np.float32) for shape in shapes))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """All four stages of an untrained network, and jets."""
    folder = tmp_path_factory.mktemp("workshop")
    rng = np.random.default_rng(SEED)
    weights = {
        conv.name: ConvWeights(
            (np.sqrt(2 / (conv.kernel**2 * conv.inputs)) * rng.standard_normal(conv.weights_shape)).astype(np.float32),
            (0.1 * rng.standard_normal(conv.filters)).astype(np.float32),
        )
        for conv in CONFIG.convs
    }
    network = float_network.FloatNetwork(CONFIG, weights, random_classifier(SEED))
    float_network.save(folder / "float.npz", network)
    quantised = quantise(network, rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)).network
    for name, seed in (("calibrated", SEED), ("finetuned", SEED + 1), ("network", SEED + 2)):
        checkpoint.save(folder / f"{name}.npz", checkpoint.Checkpoint(quantised, random_classifier(seed)))
    for seed, (split, count) in enumerate({"train": 60, "test": 40}.items()):
        jets = learnable_jets(count, seed)
        jets.is_top[::5] ^= 1  # no tagger is right always: errors of AUCs of 1 would be 0
        dataset.write(folder / "jets" / f"{split}.h5", jets, split)
    return folder


def test_every_stage_has_a_row_with_errors_and_the_npu_equals_the_quantised_network(workshop, tmp_path, capfd):
    assert physics.main(["--workshop", f"{workshop}", "--out", f"{tmp_path}"]) == 0, capfd.readouterr().err
    printed = capfd.readouterr().out
    assert "NPU row == fine-tuned row, exactly" in printed and "missing" not in printed
    assert "eager QKeras == emulator: 2560 features of 40 jets, equal as integers" in printed
    written = json.loads((tmp_path / "physics.json").read_text())
    assert list(written["rows"]) == [*physics.PAPER, physics.TREES]
    assert all(row["auc"]["error"] > 0 for row in written["rows"].values())
    assert written["rows"]["NPU"] == written["rows"]["quantised, fine-tuned"]
    assert written["rows"]["NPU"] != written["rows"]["NPU, classifier re-fit"]
    assert {"roc.png", "table1.png"} <= {path.name for path in tmp_path.iterdir()}


def test_the_rows_by_pytorch_are_those_by_keras(workshop, tmp_path, capfd):
    rows = {}
    for framework in ("keras", "torch"):
        out = tmp_path / framework
        command = ["--workshop", f"{workshop}", "--out", f"{out}", "--framework", framework]
        assert physics.main(command) == 0, capfd.readouterr().err
        rows[framework] = json.loads((out / "physics.json").read_text())["rows"]
    printed = capfd.readouterr().out
    assert "PyTorch == emulator: 2560 features of 40 jets, equal as integers" in printed
    assert "PyTorch == eager QKeras: 1024 features of 16 jets" in printed
    for name in ("quantised", "quantised, fine-tuned", "NPU", "NPU, classifier re-fit"):
        assert rows["torch"][name] == rows["keras"][name]
    assert rows["torch"]["floating point"]["auc"]["value"] == pytest.approx(
        rows["keras"]["floating point"]["auc"]["value"], abs=1e-2
    )


def test_without_a_workshop_the_shipped_network_is_measured_and_the_missing_stages_are_named(
    workshop, tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(checkpoint, "DEMO", workshop / "network.npz")
    arguments = ["--workshop", f"{tmp_path}/none", "--jets", f"{workshop}/jets", "--out", f"{tmp_path}/out"]
    assert physics.main(arguments) == 0, capfd.readouterr().err
    printed = capfd.readouterr().out
    assert "the one that ships takes the place of network.npz" in printed and printed.count("not measured") == 4
    for stage, step in (("float", "train"), ("calibrated", "calibrate"), ("finetuned", "finetune")):
        assert f"missing: {stage}.npz; `python -m quantize {step} --out {tmp_path}/none` makes it" in printed
    rows = json.loads((tmp_path / "out" / "physics.json").read_text())["rows"]
    assert list(rows) == ["NPU, classifier re-fit", physics.TREES]


def test_one_unequal_feature_fails_and_leaves_no_figures(workshop, tmp_path, capfd, monkeypatch):
    on_device = physics.Bench.on_device

    def wrong(self, *arguments):
        sums = on_device(self, *arguments)
        sums[7, 3] += 1
        return sums

    monkeypatch.setattr(physics.Bench, "on_device", wrong)
    assert physics.main(["--workshop", f"{workshop}", "--out", f"{tmp_path}"]) == 1
    assert "eager QKeras == emulator fails for 1 of 40 jets, first jet 7" in capfd.readouterr().err
    assert not (tmp_path / "physics.json").exists()


def test_the_error_of_a_difference_is_that_of_the_same_jets():
    from quantize.evaluate import auc_difference, evaluate

    rng = np.random.default_rng(SEED)
    labels = np.repeat([0, 1], 300)
    score = rng.normal(1.5 * labels)
    near = score + 0.05 * rng.standard_normal(600)
    found = auc_difference(labels, near, score, rounds=50)
    assert found.value == pytest.approx(evaluate(labels, near).auc.value - evaluate(labels, score).auc.value)
    assert 0 < found.error < 0.3 * evaluate(labels, score).auc.error, f"seed {SEED}"
