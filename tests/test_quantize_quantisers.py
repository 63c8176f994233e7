"""The fixed-point quantisers, against their definition in integers."""

import numpy as np
import pytest
import tensorflow as tf

from quantize import quantisers

SEED = 23


@pytest.mark.parametrize("fraction", [1, 4, 7, 8, 9, 13])
@pytest.mark.parametrize(
    ("quantiser", "low", "high"),
    [
        (quantisers.weights, -128, 127),
        (quantisers.signed, -128, 127),
        (quantisers.relu, 0, 255),
        (quantisers.bias, -(2**23), 2**23 - 1),
    ],
)
def test_rounds_half_to_even_and_saturates(quantiser, low, high, fraction):
    rng = np.random.default_rng(SEED)
    # Quarter steps, so that every second one or so is a tie, well past both ends.
    quarters = np.concatenate([rng.integers(-6 * 256, 6 * 256, 2000), 4 * np.array([low - 3, low, high, high + 3])])
    values = np.ldexp(quarters.astype(np.float64), -2 - fraction).astype(np.float32)
    integers = np.clip(np.rint(quarters / 4), low, high)
    got = quantiser(fraction)(tf.constant(values)).numpy()
    assert (np.ldexp(got.astype(np.float64), fraction) == integers).all()


def test_gradients_pass_straight_through_below_one_half_too():
    x = tf.constant([0.01, -0.02, 0.03])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(quantisers.weights(10)(x) * [1.0, 2.0, 3.0])
    assert tape.gradient(y, x).numpy().tolist() == [1.0, 2.0, 3.0]


def test_hls4ml_and_keras_see_plain_qkeras_quantisers():
    config = quantisers.weights(10).get_config()
    assert type(quantisers.weights(10)).__module__ == "qkeras.quantizers"
    assert (config["bits"], config["integer"], config["alpha"]) == (8, -3, 1)
