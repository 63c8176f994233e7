"""The classifier on the featurizer's output: Dense ReLU, Dense softmax, on the CPU. NumPy only, for the service.

In a file (.npz, without pickle), which may be a whole trained artefact (checkpoint.py) or hold a classifier alone:

classifier/w1, b1, w2, b2     float32: softmax(relu(features w1 + b1) w2 + b2)
classifier/classes            names of the classes, [classes]; QCD and top where it is missing
classifier/provenance         JSON: how it was made; only in files of their own
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantize.dataset import written_whole

JET_CLASSES = ("QCD", "top")
_PREFIX = "classifier/"


@dataclass(frozen=True)
class Classifier:
    """Two dense layers, float32: w1 [features, hidden], b1 [hidden], w2 [hidden, classes], b2 [classes].

    classes: their names, by default QCD and top, or numbers where there are not two.
    """

    w1: NDArray[np.float32]
    b1: NDArray[np.float32]
    w2: NDArray[np.float32]
    b2: NDArray[np.float32]
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.b2)
        default = JET_CLASSES if count == len(JET_CLASSES) else tuple(map(str, range(count)))
        object.__setattr__(self, "classes", tuple(map(str, self.classes)) or default)
        if len(self.classes) != count:
            raise ValueError(f"{len(self.classes)} class names {self.classes} for a classifier of {count} classes")

    def probabilities(self, features: NDArray) -> NDArray[np.float32]:
        """Return the probability of each class, float32 [n, classes], of features [n, features]."""
        features = np.asarray(features, np.float32)
        if features.ndim != 2 or features.shape[1] != len(self.w1):
            raise ValueError(f"the classifier wants features [n, {len(self.w1)}], not {list(features.shape)}")
        logits = np.maximum(features @ self.w1 + self.b1, 0) @ self.w2 + self.b2
        exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponent / exponent.sum(axis=1, keepdims=True)

    def to_arrays(self) -> dict[str, NDArray]:
        """What a file holds of it."""
        layers = {name: getattr(self, name) for name in ("w1", "b1", "w2", "b2")}
        return {_PREFIX + name: value for name, value in {**layers, "classes": np.array(self.classes)}.items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray]) -> "Classifier":
        """The classifier in a file's arrays. Raises KeyError when there is none, ValueError when its arrays do not fit."""
        w1, b1, w2, b2 = (arrays[_PREFIX + name] for name in ("w1", "b1", "w2", "b2"))
        names = _PREFIX + "classes"
        return Classifier(w1, b1, w2, b2, tuple(arrays[names].tolist()) if names in arrays else ())


def load_classifier(path: Path) -> Classifier:
    """Read the classifier of a trained artefact, or of a file of its own.

    Raises FileNotFoundError or ValueError with what to do about it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no trained network at {path}: make one with `python -m quantize demo-net`")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Classifier.from_arrays(stored)
    except Exception as error:  # a file may be damaged in many ways
        raise ValueError(f"{path} holds no classifier ({error}): fetch or make the network again") from error


def save_classifier(path: Path, classifier: Classifier, provenance: dict[str, Any]) -> None:
    """Write a classifier to a file of its own, whole or not at all."""
    arrays = classifier.to_arrays() | {_PREFIX + "provenance": np.array(json.dumps(provenance))}
    with written_whole(path) as temporary:
        np.savez_compressed(temporary, **arrays)
