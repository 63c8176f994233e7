"""Wider networks that compute the same."""

import numpy as np
import pytest

from quantize import resnet, train
from quantize.classifier import Classifier
from quantize.float_network import FloatNetwork
from quantize.fold import ConvWeights
from quantize.widen import widen

SEED = 29
CONFIG = resnet.ResNetConfig(stages=(1, 2), width=2, size=16)


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(SEED)
    weights = {
        conv.name: ConvWeights(
            rng.normal(0, np.sqrt(2 / (conv.inputs * conv.kernel**2)), conv.weights_shape).astype(np.float32),
            rng.normal(0, 0.2, conv.filters).astype(np.float32),
        )
        for conv in CONFIG.convs
    }
    layers = (rng.normal(0, 1, shape).astype(np.float32) for shape in ((CONFIG.features, 5), (5,), (5, 2), (2,)))
    return FloatNetwork(CONFIG, weights, Classifier(*layers))


@pytest.fixture(scope="module")
def planes():
    return np.random.default_rng(SEED).integers(0, 256, (4, 16, 16), dtype=np.uint8)


@pytest.mark.parametrize("factor", [1, 3, 4])
def test_the_function_is_preserved(network, planes, factor):
    wider = widen(network, factor * CONFIG.width)
    assert wider.config == resnet.ResNetConfig((1, 2), factor * 2, 16)
    assert {n: c.kernel.shape for n, c in wider.weights.items()} == {
        c.name: c.weights_shape for c in wider.config.convs
    }
    before = train.features(network.to_keras(), planes)
    after = train.features(wider.to_keras(), planes)
    assert before.std() > 0.01
    np.testing.assert_allclose(after, np.tile(before, (1, factor)), rtol=1e-4, atol=1e-5, err_msg=f"seed {SEED}")
    np.testing.assert_allclose(
        wider.classifier.probabilities(after), network.classifier.probabilities(before), rtol=1e-4, atol=1e-5
    )


def test_noise_makes_replicas_differ_and_the_function_hardly(network, planes):
    plain, noisy = (widen(network, 8, noise, SEED) for noise in (0.0, 0.02))
    replicas = [
        kernel.reshape(*kernel.shape[:3], 4, -1) for kernel in (w.weights["s2b0c2"].kernel for w in (plain, noisy))
    ]
    assert (replicas[0][..., 0, :] == replicas[0][..., 1, :]).all()
    assert (replicas[1][..., 0, :] != replicas[1][..., 1, :]).all()
    one, other = (train.features(n.to_keras(), planes) for n in (plain, noisy))
    assert 0 < np.abs(one - other).max() < 0.2 * np.abs(one).max(), f"seed {SEED}"


@pytest.mark.parametrize("width", [1, 3, 0])
def test_other_widths_are_refused(network, width):
    with pytest.raises(ValueError, match=f"width {width} is not a multiple of the network's 2"):
        widen(network, width)
