"""Choosing the binary points."""

import numpy as np
import pytest

from quantize import checkpoint, resnet, train
from quantize.bias_correction import correct_biases
from quantize.calibrate import POWERS, calibrate, candidates, holding, rounding_errors
from quantize.float_network import FloatNetwork
from quantize.fold import ConvWeights, set_weights
from quantize.pipeline import quantise

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


def test_errors_are_those_of_rounding_and_clipping():
    errors = rounding_errors(np.array([0.25, 0.75, 9.0, -1.0]), 0, 0, 7, powers=(2.0, 1.0))
    assert list(errors) == [0.25**2 + 0.25**2 + 2**2 + 1, 0.25 + 0.25 + 2 + 1]
    assert list(rounding_errors(np.array([0.25, 0.75]), 2, 0, 7)) == [0]
    assert list(rounding_errors(np.array([0.125]), 2, 0, 7, powers=(0.5, 2.0))) == [0.125**0.5, 0.125**2]


@pytest.mark.parametrize(("largest", "bits"), [(127.0, 0), (127.1, -1), (0.5, 7), (63.5, 1)])
def test_the_finest_scale_that_still_holds_the_largest_value(largest, bits):
    assert holding(largest, 127) == bits


def test_each_kernel_gets_the_scale_of_least_squared_error():
    folded = weights()
    fractions = calibrate(CONFIG, folded, images())
    for name, conv in folded.items():
        errors = {f: rounding_errors(conv.kernel, f, -128, 127)[0] for f in range(-4, 16)}
        assert errors[fractions.weights[name]] == min(errors.values()), name


def test_weights_twice_as_large_move_the_binary_point_by_one():
    one, two = (calibrate(CONFIG, weights(scale), images()) for scale in (1.0, 2.0))
    assert all(two.weights[name] == one.weights[name] - 1 for name in one.weights)


def test_activations_have_a_fractional_bit_and_never_more_than_their_accumulator():
    fractions = calibrate(CONFIG, weights(3.0), images())
    accumulators = resnet.accumulator_fractions(CONFIG, fractions)
    for name, sources in resnet.activation_sources(CONFIG).items():
        assert 1 <= fractions.activations[name] <= min(accumulators[source] for source in sources)


def test_a_bright_spot_costs_the_dark_rest_its_bits_only_where_errors_are_squared():
    """Of a value of 15.9 among many of 0.05, squares keep the large one whole, a lower power lets it saturate."""
    values = np.array([15.9] + 999 * [0.05])
    errors = np.array([rounding_errors(values, fraction, 0, 255, POWERS) for fraction in range(2, 9)])
    best = dict(zip(POWERS, 2 + errors.argmin(axis=0), strict=True))
    assert best[2.0] < best[0.75]
    assert list(best.values()) == sorted(best.values())


def test_of_all_candidates_the_one_with_the_nearest_features_is_taken():
    network, sample = FloatNetwork(CONFIG, weights(), None), images()
    found = quantise(network, sample)
    inputs = sample.astype(np.float32) / 2**resnet.INPUT_FRACTION
    wanted = train.compute(network.to_keras(), inputs)
    errors = {}
    for power, fractions in candidates(CONFIG, network.weights, sample).items():
        model = resnet.quantised(CONFIG, fractions)
        set_weights(model, correct_biases(CONFIG, network.weights, fractions, sample))
        errors[power] = np.square(train.compute(model, inputs) - wanted).sum()
        if fractions == found.network.fractions:
            nearest = errors[power]
    assert nearest == min(errors.values())
    assert found.errors == pytest.approx(
        {power: error / np.square(wanted - wanted.mean(axis=0)).sum() for power, error in errors.items()}
    )


def test_quantising_asks_for_features_of_the_integers_that_it_returns():
    network, asked = FloatNetwork(CONFIG, weights(), None), []

    def features(quantised):
        asked.append(quantised)
        return np.full((8, 4), len(asked) == 3, np.float32)  # the third candidate is right, the others are not

    found = quantise(network, images(), lambda network: np.ones((8, 4), np.float32), features)
    assert len(asked) == len(POWERS) and found.network is asked[2]
    assert checkpoint.to_keras(found.network)(np.zeros((1, 16, 16, 3), np.float32)).shape == (1, CONFIG.features)
