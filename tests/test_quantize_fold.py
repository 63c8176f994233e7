"""Folding batch normalisation."""

import numpy as np

from quantize import resnet
from quantize.fold import fold, set_weights

CONFIG = resnet.ResNetConfig(stages=(1, 2), width=8, size=32)
SEED = 17


def test_the_folded_network_computes_the_same_features():
    rng = np.random.default_rng(SEED)
    model = resnet.trainable(CONFIG)
    for conv in CONFIG.convs:  # statistics as after training, not the ones and zeros of a fresh network
        norm = model.get_layer(f"{conv.name}_bn")
        count = conv.filters
        norm.set_weights(
            [
                rng.uniform(0.5, 1.5, count),
                rng.normal(0, 0.3, count),
                rng.normal(0, 0.5, count),
                rng.uniform(0.5, 2, count),
            ]
        )
    images = rng.random((4, 32, 32, 3), np.float32)
    folded = resnet.folded(CONFIG)
    set_weights(folded, fold(CONFIG, model))
    expected = model(images, training=False).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(folded(images).numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
