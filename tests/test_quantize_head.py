"""New classifiers on features that are given."""

import json

import numpy as np
import pytest

from quantize import head
from quantize.__main__ import main
from quantize.classifier import Classifier, load_classifier, save_classifier

SEED = 53


def clusters(classes=3, count=60, features=8):
    """Events around a centre for each class, with uneven scales and an offset."""
    rng = np.random.default_rng(SEED)
    labels = np.arange(count * classes) % classes
    centres = 3 * rng.standard_normal((classes, features))
    values = centres[labels] + rng.standard_normal((len(labels), features))
    return (values * rng.uniform(0.1, 5, features) + 7).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_a_classifier_of_any_number_of_classes_is_fitted_and_exported(tmp_path, capfd, classes):
    values, labels = clusters(classes)
    names = [f"kind {i}" for i in range(classes)]
    np.savez(tmp_path / "features.npz", features=values, cycles=np.zeros(3))
    (tmp_path / "labels.txt").write_text("\n".join(names[label] for label in labels))
    command = ["head", "--features", f"{tmp_path}/features.npz", "--labels", f"{tmp_path}/labels.txt"]
    command += ["--out", f"{tmp_path}/new.npz", "--picture", f"{tmp_path}/new.png", "--hidden", "16", "--rate", "1e-2"]
    assert main(command) == 0, capfd.readouterr().err
    made = load_classifier(tmp_path / "new.npz")
    assert made.classes == tuple(names)
    assert (made.probabilities(values).argmax(axis=1) == labels).mean() > 0.9, f"seed {SEED}"
    assert "held-out events" in capfd.readouterr().out and (tmp_path / "new.png").is_file()


def test_what_is_held_out_is_not_fitted_to():
    rng = np.random.default_rng(SEED)
    # Labels without meaning, which so many features allow to learn by heart.
    noise = head.sample(rng.standard_normal((120, 80)), rng.integers(0, 3, 120))
    fitted = head.fit(noise, head.Recipe(hidden=64, epochs=40, batch=16, rate=1e-2, held_out=0.5))
    by_heart = (fitted.classifier.probabilities(noise.features).argmax(axis=1) == noise.labels).mean()
    assert fitted.accuracy.value < 0.6 and by_heart > 0.6, f"seed {SEED}"
    assert len(fitted.labels) == 60


def test_a_classifier_survives_the_disk_with_its_names(tmp_path):
    rng = np.random.default_rng(SEED)
    shapes = ((6, 5), (5,), (5, 3), (3,))
    made = Classifier(*(rng.standard_normal(s).astype(np.float32) for s in shapes), ("a", "b", "c"))
    save_classifier(tmp_path / "c.npz", made, {"seed": SEED})
    back = load_classifier(tmp_path / "c.npz")
    values = rng.standard_normal((4, 6))
    assert back.classes == made.classes and (back.probabilities(values) == made.probabilities(values)).all()
    with np.load(tmp_path / "c.npz", allow_pickle=False) as stored:
        assert json.loads(str(stored["classifier/provenance"])) == {"seed": SEED}


@pytest.mark.parametrize(
    ("features", "labels", "complaint"),
    [
        (np.ones((6, 2)), np.arange(5) % 2, "6 rows of features need 6 labels"),
        (np.ones(6), np.arange(6) % 2, r"\[events, features\], not float64 \[6\]"),
        (np.array([[1.0], [np.nan], [1], [1]]), np.arange(4) % 2, "features of event 1 hold a NaN"),
        (np.ones((4, 2)), np.array([0, 1, -1, 1]), "number the classes from 0"),
        (np.ones((4, 2)), np.zeros(4, int), "two classes"),
        (np.ones((4, 2)), np.array([0, 0, 2, 2]), "two events of each, not 0: 2, 1: 0, 2: 2"),
        (np.ones((4, 2)), np.array([0.5, 0, 1, 1]), "whole numbers or names"),
    ],
)
def test_bad_samples_are_named_and_nothing_is_written(tmp_path, capfd, features, labels, complaint):
    with pytest.raises(ValueError, match=complaint):
        head.sample(features, labels)
    np.save(tmp_path / "f.npy", features)
    np.save(tmp_path / "l.npy", labels)
    before = sorted(tmp_path.iterdir())
    command = ["head", "--features", f"{tmp_path}/f.npy", "--labels", f"{tmp_path}/l.npy", "--out", f"{tmp_path}/o.npz"]
    assert main(command) == 1 and capfd.readouterr().err.count("error: ") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_files_of_another_kind_are_named(tmp_path):
    np.savez(tmp_path / "other.npz", values=np.ones(3))
    np.save(tmp_path / "labels.npy", np.arange(3))
    (tmp_path / "text.npy").write_text("hello")
    for name in ("other.npz", "text.npy"):
        with pytest.raises(ValueError, match=f"{name} holds no features"):
            head.read_sample(tmp_path / name, tmp_path / "labels.npy")
    with pytest.raises(FileNotFoundError, match="no labels at"):
        head.read_sample(tmp_path / "labels.npy", tmp_path / "none.npy")


def test_a_refit_without_steps_keeps_the_function():
    rng = np.random.default_rng(SEED)
    start = Classifier(*(rng.standard_normal(s).astype(np.float32) for s in ((6, 5), (5,), (5, 2), (2,))))
    values = rng.normal(3, 2, (50, 6)).astype(np.float32)
    values[:, 2] = 1.5  # a dead feature
    refit = head.refit(values, rng.integers(0, 2, 50), start, epochs=0, batch=10, rate=1e-3, seed=SEED)
    np.testing.assert_allclose(refit.probabilities(values), start.probabilities(values), rtol=1e-3, atol=1e-5)
