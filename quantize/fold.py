"""Fold batch normalisation into the convolution before it: the same function with one bias a channel and no division."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tensorflow import keras

from quantize import resnet


@dataclass(frozen=True)
class ConvWeights:
    """One convolution: kernel float32 [height, width, inputs, filters] and bias float32 [filters]."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]


def fold(config: resnet.ResNetConfig, model: keras.Model) -> dict[str, ConvWeights]:
    """Return the folded convolutions of a model made by `resnet.trainable(config)`, by name.

    y = gamma (conv(x) - mean) / sqrt(variance + epsilon) + beta, computed in float64.
    """
    weights = {}
    for conv in config.convs:
        norm = model.get_layer(f"{conv.name}_bn")
        gamma, beta, mean, variance = (np.asarray(w, np.float64) for w in norm.get_weights())
        kernel = np.asarray(model.get_layer(conv.name).get_weights()[0], np.float64)
        scale = gamma / np.sqrt(variance + norm.epsilon)
        weights[conv.name] = ConvWeights((kernel * scale).astype(np.float32), (beta - mean * scale).astype(np.float32))
    return weights


def set_weights(model: keras.Model, weights: dict[str, ConvWeights]) -> None:
    """Load folded convolutions into a model made by `resnet.folded` or `resnet.quantised`."""
    for name, conv in weights.items():
        model.get_layer(name).set_weights([conv.kernel, conv.bias])
