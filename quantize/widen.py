"""Make a trained network wider without changing what it computes: Net2Net (Chen, Goodfellow and Shlens, arXiv:1511.05641).

Every channel is replicated and its outgoing weights are divided by the number of replicas. Replicas would learn the same for ever; a
little noise on the kernels breaks the symmetry.
"""

from dataclasses import replace

import numpy as np

from quantize.float_network import FloatNetwork
from quantize.fold import ConvWeights


def widen(network: FloatNetwork, width: int, noise: float = 0.0, seed: int = 1) -> FloatNetwork:
    """Return the network at `width` channels of the stem, a multiple of its own width. Its classifier reads the wider features.

    noise: standard deviation of what is added to each kernel, in units of the kernel's own; 0 preserves the function.
    """
    factor, rest = divmod(width, network.config.width)
    if rest or factor < 1:
        raise ValueError(
            f"width {width} is not a multiple of the network's {network.config.width}: channels are replicated"
        )
    rng = np.random.default_rng(seed)
    weights = {}
    for conv in network.config.convs:
        given = network.weights[conv.name]
        sources = 1 if conv.name == "stem" else factor  # the image is not widened
        kernel = np.tile(given.kernel, (1, 1, sources, factor)) / sources
        if noise:
            kernel = kernel + noise * kernel.std() * rng.standard_normal(kernel.shape)
        weights[conv.name] = ConvWeights(kernel.astype(np.float32), np.tile(given.bias, factor))
    classifier = network.classifier
    if classifier is not None:
        classifier = replace(classifier, w1=np.tile(classifier.w1, (factor, 1)) / np.float32(factor))
    return FloatNetwork(replace(network.config, width=width), weights, classifier, network.provenance)
