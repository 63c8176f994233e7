"""Choosing the binary points."""

import numpy as np
import pytest

from quantize import resnet
from quantize.calibrate import calibrate, holding, squared_error
from quantize.fold import ConvWeights

CONFIG = resnet.ResNetConfig(stages=(1, 1), width=4, size=16)
SEED = 29


def weights(scale=1.0):
    rng = np.random.default_rng(SEED)
    return {
        conv.name: ConvWeights(
            (scale * rng.standard_normal(conv.weights_shape) / np.sqrt(conv.kernel**2 * conv.inputs)).astype(
                np.float32
            ),
            (0.1 * scale * rng.standard_normal(conv.filters)).astype(np.float32),
        )
        for conv in CONFIG.convs
    }


def images(count=8):
    return np.random.default_rng(SEED).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def test_squared_error_is_that_of_rounding_and_clipping():
    assert squared_error(np.array([0.25, 0.75, 9.0, -1.0]), 0, 0, 7) == 0.25**2 + 0.25**2 + 2**2 + 1
    assert squared_error(np.array([0.25, 0.75]), 2, 0, 7) == 0


@pytest.mark.parametrize(("largest", "bits"), [(127.0, 0), (127.1, -1), (0.5, 7), (63.5, 1)])
def test_the_finest_scale_that_still_holds_the_largest_value(largest, bits):
    assert holding(largest, 127) == bits


def test_each_kernel_gets_the_scale_of_least_squared_error():
    folded = weights()
    fractions = calibrate(CONFIG, folded, images())
    for name, conv in folded.items():
        errors = {f: squared_error(conv.kernel, f, -128, 127) for f in range(-4, 16)}
        assert errors[fractions.weights[name]] == min(errors.values()), name


def test_weights_twice_as_large_move_the_binary_point_by_one():
    one, two = (calibrate(CONFIG, weights(scale), images()) for scale in (1.0, 2.0))
    assert all(two.weights[name] == one.weights[name] - 1 for name in one.weights)


def test_activations_have_a_fractional_bit_and_never_more_than_their_accumulator():
    fractions = calibrate(CONFIG, weights(3.0), images())
    accumulators = resnet.accumulator_fractions(CONFIG, fractions)
    for name, sources in resnet.activation_sources(CONFIG).items():
        assert 1 <= fractions.activations[name] <= min(accumulators[source] for source in sources)
