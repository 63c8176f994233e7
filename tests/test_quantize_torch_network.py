"""The networks in PyTorch against their Keras and QKeras twins."""

import numpy as np
import pytest
import tensorflow as tf
import torch

from quantize import checkpoint, resnet, train
from quantize.calibrate import calibrate
from quantize.float_network import FloatNetwork
from quantize.fold import set_weights
from quantize.images import jet_planes
from quantize.torch_images import jet_planes as torch_planes
from quantize.torch_images import mirrored
from quantize.torch_network import Folded, Quantised, Tagger, Trainable, network_input
from quantize.torch_train import best_device, features

SEED = 53
CONFIG = resnet.ResNetConfig(stages=(1, 2), width=8, size=32)


@pytest.fixture(scope="module")
def planes():
    return np.random.default_rng(SEED).integers(0, 256, (6, CONFIG.size, CONFIG.size), dtype=np.uint8)


@pytest.fixture(scope="module")
def tagger(planes):
    """A float tagger with normalisation that matters."""
    torch.manual_seed(SEED)
    featurizer = Trainable(CONFIG)
    with torch.no_grad():
        for norm in featurizer.norms.values():
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
    made = Tagger(featurizer, 16).train()
    with torch.no_grad():
        made(network_input(planes))  # moves the running statistics
    return made.eval()


@pytest.fixture(scope="module")
def fractions(tagger, planes):
    return calibrate(CONFIG, tagger.featurizer.fold(), np.repeat(planes[..., None], 3, axis=-1))


def test_folded_weights_give_keras_the_same_features_and_classes(tagger, planes):
    network = FloatNetwork(CONFIG, tagger.featurizer.fold(), tagger.classifier())
    expected = features(tagger.featurizer, planes)
    got = train.features(network.to_keras(), planes)
    assert expected.shape == (6, CONFIG.features) and expected.std() > 0.01
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=f"seed {SEED}")
    with torch.no_grad():
        logits = tagger(network_input(planes))
    np.testing.assert_allclose(network.classifier.probabilities(got), logits.softmax(1).numpy(), rtol=1e-4, atol=1e-5)


