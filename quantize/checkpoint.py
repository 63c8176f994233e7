"""The trained artefact: one .npz file, without pickle, that holds the network as integers.

meta                          JSON: format, configuration, fractional bits, provenance
<conv>/kernel                 int8  [height, width, inputs, filters], in steps of 2^-fractions.weights[conv]
<conv>/bias                   int32 [filters], at the accumulator's scale
classifier/...                the classifier, where there is one (classifier.py)
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow import keras

from quantize import resnet
from quantize.calibrate import calibrate
from quantize.classifier import Classifier
from quantize.dataset import written_whole
from quantize.fold import ConvWeights, set_weights

FORMAT = "quarkwave-network-1"
DEMO = Path(__file__).parent / "trained" / "demo.npz"


@dataclass(frozen=True)
class QuantisedNetwork:
    """A featurizer as integers: kernels int8 and biases int32 by convolution, and the binary points."""

    config: resnet.ResNetConfig
    fractions: resnet.Fractions
    kernels: dict[str, NDArray[np.int8]]
    biases: dict[str, NDArray[np.int32]]


@dataclass(frozen=True)
class Checkpoint:
    """What the artefact holds. provenance: how it was made and what it reached, JSON-able."""

    network: QuantisedNetwork
    classifier: Classifier | None
    provenance: dict[str, Any] = field(default_factory=dict)


def to_integers(config: resnet.ResNetConfig, fractions: resnet.Fractions, model: keras.Model) -> QuantisedNetwork:
    """Return the integers that a model made by `resnet.quantised(config, fractions)` computes with."""
    accumulators = resnet.accumulator_fractions(config, fractions)
    kernels, biases = {}, {}
    for conv in config.convs:
        layer = model.get_layer(conv.name)
        kernel, bias = (
            np.ldexp(np.asarray(quantiser(w), np.float64), bits)
            for quantiser, w, bits in (
                (layer.kernel_quantizer_internal, layer.kernel, fractions.weights[conv.name]),
                (layer.bias_quantizer_internal, layer.bias, accumulators[conv.name]),
            )
        )
        kernels[conv.name], biases[conv.name] = kernel.astype(np.int8), bias.astype(np.int32)
        if (kernels[conv.name] != kernel).any() or (biases[conv.name] != bias).any():
            raise ValueError(f"layer {conv.name} has weights off its fixed-point grid: this model is not quantised")
    return QuantisedNetwork(config, fractions, kernels, biases)


def dequantised(network: QuantisedNetwork) -> dict[str, ConvWeights]:
    """Return the values that the integers stand for, by convolution; float32 holds them exactly."""
    accumulators = resnet.accumulator_fractions(network.config, network.fractions)
    return {
        name: ConvWeights(
            np.ldexp(network.kernels[name].astype(np.float32), -network.fractions.weights[name]),
            np.ldexp(network.biases[name].astype(np.float32), -accumulators[name]),
        )
        for name in network.kernels
    }


def to_keras(network: QuantisedNetwork) -> keras.Model:
    """Return the QKeras featurizer with exactly these integers."""
    model = resnet.quantised(network.config, network.fractions)
    set_weights(model, dequantised(network))
    return model


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the artefact to `path`, whole or not at all."""
    network = checkpoint.network
    meta = {
        "format": FORMAT,
        "config": asdict(network.config),
        "fractions": {
            "image": network.fractions.image,
            "weights": dict(network.fractions.weights),
            "activations": dict(network.fractions.activations),
        },
        "provenance": checkpoint.provenance,
    }
    arrays: dict[str, NDArray] = {"meta": np.array(json.dumps(meta))}
    for name in network.kernels:
        arrays[f"{name}/kernel"] = network.kernels[name]
        arrays[f"{name}/bias"] = network.biases[name]
    if checkpoint.classifier is not None:
        arrays |= checkpoint.classifier.to_arrays()
    with written_whole(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def load(path: Path = DEMO) -> Checkpoint:
    """Read an artefact. Raises FileNotFoundError or ValueError with what to do about it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no trained network at {path}: make one with `python -m quantize demo-net`")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = json.loads(str(arrays["meta"]))
        if meta["format"] != FORMAT:
            raise ValueError(f"format {meta['format']!r}, not {FORMAT!r}")
        config = resnet.ResNetConfig(**meta["config"])
        fractions = resnet.Fractions(**meta["fractions"])
        kernels = {conv.name: arrays[f"{conv.name}/kernel"] for conv in config.convs}
        biases = {conv.name: arrays[f"{conv.name}/bias"] for conv in config.convs}
        for conv in config.convs:
            if kernels[conv.name].shape != conv.weights_shape or biases[conv.name].shape != (conv.filters,):
                raise ValueError(f"the weights of {conv.name} do not have its shape")
            if kernels[conv.name].dtype != np.int8 or biases[conv.name].dtype != np.int32:
                raise ValueError(f"the weights of {conv.name} are not int8 and int32")
    except Exception as error:
        raise ValueError(
            f"{path} is not a trained network of this project ({error}): fetch or make it again"
        ) from error
    classifier = Classifier.from_arrays(arrays) if "classifier/w1" in arrays else None
    return Checkpoint(QuantisedNetwork(config, fractions, kernels, biases), classifier, meta["provenance"])


def load_quantised(path: Path = DEMO) -> keras.Model:
    """Return the QKeras featurizer of an artefact, with exactly its integers."""
    return to_keras(load(path).network)


def random_quantised(
    config: resnet.ResNetConfig, seed: int, images: NDArray[np.uint8] | None = None
) -> QuantisedNetwork:
    """Return an untrained network with He-normal weights: for tests of any size. `to_keras` gives the model.

    images: what its scales are calibrated on, uint8 [n, size, size, channels]; noise by default. On images like them its
    activations spread over their eight bits as those of a trained network do.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for conv in config.convs:
        spread = np.sqrt(2 / (conv.kernel**2 * conv.inputs))
        # A residual branch adds a little to the trunk; without this the trunk would double its variance every block.
        spread *= 0.5 if conv.name.endswith("c3") else 1.0
        weights[conv.name] = ConvWeights(
            (spread * rng.standard_normal(conv.weights_shape, np.float32)).astype(np.float32),
            (0.1 * rng.standard_normal(conv.filters)).astype(np.float32),
        )
    if images is None:
        images = rng.integers(0, 256, (2, config.size, config.size, config.channels), dtype=np.uint8)
    fractions = calibrate(config, weights, images, batch=1)
    model = resnet.quantised(config, fractions)
    set_weights(model, weights)
    return to_integers(config, fractions, model)
