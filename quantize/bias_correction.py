"""Empirical bias correction (Nagel et al., arXiv:1906.04721, section 4.2): what rounding shifts, on average, the biases take back.

Rounding a kernel or an activation moves the mean of every channel behind it. The NPU has an integer bias for each channel, so that moving
the mean back costs nothing. It matters most where nearly all of an image is dark: all the dark pixels hold the same few values, and
their rounding errors are not noise but one shift. Without it, scales that are coarse enough for the bright pixels ruin the dark ones.
"""

from dataclasses import replace

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from quantize import quantisers, resnet
from quantize.fold import ConvWeights

IMAGES = 64
"""How many images are enough; all are computed at once, float and quantised, layer by layer."""


def correct_biases(
    config: resnet.ResNetConfig, weights: dict[str, ConvWeights], fractions: resnet.Fractions, images: NDArray[np.uint8]
) -> dict[str, ConvWeights]:
    """Return the folded network `weights` with the biases that its quantised twin should start from.

    With them each channel of each convolution has the mean, over the first IMAGES of `images` (uint8 [n, size, size, channels]), that
    it has in the float network; to half a step of the bias. Kernels stay as they are.
    """
    arithmetic = _Correcting(config, weights, fractions)
    sample = tf.constant(images[:IMAGES].astype(np.float32) / 2**resnet.INPUT_FRACTION)
    resnet.compute(config, arithmetic, tf.concat([sample, sample], axis=0))
    return arithmetic.corrected


class _Correcting:
    """Computes a batch whose first half is the float network's and whose second half is its quantised twin's."""

    def __init__(
        self, config: resnet.ResNetConfig, weights: dict[str, ConvWeights], fractions: resnet.Fractions
    ) -> None:
        self.weights, self.fractions = weights, fractions
        self.accumulators = resnet.accumulator_fractions(config, fractions)
        self.corrected: dict[str, ConvWeights] = {}

    def conv(self, x: tf.Tensor, conv: resnet.Conv) -> tf.Tensor:
        """Convolve both halves, and choose the bias of the second such that their means agree."""
        exact, rounded = tf.split(x, 2)
        given = self.weights[conv.name]
        kernel = quantisers.weights(self.fractions.weights[conv.name])(tf.constant(given.kernel))
        exact = tf.nn.conv2d(exact, given.kernel, conv.stride, "VALID") + given.bias
        rounded = tf.nn.conv2d(rounded, kernel, conv.stride, "VALID")
        # Exactly in float64: the many equal values of dark pixels would add up to a drift in float32.
        shift = [tf.reduce_mean(tf.cast(half, tf.float64), axis=(0, 1, 2)) for half in (exact, rounded)]
        bias = (shift[0] - shift[1]).numpy().astype(np.float32)
        self.corrected[conv.name] = replace(given, bias=bias)
        return tf.concat([exact, rounded + quantisers.bias(self.accumulators[conv.name])(tf.constant(bias))], axis=0)

    def relu(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Float, and the uint8 ReLU."""
        exact, rounded = tf.split(x, 2)
        return tf.concat([tf.nn.relu(exact), quantisers.relu(self.fractions.activations[name])(rounded)], axis=0)

    def shortcut(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Float as it is, and int8."""
        exact, rounded = tf.split(x, 2)
        return tf.concat([exact, quantisers.signed(self.fractions.activations[name])(rounded)], axis=0)
