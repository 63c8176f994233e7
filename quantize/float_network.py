"""The float network with its batch normalisation folded: what training or an import gives, and quantisation starts from.

In a file (.npz, without pickle):

meta                          JSON: format, configuration, provenance
<conv>/kernel, <conv>/bias    float32 [height, width, inputs, filters] and [filters]; the input is image / 256
classifier/...                the classifier, where there is one (classifier.py)
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow import keras

from quantize import resnet
from quantize.classifier import Classifier
from quantize.dataset import written_whole
from quantize.fold import ConvWeights, set_weights

FORMAT = "quarkwave-float-1"


@dataclass(frozen=True)
class FloatNetwork:
    """A folded featurizer in float32, by convolution, and its classifier. provenance: how it was made, JSON-able."""

    config: resnet.ResNetConfig
    weights: dict[str, ConvWeights]
    classifier: Classifier | None
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_keras(self) -> keras.Model:
        """Return the float featurizer, float32 [n, size, size, 3] (image / 256) to float32 [n, features]."""
        model = resnet.folded(self.config)
        set_weights(model, self.weights)
        return model


def save(path: Path, network: FloatNetwork) -> None:
    """Write the network to `path`, whole or not at all."""
    meta = {"format": FORMAT, "config": asdict(network.config), "provenance": network.provenance}
    arrays = {"meta": np.array(json.dumps(meta))}
    for name, conv in network.weights.items():
        arrays |= {f"{name}/kernel": conv.kernel, f"{name}/bias": conv.bias}
    if network.classifier is not None:
        arrays |= network.classifier.to_arrays()
    with written_whole(path) as temporary:
        np.savez(temporary, **arrays)


def load(path: Path) -> FloatNetwork:
    """Read a network. Raises FileNotFoundError or ValueError with what to do about it."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no float network at {path}: train one with `python -m quantize train`, or bring one with `python -m quantize import`"
        )
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = json.loads(str(arrays["meta"]))
        if meta["format"] != FORMAT:
            raise ValueError(f"format {meta['format']!r}, not {FORMAT!r}")
        config = resnet.ResNetConfig(**meta["config"])
        weights = {c.name: ConvWeights(arrays[f"{c.name}/kernel"], arrays[f"{c.name}/bias"]) for c in config.convs}
        for conv in config.convs:
            if weights[conv.name].kernel.shape != conv.weights_shape or len(weights[conv.name].bias) != conv.filters:
                raise ValueError(f"the weights of {conv.name} do not have its shape")
        classifier = Classifier.from_arrays(arrays) if "classifier/w1" in arrays else None
    except Exception as error:  # whatever is in the file
        raise ValueError(f"{path} is not a float network of this project ({error}): make or import it again") from error
    return FloatNetwork(config, weights, classifier, meta["provenance"])
