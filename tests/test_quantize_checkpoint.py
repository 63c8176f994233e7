"""The trained artefact."""

import numpy as np
import pytest

from quantize import checkpoint, resnet
from quantize.classifier import Classifier, load_classifier

CONFIG = resnet.ResNetConfig(stages=(1, 2), width=4, size=16)
SEED = 31


@pytest.fixture(scope="module")
def network():
    return checkpoint.random_quantised(CONFIG, SEED)


@pytest.fixture(scope="module")
def images():
    integers = np.random.default_rng(SEED).integers(0, 256, (3, 16, 16, 3))
    return integers.astype(np.float32) / 256


def classifier():
    rng = np.random.default_rng(SEED)
    shapes = ((CONFIG.features, 5), (5,), (5, 2), (2,))
    return Classifier(*(rng.standard_normal(shape).astype(np.float32) for shape in shapes))


def test_a_network_survives_the_disk_bit_for_bit(network, images, tmp_path):
    path = tmp_path / "net.npz"
    checkpoint.save(path, checkpoint.Checkpoint(network, classifier(), {"seed": SEED}))
    back = checkpoint.load(path)
    assert (back.network.config, back.network.fractions) == (network.config, network.fractions)
    assert back.provenance == {"seed": SEED}
    assert (checkpoint.load_quantised(path)(images).numpy() == checkpoint.to_keras(network)(images).numpy()).all()
    features = np.random.default_rng(SEED).random((4, CONFIG.features))
    assert (load_classifier(path).probabilities(features) == classifier().probabilities(features)).all()


def test_every_stored_weight_is_its_integer(network):
    model = checkpoint.to_keras(network)
    again = checkpoint.to_integers(CONFIG, network.fractions, model)
    accumulators = resnet.accumulator_fractions(CONFIG, network.fractions)
    for conv in CONFIG.convs:
        kernel, bias = model.get_layer(conv.name).get_weights()
        assert (np.ldexp(kernel, network.fractions.weights[conv.name]) == network.kernels[conv.name]).all()
        assert (np.ldexp(bias, accumulators[conv.name]) == network.biases[conv.name]).all()
        assert (again.kernels[conv.name] == network.kernels[conv.name]).all()
        assert network.kernels[conv.name].dtype == np.int8 and network.biases[conv.name].dtype == np.int32


def reference(network, image):
    """The network in integers, from the numerics contract alone. image: uint8 [size, size, 3]."""
    accumulators = resnet.accumulator_fractions(network.config, network.fractions)
    bits = network.fractions.activations

    def conv(x, spec):
        x = np.pad(x, ((spec.padding,) * 2, (spec.padding,) * 2, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (spec.kernel, spec.kernel), axis=(0, 1))
        windows = windows[:: spec.stride, :: spec.stride]  # [row, column, channel, ky, kx]
        kernel = network.kernels[spec.name].astype(np.int64)
        return np.einsum("rcikl,klio->rco", windows, kernel) + network.biases[spec.name]

    def requantise(x, drop, low, high):
        return np.clip(np.rint(x / 2**drop).astype(np.int64), low, high)

    def activated(x, name, source, low=0, high=255):
        return requantise(x, accumulators[source] - bits[name], low, high)

    x = activated(conv(image.astype(np.int64), network.config.stem), "stem_relu", "stem")
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))[::2, ::2].max(axis=(3, 4))
    trunk = "stem_relu"
    for block in network.config.blocks:
        shortcut, scale = x, bits[trunk]
        if block.projection:
            name = block.projection.name
            shortcut = activated(conv(x, block.projection), f"{name}_quant", name, -128, 127)
            scale = bits[f"{name}_quant"]
        for spec in block.convs[:2]:
            x = activated(conv(x, spec), f"{spec.name}_relu", spec.name)
        last = block.convs[2]
        trunk = f"{block.name}relu"
        x = activated(conv(x, last) + (shortcut << (accumulators[last.name] - scale)), trunk, last.name)
    return x.sum(axis=(0, 1)), bits[trunk]


def test_the_eager_model_equals_the_numerics_contract_in_integers(network, images):
    features = checkpoint.to_keras(network)(images).numpy()
    assert len(np.unique(features)) > 20
    for image, got in zip(images, features, strict=True):
        sums, bits = reference(network, np.rint(image * 256).astype(np.uint8))
        assert (np.ldexp(got.astype(np.float64) * CONFIG.pooled_pixels, bits) == sums).all(), f"seed {SEED}"


def test_a_random_network_depends_on_its_seed_alone(network):
    again, other = (checkpoint.random_quantised(CONFIG, seed) for seed in (SEED, SEED + 1))
    assert again.fractions == network.fractions
    assert all((again.kernels[name] == network.kernels[name]).all() for name in network.kernels)
    assert (other.kernels["stem"] != network.kernels["stem"]).any()


def test_weights_off_the_grid_are_not_stored_as_something_else(network):
    model = checkpoint.to_keras(network)
    finer = resnet.Fractions({n: f - 3 for n, f in network.fractions.weights.items()}, network.fractions.activations)
    with pytest.raises(ValueError, match="off its fixed-point grid"):
        checkpoint.to_integers(CONFIG, finer, model)


def test_the_file_needs_no_pickle_and_is_refused_when_it_is_something_else(tmp_path):
    np.savez(tmp_path / "other.npz", meta=np.array("{}"))
    (tmp_path / "text.npz").write_text("hello")
    for name in ("other", "text"):
        with pytest.raises(ValueError, match="not a trained network"):
            checkpoint.load(tmp_path / f"{name}.npz")
    with pytest.raises(FileNotFoundError, match="demo-net"):
        checkpoint.load(tmp_path / "nothing.npz")


def test_the_network_that_ships_is_trained():
    shipped = checkpoint.load(checkpoint.DEMO)
    assert shipped.provenance["test"]["finetuned"]["auc"]["value"] >= 0.94
    assert shipped.network.config == resnet.ResNetConfig(width=16, size=64)
    assert min(shipped.network.fractions.activations.values()) >= 1


def test_float32_holds_every_accumulator_of_the_network_that_ships():
    # QKeras sums in float32: integers below 2^24 are exact in any order of summation.
    network = checkpoint.load(checkpoint.DEMO).network
    accumulators = resnet.accumulator_fractions(network.config, network.fractions)
    largest_activation = 255
    for conv in network.config.convs:
        kernel = np.abs(network.kernels[conv.name].astype(np.int64)).sum(axis=(0, 1, 2))
        bound = (kernel * largest_activation + np.abs(network.biases[conv.name].astype(np.int64))).max()
        if conv.name.endswith("c3"):
            shift = accumulators[conv.name] - min(network.fractions.activations.values())
            bound += largest_activation << shift
        assert bound < 2**24, conv.name


def test_the_full_network_that_ships_is_resnet_50_and_says_what_it_reached():
    path = checkpoint.DEMO.with_name("resnet50.npz")
    shipped = checkpoint.load(path)
    assert shipped.network.config == resnet.ResNetConfig() and path.stat().st_size < 25e6
    assert sum(kernel.size for kernel in shipped.network.kernels.values()) == 23_454_912
    assert shipped.provenance["test"]["refit"]["auc"]["value"] > 0.95
    assert shipped.provenance["float"]["start"]["start"]["curve"] and shipped.provenance["jets"]["recipe"]
