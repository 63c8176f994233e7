"""Fit a classifier on features, without touching the featurizer: transfer learning, and the re-fit on a device's own features.

The paper's users kept the accelerator's ResNet-50 and brought classifiers of their own (arXiv:1904.08986, sections 3.2
and 3.3). The features may come from any device (`python -m driver run --out features.npz`) or from the service.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantize.classifier import Classifier
from quantize.evaluate import Measured, share


@dataclass(frozen=True)
class Sample:
    """Features float32 [n, features], labels int64 [n] from 0, and the names of the classes."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: NDArray) -> "Sample":
        return Sample(self.features[chosen], self.labels[chosen], self.classes)


@dataclass(frozen=True)
class Recipe:
    """How to fit a new classifier. held_out: share of each class that it is measured on and not fitted to."""

    hidden: int = 256
    epochs: int = 30
    batch: int = 128
    rate: float = 1e-3
    seed: int = 1
    held_out: float = 0.2

    def __post_init__(self) -> None:
        if min(self.hidden, self.epochs, self.batch) < 1 or self.rate <= 0:
            raise ValueError("hidden units, epochs, batch and rate must be positive")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out {self.held_out}: choose a share between 0 and 1")


@dataclass(frozen=True)
class Fitted:
    """A new classifier, what it reached on the held-out events, and those: labels [n] and probabilities [n, classes]."""

    classifier: Classifier
    accuracy: Measured
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    provenance: dict[str, Any]


def read_sample(features: Path, labels: Path, classes: tuple[str, ...] = ()) -> Sample:
    """Read features and labels from files.

    features: .npy of [n, features], or .npz with an array `features`, as the driver writes. labels: .npy of whole numbers from 0
    or of names, [n], or a text file with one a line. classes: names of the numbers in order, or the order of the names; numbers
    and alphabetical order when not given. Raises FileNotFoundError or ValueError that names what is wrong.
    """
    return sample(_read_array(features, "features"), _read_array(labels, "labels"), classes)


def sample(features: NDArray, labels: NDArray, classes: tuple[str, ...] = ()) -> Sample:
    """Check features and labels (see read_sample) and bring them to one form."""
    features, labels = np.asarray(features), np.asarray(labels)
    if features.ndim != 2 or not features.size or features.dtype.kind not in "fiu":
        raise ValueError(f"features must be numbers [events, features], not {features.dtype} {list(features.shape)}")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ValueError(f"the features of event {int(np.argmin(finite))} hold a NaN or an infinity: leave it out")
    if labels.shape != (len(features),):
        raise ValueError(f"{len(features)} rows of features need {len(features)} labels, not {list(labels.shape)}")
    if labels.dtype.kind in "iub" or (labels.dtype.kind == "f" and (labels == np.rint(labels)).all()):
        numbers = labels.astype(np.int64)
        if numbers.min() < 0:
            raise ValueError(f"label {numbers.min()}: number the classes from 0")
        classes = classes or tuple(map(str, range(int(numbers.max()) + 1)))
        if numbers.max() >= len(classes):
            raise ValueError(f"label {numbers.max()} has no name: there are {len(classes)} classes, from 0")
    elif labels.dtype.kind == "U":
        found = sorted(set(labels.tolist()))
        if classes and set(found) - set(classes):
            raise ValueError(f"the labels {sorted(set(found) - set(classes))} are none of the classes {list(classes)}")
        classes = classes or tuple(found)
        numbers = np.array([classes.index(name) for name in labels.tolist()], np.int64)
    else:
        raise ValueError(f"labels must be whole numbers or names, not {labels.dtype}")
    counts = np.bincount(numbers, minlength=len(classes))
    if len(classes) < 2 or counts.min() < 2:
        few = ", ".join(f"{name}: {count}" for name, count in zip(classes, counts, strict=True))
        raise ValueError(f"a classifier needs two classes and two events of each, not {few}")
    return Sample(features.astype(np.float32), numbers, classes)


def fit(data: Sample, recipe: Recipe) -> Fitted:
    """Fit a new classifier on all but the held-out share of each class, and measure it on that."""
    rng = np.random.default_rng(recipe.seed)
    held = np.zeros(len(data), bool)
    for label in range(len(data.classes)):
        members = rng.permutation(np.flatnonzero(data.labels == label))
        held[members[: min(max(1, round(recipe.held_out * len(members))), len(members) - 1)]] = True
    training, test = data[~held], data[held]
    start = _fresh(training, recipe.hidden, rng)
    classifier = refit(training.features, training.labels, start, recipe.epochs, recipe.batch, recipe.rate, recipe.seed)
    probabilities = classifier.probabilities(test.features)
    reached = share(probabilities.argmax(axis=1) == test.labels)
    provenance = {"recipe": asdict(recipe), "events": len(data), "held_out_accuracy": asdict(reached)}
    return Fitted(classifier, reached, test.labels, probabilities, provenance)


def refit(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    start: Classifier,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
) -> Classifier:
    """Fit the classifier `start` further (Adam, the rate falling to zero along a cosine) on features [n, features], labels [n].

    The features are standardised for the fit, and the standardisation is folded into w1 and b1.
    """
    from tensorflow import keras
    from tqdm import tqdm

    mean, spread = _standardisation(features)
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.layers.Input((features.shape[1],)),
            keras.layers.Dense(len(start.b1), activation="relu"),
            keras.layers.Dense(len(start.b2)),
        ]
    )
    model.set_weights([start.w1 * spread[:, None], start.b1 + mean @ start.w1, start.w2, start.b2])
    steps = math.ceil(len(features) / batch) * epochs
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    with tqdm(total=epochs, desc="classifier", unit="epoch") as bar:
        count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: bar.update())
        model.fit((features - mean) / spread, labels, batch, epochs, verbose=0, callbacks=[count])
    w1, b1, w2, b2 = model.get_weights()
    w1 = w1 / spread[:, None]
    return Classifier(w1, (b1 - mean @ w1).astype(np.float32), w2, b2, start.classes)


def _fresh(data: Sample, hidden: int, rng: np.random.Generator) -> Classifier:
    """A He-normal classifier of the standardised features."""
    inputs, outputs = data.features.shape[1], len(data.classes)
    mean, spread = _standardisation(data.features)
    w1 = (np.sqrt(2 / inputs) * rng.standard_normal((inputs, hidden)) / spread[:, None]).astype(np.float32)
    w2 = (np.sqrt(1 / hidden) * rng.standard_normal((hidden, outputs))).astype(np.float32)
    return Classifier(w1, (-mean @ w1).astype(np.float32), w2, np.zeros(outputs, np.float32), data.classes)


def _standardisation(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and spread of each feature, [features]; the spread of a dead feature is 1."""
    spread = features.std(axis=0)
    return features.mean(axis=0), np.where(spread > 1e-6, spread, 1.0).astype(np.float32)


def _read_array(path: Path, name: str) -> NDArray:
    if not path.is_file():
        raise FileNotFoundError(f"no {name} at {path}")
    try:
        if path.suffix not in (".npy", ".npz"):
            lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
            return np.array([int(line) for line in lines] if all(line.isdigit() for line in lines) else lines)
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return stored
        with stored:
            return stored[name]
    except Exception as error:  # whatever is in the file
        raise ValueError(f"{path} holds no {name} as .npy, .npz or text ({error})") from error
