"""The classifier on the featurizer's output: Dense ReLU, Dense softmax, on the CPU. NumPy only, for the service."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Classifier:
    """Two dense layers, float32: w1 [features, hidden], b1 [hidden], w2 [hidden, 2], b2 [2]."""

    w1: NDArray[np.float32]
    b1: NDArray[np.float32]
    w2: NDArray[np.float32]
    b2: NDArray[np.float32]

    def probabilities(self, features: NDArray) -> NDArray[np.float32]:
        """Return [P(QCD), P(top)], float32 [n, 2], of features [n, features]."""
        features = np.asarray(features, np.float32)
        if features.ndim != 2 or features.shape[1] != len(self.w1):
            raise ValueError(f"the classifier wants features [n, {len(self.w1)}], not {list(features.shape)}")
        logits = np.maximum(features @ self.w1 + self.b1, 0) @ self.w2 + self.b2
        exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponent / exponent.sum(axis=1, keepdims=True)


def load_classifier(path: Path) -> Classifier:
    """Read the classifier of a trained artefact (see checkpoint.py for the file).

    Raises FileNotFoundError or ValueError with what to do about it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no trained network at {path}: make one with `python -m quantize demo-net`")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Classifier(*(stored[f"classifier/{name}"] for name in ("w1", "b1", "w2", "b2")))
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{path} holds no classifier ({error}): fetch or make the network again") from error
