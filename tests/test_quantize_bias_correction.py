"""Bias correction, against the float and the quantised network's own layers."""

import numpy as np
import pytest
from tensorflow import keras

from quantize import bias_correction, resnet, train
from quantize.bias_correction import correct_biases
from quantize.calibrate import calibrate
from quantize.fold import ConvWeights, set_weights

CONFIG = resnet.ResNetConfig(stages=(1, 2), width=8, size=32)
SEED = 61


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(SEED)
    return {
        conv.name: ConvWeights(
            (np.sqrt(2 / (conv.kernel**2 * conv.inputs)) * rng.standard_normal(conv.weights_shape)).astype(np.float32),
            (0.1 * rng.standard_normal(conv.filters)).astype(np.float32),
        )
        for conv in CONFIG.convs
    }


@pytest.fixture(scope="module")
def images():
    """As jets are: nearly all dark, a few bright pixels."""
    rng = np.random.default_rng(SEED)
    planes = rng.integers(0, 256, (12, 32, 32, 1), dtype=np.uint8) * (rng.random((12, 32, 32, 1)) < 0.02)
    return np.repeat(planes.astype(np.uint8), 3, axis=-1)


@pytest.fixture(scope="module")
def fractions(weights, images):
    return calibrate(CONFIG, weights, images)


def network_input(images):
    return images.astype(np.float32) / 2**resnet.INPUT_FRACTION


def channel_means(model, images):
    """Mean of each convolution's output by channel, before any activation."""
    names = [conv.name for conv in CONFIG.convs]
    outputs = keras.Model(model.input, [model.get_layer(name).output for name in names])(network_input(images))
    return {
        name: output.numpy().astype(np.float64).mean((0, 1, 2)) for name, output in zip(names, outputs, strict=True)
    }


def quantised(weights, fractions):
    model = resnet.quantised(CONFIG, fractions)
    set_weights(model, weights)
    return model


def folded(weights):
    model = resnet.folded(CONFIG)
    set_weights(model, weights)
    return model


def test_every_channel_of_every_convolution_has_the_float_networks_mean(weights, images, fractions):
    corrected = correct_biases(CONFIG, weights, fractions, images)
    wanted = channel_means(folded(weights), images)
    before = channel_means(quantised(weights, fractions), images)
    after = channel_means(quantised(corrected, fractions), images)
    for name, bits in resnet.accumulator_fractions(CONFIG, fractions).items():
        half_a_step = 0.5 * 2.0**-bits
        assert np.abs(after[name] - wanted[name]).max() <= half_a_step + 1e-5, f"{name}, seed {SEED}"
        assert np.abs(before[name] - wanted[name]).max() > 2 * half_a_step, f"{name}: nothing to correct, seed {SEED}"


def test_kernels_stay_and_the_input_is_not_changed(weights, images, fractions):
    given = {name: conv.bias.copy() for name, conv in weights.items()}
    corrected = correct_biases(CONFIG, weights, fractions, images)
    assert list(corrected) == [conv.name for conv in CONFIG.convs]
    for name, conv in corrected.items():
        assert conv.kernel is weights[name].kernel and conv.bias.dtype == np.float32
        assert np.array_equal(weights[name].bias, given[name])


def test_features_come_nearer_to_the_float_networks_on_other_images(weights, images, fractions):
    chosen, others = images[:8], images[8:]
    corrected = correct_biases(CONFIG, weights, fractions, chosen)
    wanted = train.compute(folded(weights), network_input(others))
    errors = [
        np.square(train.compute(quantised(w, fractions), network_input(others)) - wanted).sum()
        for w in (weights, corrected)
    ]
    assert errors[1] < 0.5 * errors[0], f"seed {SEED}: {errors}"


def test_no_more_images_are_computed_at_once_than_memory_holds(weights, images, fractions, monkeypatch):
    monkeypatch.setattr(bias_correction, "IMAGES", 4)
    some = correct_biases(CONFIG, weights, fractions, images)
    first = correct_biases(CONFIG, weights, fractions, images[:4])
    for name, conv in some.items():
        np.testing.assert_array_equal(conv.bias, first[name].bias)
