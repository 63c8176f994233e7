"""Training."""

import numpy as np
import pytest
from tensorflow import keras

from quantize import resnet, train

CONFIG = resnet.ResNetConfig(stages=(1, 1), width=4, size=16)
SEED = 41


def images(count=64):
    """Bright left halves are top, bright upper halves are QCD: learnable at once, and mirror-proof."""
    rng = np.random.default_rng(SEED)
    is_top = rng.integers(0, 2, count)
    planes = rng.integers(0, 60, (count, 16, 16), dtype=np.uint8)
    planes[is_top == 1, 7:9, :] += 190
    planes[is_top == 0, :, 7:9] += 190
    return train.LabelledImages(planes, is_top)


def tagger():
    keras.utils.set_random_seed(SEED)
    return train.add_classifier(resnet.trainable(CONFIG, 0.9), 8)


def test_training_learns(tmp_path):
    history = train.fit(tagger(), images(256), images(64), train.Schedule(4, 16, 5e-3, SEED), tmp_path)
    assert history[-1]["val_auc"] > 0.95 and history[-1]["loss"] < history[0]["loss"]


def test_an_interrupted_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    schedule = train.Schedule(2, 16, 1e-3, SEED)
    whole = tagger()
    train.fit(whole, images(), images(), schedule, tmp_path / "whole")

    fit, calls = keras.Model.fit, []

    def interrupted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(self, *arguments, **options)

    monkeypatch.setattr(keras.Model, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.fit(tagger(), images(), images(), schedule, tmp_path / "parts")
    monkeypatch.undo()
    resumed = tagger()
    history = train.fit(resumed, images(), images(), schedule, tmp_path / "parts")
    assert len(history) == 2
    for one, two in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_too_few_jets_for_a_batch_are_refused(tmp_path):
    with pytest.raises(ValueError, match="fewer than one batch"):
        train.fit(tagger(), images(8), images(8), train.Schedule(1, 16, 1e-3), tmp_path)


def test_the_numpy_classifier_computes_what_keras_does():
    model = tagger()
    planes = images(8).planes
    featurizer = keras.Model(model.input, model.get_layer("features").output)
    values = train.features(featurizer, planes)
    np.testing.assert_allclose(
        train.classifier_of(model).probabilities(values), train.predict(model, planes), rtol=1e-4, atol=1e-6
    )
