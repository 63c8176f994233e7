"""Training in PyTorch, and the chain of commands that uses it."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_quantize_command import learnable_jets

from quantize import checkpoint, dataset, float_network, resnet, torch_train, train
from quantize.__main__ import main
from quantize.calibrate import calibrate
from quantize.fold import ConvWeights
from quantize.torch_network import Folded, Quantised, Tagger, Trainable
from quantize.train import Schedule

CONFIG = resnet.ResNetConfig(stages=(1, 1), width=4, size=16)
SEED = 41


def tagger():
    torch.manual_seed(SEED)
    return Tagger(Trainable(CONFIG), 8)


def weights(model):
    return {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()}


def test_training_learns(tmp_path):
    schedule = Schedule(4, 16, 1e-2, SEED)
    progress = torch_train.fit(tagger(), learnable_jets(256, 1), learnable_jets(64, 2), schedule, tmp_path)
    first, last = progress.curve[0], progress.curve[-1]
    assert (first["images"], last["images"]) == (0, 4 * 256)
    assert last["val_auc"] > 0.95 and last["val_auc"] > first["val_auc"], f"seed {SEED}: {progress.curve}"
    assert sum("loss" in record for record in progress.curve) == torch_train.RECORDS


def test_an_interrupted_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    jets, schedule = learnable_jets(128, 1), Schedule(2, 16, 1e-3, SEED)
    whole = tagger()
    expected = torch_train.fit(whole, jets, jets, schedule, tmp_path / "whole", "cpu")

    draw, calls = torch_train.jet_planes, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(torch_train, "CHECKPOINT_SECONDS", 0.0)  # after every batch
    monkeypatch.setattr(torch_train, "jet_planes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        torch_train.fit(tagger(), jets, jets, schedule, tmp_path / "parts", "cpu")
    monkeypatch.undo()
    resumed = tagger()
    progress = torch_train.fit(resumed, jets, jets, schedule, tmp_path / "parts", "cpu")
    assert progress.images == expected.images == 256
    ours = weights(resumed)
    for name, theirs in weights(whole).items():
        np.testing.assert_allclose(ours[name], theirs, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_finished_training_is_not_repeated(tmp_path):
    jets, schedule = learnable_jets(64, 1), Schedule(1, 16, 1e-3, SEED)
    once = torch_train.fit(tagger(), jets, jets, schedule, tmp_path)
    assert torch_train.fit(tagger(), jets, jets, schedule, tmp_path) == once


def test_more_epochs_take_a_finished_training_further(tmp_path):
    jets = learnable_jets(64, 1)
    once = torch_train.fit(tagger(), jets, jets, Schedule(1, 16, 1e-3, SEED), tmp_path)
    more = torch_train.fit(tagger(), jets, jets, Schedule(3, 16, 1e-3, SEED), tmp_path)
    assert more.curve[: len(once.curve)] == once.curve and more.images == 3 * once.images
    assert len(more.curve) > len(once.curve) + 2 and "val_auc" in more.curve[-1]


def test_the_time_that_is_given_ends_a_training_with_a_falling_rate(tmp_path, monkeypatch):
    clock = itertools.count(step=0.01)  # seconds; asked twice a batch
    monkeypatch.setattr(torch_train, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    jets = learnable_jets(64, 1)
    progress = torch_train.fit(tagger(), jets, jets, Schedule(1_000_000, 16, 1e-3), tmp_path, minutes=0.02)
    rates = [record["rate"] for record in progress.curve if "rate" in record]
    assert progress.images == 16 * 60 and progress.seconds == pytest.approx(1.2, abs=0.02)
    assert max(rates) > 0.9e-3 and rates[-1] == 0 and "val_auc" in progress.curve[-1]


def test_other_checkpoints_are_refused_in_one_sentence(tmp_path):
    jets = learnable_jets(64, 1)
    for content in (b"cut", None):
        if content:
            (tmp_path / "checkpoint.pt").write_bytes(content)
        else:
            torch.save({"tagger": {}, "optimizer": {}, "progress": {}}, tmp_path / "checkpoint.pt")
        with pytest.raises(
            ValueError, match=r"checkpoint\.pt is not a checkpoint of this training .* remove it"
        ) as caught:
            torch_train.fit(tagger(), jets, jets, Schedule(1, 16, 1e-3), tmp_path)
        assert "\n" not in str(caught.value)


def test_too_few_jets_for_a_batch_are_refused(tmp_path):
    jets = learnable_jets(8, 1)
    with pytest.raises(ValueError, match="fewer than one batch"):
        torch_train.fit(tagger(), jets, jets, Schedule(1, 16, 1e-3), tmp_path)


def test_a_teacher_brings_the_quantised_features_nearer_to_its_own_and_leaves_the_classifier(tmp_path):
    jets = learnable_jets(64, 1)
    teacher = Folded(CONFIG, tagger().featurizer.eval().fold())
    planes = train.LabelledImages.of(jets.constituents, jets.is_top, CONFIG.size).planes
    fractions = calibrate(CONFIG, teacher.fold(), np.repeat(planes[:32, ..., None], 3, axis=-1))
    astray = {name: ConvWeights(conv.kernel, conv.bias + np.float32(0.05)) for name, conv in teacher.fold().items()}
    pupil = Tagger(Quantised(CONFIG, astray, fractions), 8)
    wanted, classifier = torch_train.features(teacher, planes), pupil.classifier()
    before = np.square(torch_train.features(pupil.featurizer, planes) - wanted).sum()
    torch_train.fit(pupil, jets, jets, Schedule(4, 16, 1e-2, SEED), tmp_path, teacher=teacher)
    after = np.square(torch_train.features(pupil.featurizer, planes) - wanted).sum()
    assert after < 0.5 * before, f"seed {SEED}: {before} {after}"
    np.testing.assert_array_equal(pupil.classifier().w1, classifier.w1)
    np.testing.assert_array_equal(torch_train.features(teacher, planes), wanted)  # it does not learn


def test_features_are_computed_once_and_a_longer_sample_adds_to_them(tmp_path, monkeypatch):
    featurizer = tagger().featurizer
    planes = np.random.default_rng(SEED).integers(0, 256, (7, CONFIG.size, CONFIG.size), dtype=np.uint8)
    expected, compute, computed = torch_train.features(featurizer, planes), torch_train.features, []

    def counted(featurizer, part):
        computed.append(len(part))
        return compute(featurizer, part)

    monkeypatch.setattr(torch_train, "KEPT", 3)
    monkeypatch.setattr(torch_train, "features", counted)
    for count, new in ((3, [3]), (7, [3, 1]), (7, [])):
        computed.clear()
        got = torch_train.kept_features(featurizer, planes[:count], tmp_path)
        np.testing.assert_allclose(got, expected[:count], rtol=1e-5, atol=1e-6)
        assert computed == new


def test_kept_features_are_not_taken_for_those_of_another_network(tmp_path):
    """The same weights with other binary points, or rounded at all, are another network."""
    planes = np.random.default_rng(SEED).integers(0, 256, (4, CONFIG.size, CONFIG.size), dtype=np.uint8)
    weights = tagger().featurizer.eval().fold()
    fractions = calibrate(CONFIG, weights, np.repeat(planes[..., None], 3, axis=-1))
    coarser = replace(fractions, activations={name: bits - 1 for name, bits in fractions.activations.items()})
    for featurizer in (
        Folded(CONFIG, weights),
        Quantised(CONFIG, weights, fractions),
        Quantised(CONFIG, weights, coarser),
    ):
        got = torch_train.kept_features(featurizer, planes, tmp_path)
        np.testing.assert_array_equal(got, torch_train.features(featurizer, planes))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_small_network_grows_into_a_large_one_and_goes_on_to_the_artefact(tmp_path, capfd):
    jets = tmp_path / "jets"
    for seed, (split, count) in enumerate({"train": 256, "val": 64, "test": 64}.items()):
        dataset.write(jets / f"{split}.h5", learnable_jets(count, seed), split)
    shared = ["--framework", "torch", "--jets", f"{jets}", "--stages", "1", "1", "--batch", "16", "--hidden", "8"]
    small = [*shared, "--out", f"{tmp_path / 'small'}", "--width", "4", "--size", "16"]
    assert main(["train", *small, "--float-epochs", "4", "--float-rate", "1e-2"]) == 0

    large = [*shared, "--out", f"{tmp_path / 'large'}", "--width", "8", "--size", "32", "--float-epochs", "1"]
    large += ["--float-rate", "1e-4", "--calibration-jets", "32", "--test-jets", "48", "--finetune-rate", "1e-5"]
    start = ["--start", f"{tmp_path / 'small' / 'float.npz'}"]
    for step in (
        ["train", *large, *start, "--batch-norm", "no"],
        ["calibrate", *large],
        ["finetune", *large, "--teacher"],
        ["refit", *large],
    ):
        assert main(step) == 0, capfd.readouterr().err
    folder = tmp_path / "large"
    grown = float_network.load(folder / "float.npz")
    assert (grown.config.width, grown.config.size) == (8, 32)
    assert grown.provenance["start"]["plan"]["config"]["width"] == 4  # where it came from is kept
    curve = json.loads((folder / "float-curve.json").read_text())
    assert curve == grown.provenance["curve"] and curve[-1]["val_auc"] > 0.9
    assert (folder / "float-curve.png").stat().st_size > 1000

    made = checkpoint.load(folder / "network.npz")
    assert made.provenance["test"]["refit"]["tops"] + made.provenance["test"]["refit"]["qcd"] == 48
    planes = train.LabelledImages.of(dataset.read(jets / "test.h5", 48).constituents, np.zeros(48), 32).planes
    labels = dataset.read(jets / "test.h5", 48).is_top
    by_qkeras = made.classifier.probabilities(train.features(checkpoint.to_keras(made.network), planes))[:, 1]
    assert np.isclose(made.provenance["test"]["refit"]["auc"]["value"], train.auc(labels, by_qkeras), atol=1e-9)

    assert (
        main(
            ["train", *shared, "--out", f"{tmp_path / 'v1'}", "--version", "v1", "--width", "8", "--size", "32", *start]
        )
        == 1
    )
    assert "cannot grow into" in capfd.readouterr().err
