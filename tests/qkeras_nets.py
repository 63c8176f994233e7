"""Small QKeras networks for the compiler's tests, with the awkward shapes that a ResNet does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qkeras import QActivation, QConv2D, quantized_bits
from tensorflow import keras
from tensorflow.keras import layers

RELU = "quantized_relu(8, 2)"
SIGNED = "quantized_bits(8, 2, symmetric=0, alpha=1)"


def conv(filters: int, kernel: Any, name: str, strides: Any = 1, padding: str = "valid", **more: Any) -> QConv2D:
    """A convolution with int8 weights in steps of 2^-7 and a bias in steps of 2^-9, coarser than any of the sums."""
    options = {"kernel_quantizer": quantized_bits(8, 0, alpha=1), "bias_quantizer": quantized_bits(16, 6, alpha=1)}
    return QConv2D(filters, kernel, strides=strides, padding=padding, name=name, **{**options, **more})


def act(name: str, quantiser: str = RELU) -> QActivation:
    """A quantised activation."""
    return QActivation(quantiser, name=name)


def build(image: Any, output: Any, seed: int = 0) -> keras.Model:
    """The model, with random weights."""
    model = keras.Model(image, output)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([rng.normal(0, 0.25, w.shape).astype(np.float32) for w in layer.get_weights()])
    return model


def image(height: int = 12, width: int = 12, channels: int = 3) -> Any:
    """An input."""
    return layers.Input((height, width, channels), name="image")


def awkward(seed: int, height: int, width: int) -> keras.Model:
    """'same' padding, kernels that are not square, odd sizes, a signed trunk, a 4-bit ReLU, two kinds of pool, int8 at the end."""
    rng = np.random.default_rng(seed)
    a, b, c = (int(n) for n in rng.integers(3, 40, 3))
    kernel = int(rng.choice([3, 5, 7]))
    x = i = image(height, width)
    x = act("a_relu")(conv(a, kernel, "a", 2, "same")(x))
    x = layers.MaxPooling2D(3, 2, padding="valid", name="max")(layers.ZeroPadding2D(1, name="max_pad")(x))
    y = layers.Add(name="add")([conv(a, 3, "b", 1, "same")(x), x])
    x = act("b_bits", SIGNED)(y)
    x = act("c_relu", "quantized_relu(4, 1)")(conv(b, (1, 3), "c")(x))
    x = act("d_relu", "quantized_relu(8, 3)")(
        conv(b, (2, 1), "d")(layers.ZeroPadding2D(((1, 0), (2, 1)), name="d_pad")(x))
    )
    x = act("mean_relu", "quantized_relu(8, 3)")(layers.AveragePooling2D(2, name="mean")(x))
    x = act("e_bits", SIGNED)(conv(c, 1, "e")(x))
    return build(i, x, seed)


def eager(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What QKeras computes for uint8 images. Never predict(): graph optimisation changes its last bits."""
    return np.asarray(model(images.astype(np.float32) / 256), np.float64)