def test_a_folded_network_gets_normalisation_back_without_changing_its_features(tagger, planes):
    again = Trainable(CONFIG)
    again.load_folded(tagger.featurizer.fold(), network_input(planes))
    expected = features(tagger.featurizer, planes)
    np.testing.assert_allclose(features(again, planes), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # in training too, where a batch's own statistics count
        np.testing.assert_allclose(again.train()(network_input(planes)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("version", ["v1", "v1.5"])
def test_one_plane_stands_for_three_equal_channels(planes, version):
    torch.manual_seed(SEED)
    featurizer = Trainable(resnet.ResNetConfig((1, 2), 8, 32, version)).eval()
    plane = network_input(planes)
    with torch.no_grad():
        np.testing.assert_allclose(featurizer(plane), featurizer(plane.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def keras_twin(weights, fractions):
    model = resnet.quantised(CONFIG, fractions)
    set_weights(model, weights)
    return model


def test_quantised_features_equal_eager_qkeras_as_integers(tagger, fractions, planes):
    weights = tagger.featurizer.fold()
    model = keras_twin(weights, fractions)
    expected = train.features(model, planes)
    scale = 2.0 ** fractions.activations[f"{CONFIG.blocks[-1].name}relu"] * CONFIG.pooled_pixels
    got = features(Quantised(CONFIG, weights, fractions).to(best_device()), planes)
    one, other = (np.rint(x.astype(np.float64) * scale).astype(int) for x in (got, expected))
    assert np.array_equal(one, other) and one.any(), f"seed {SEED}: {(one != other).sum()} differ"
    np.testing.assert_array_equal(got, expected)


def test_its_integers_are_those_of_the_qkeras_network_and_come_back(tagger, fractions, planes):
    weights = tagger.featurizer.fold()
    expected = checkpoint.to_integers(CONFIG, fractions, keras_twin(weights, fractions))
    quantised = Quantised(CONFIG, weights, fractions)
    for made in (quantised.to_integers(), Quantised.of(expected).to_integers()):
        for name in expected.kernels:
            assert made.kernels[name].dtype == np.int8 and made.biases[name].dtype == np.int32
            np.testing.assert_array_equal(made.kernels[name], expected.kernels[name])
            np.testing.assert_array_equal(made.biases[name], expected.biases[name])
    np.testing.assert_array_equal(features(Quantised.of(expected), planes), features(quantised, planes))


@pytest.mark.parametrize("finer", [0, 2])
def test_gradients_equal_those_of_eager_qkeras(tagger, fractions, planes, finer):
    """finer: more fractional bits than suit the activations, so that many of them saturate."""
    fractions = resnet.Fractions(
        fractions.weights,
        {name: bits + finer if "proj" not in name else bits for name, bits in fractions.activations.items()},
    )
    weights = tagger.featurizer.fold()
    pull = np.random.default_rng(SEED).normal(size=(len(planes), CONFIG.features)).astype(np.float32)
    model = keras_twin(weights, fractions)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(train.network_input(planes), training=True) * pull)
    variables = {v.name: v for v in model.trainable_variables}
    expected = dict(zip(variables, tape.gradient(loss, list(variables.values())), strict=True))
    twin = Quantised(CONFIG, weights, fractions)
    (twin(network_input(planes)) * torch.from_numpy(pull)).sum().backward()
    assert len(variables) == 2 * len(CONFIG.convs)
    for name in twin.kernels:
        for got, theirs in (
            (twin.kernels[name].grad.permute(2, 3, 1, 0), expected[f"{name}/kernel:0"].numpy()),
            (twin.biases[name].grad, expected[f"{name}/bias:0"].numpy()),
        ):
            limit = 1e-4 * np.abs(theirs).max()
            assert limit > 0, name
            np.testing.assert_allclose(got, theirs, rtol=1e-3, atol=limit, err_msg=f"{name}, seed {SEED}")


def random_jets(count):
    rng = np.random.default_rng(SEED)
    pt = rng.exponential(20, (count, 60)) * (rng.random((count, 60)) < 0.8)
    eta, phi = rng.normal(0, 0.5, (2, count, 60)) + rng.uniform(-3, 3, (2, count, 1))
    return np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], -1).astype(np.float32)


@pytest.mark.parametrize("size", [16, 64, 224])
def test_images_are_the_bytes_that_numpy_draws(size):
    jets = random_jets(200)
    jets[0] = 0  # black
    jets[1, 1:] = 0  # one constituent
    drawn = torch_planes(jets, size, best_device()).cpu().numpy()
    assert drawn.dtype == np.uint8 and drawn[1:].any(axis=(1, 2)).all() and not drawn[0].any()
    np.testing.assert_array_equal(drawn, jet_planes(jets, size), err_msg=f"seed {SEED}")


def test_mirroring_turns_rows_or_columns_around(planes):
    mirror = np.array([[0, 1, 0, 1], [0, 0, 1, 1]], bool)
    got = mirrored(torch.from_numpy(planes[:4]), mirror).numpy()
    p = planes
    np.testing.assert_array_equal(got, [p[0], p[1][::-1], p[2][:, ::-1], p[3][::-1, ::-1]])


def test_a_folded_network_computes_what_it_was_folded_from_and_gives_its_weights_back(tagger, planes):
    weights = tagger.featurizer.fold()
    folded = Folded(CONFIG, weights)
    np.testing.assert_allclose(features(folded, planes), features(tagger.featurizer, planes), rtol=1e-4, atol=1e-5)
    for name, conv in folded.fold().items():
        np.testing.assert_array_equal(conv.kernel, weights[name].kernel)
        np.testing.assert_array_equal(conv.bias, weights[name].bias)
