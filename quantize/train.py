"""Training: the float network with batch normalisation, then the quantised twin from the float weights.

Both run epoch by epoch and keep a checkpoint of each, so that an interrupted run goes on where it stopped. Batches
are drawn from a seed and the epoch's number, and each jet is mirrored at random in eta and in phi, which physics
does not tell apart.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow import keras
from tqdm import tqdm

from quantize import resnet
from quantize.classifier import Classifier
from quantize.evaluate import auc
from quantize.images import CHANNELS, jet_planes


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. The rate warms up over the first 5 % and falls along a cosine to zero."""

    epochs: int
    batch: int
    rate: float
    seed: int = 1


@dataclass(frozen=True)
class LabelledImages:
    """Images as one uint8 channel [n, size, size] (the three are equal) and labels int64 [n], 1 for top."""

    planes: NDArray[np.uint8]
    is_top: NDArray[np.int64]

    @staticmethod
    def of(constituents: NDArray, is_top: NDArray[np.int64], size: int) -> "LabelledImages":
        """Draw the images of jets with constituents [n, m, 4]."""
        return LabelledImages(jet_planes(constituents, size), is_top)

    def __len__(self) -> int:
        return len(self.is_top)


class _Batches(keras.utils.Sequence):
    """The shuffled, mirrored batches of one epoch, as network input (image / 256)."""

    def __init__(self, data: LabelledImages, batch: int, seed: int, epoch: int) -> None:
        self._data, self._batch = data, batch
        rng = np.random.default_rng((seed, epoch))
        self._order = rng.permutation(len(data))
        self._mirror = rng.random((2, len(data))) < 0.5

    def __len__(self) -> int:
        return len(self._data) // self._batch

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        chosen = self._order[index * self._batch : (index + 1) * self._batch]
        planes = self._data.planes[chosen]
        for axis, mirror in enumerate(self._mirror[:, chosen], start=1):
            planes = np.where(mirror[:, None, None], np.flip(planes, axis), planes)
        return network_input(planes), self._data.is_top[chosen]


def network_input(planes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what the network sees, float32 [n, size, size, 3], of image planes uint8 [n, size, size]."""
    scaled = planes.astype(np.float32) / 2**resnet.INPUT_FRACTION
    return np.repeat(scaled[..., None], CHANNELS, axis=-1)


def add_classifier(featurizer: keras.Model, hidden: int) -> keras.Model:
    """Return the tagger: `featurizer`, Dense(hidden) ReLU, Dense(2) logits."""
    x = keras.layers.Dense(hidden, activation="relu", name="hidden")(featurizer.output)
    return keras.Model(featurizer.input, keras.layers.Dense(2, name="logits")(x), name=f"{featurizer.name}_tagger")


def classifier_of(tagger: keras.Model) -> Classifier:
    """Return the classifier on top of a tagger's featurizer."""
    (w1, b1), (w2, b2) = (tagger.get_layer(name).get_weights() for name in ("hidden", "logits"))
    return Classifier(w1, b1, w2, b2)


def set_classifier(tagger: keras.Model, classifier: Classifier) -> None:
    """Load a classifier into a tagger."""
    tagger.get_layer("hidden").set_weights([classifier.w1, classifier.b1])
    tagger.get_layer("logits").set_weights([classifier.w2, classifier.b2])


def fit(
    tagger: keras.Model, train: LabelledImages, val: LabelledImages, schedule: Schedule, folder: Path
) -> list[dict[str, float]]:
    """Train a tagger in place, and return one record an epoch (loss, accuracy, val_auc).

    folder: holds a checkpoint of the last finished epoch; training continues from there when it exists.
    """
    if len(train) < schedule.batch:
        raise ValueError(f"{len(train)} training jets are fewer than one batch of {schedule.batch}: generate more")
    steps = len(train) // schedule.batch * schedule.epochs
    warm_up = max(1, steps // 20)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-2 * schedule.rate, steps - warm_up, warmup_target=schedule.rate, warmup_steps=warm_up
    )
    tagger.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    tagger.optimizer.build(tagger.trainable_variables)
    done = tf.Variable(0, dtype=tf.int64)
    history = [tf.Variable(tf.zeros(3), name=f"epoch{i}") for i in range(schedule.epochs)]
    saved = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=tagger, optimizer=tagger.optimizer, done=done, history=history),
        str(folder),
        max_to_keep=1,
    )
    if saved.latest_checkpoint:
        saved.checkpoint.restore(saved.latest_checkpoint).assert_existing_objects_matched()
        print(f"continuing after epoch {int(done)} from {folder}")
    for epoch in range(int(done), schedule.epochs):
        batches = _Batches(train, schedule.batch, schedule.seed, epoch)
        print(f"epoch {epoch + 1}/{schedule.epochs}")
        result = tagger.fit(batches, verbose=1, shuffle=False).history
        val_auc = auc(val.is_top, predict(tagger, val.planes)[:, 1])
        print(f"validation AUC {val_auc:.4f}")
        history[epoch].assign([result["loss"][0], result["accuracy"][0], val_auc])
        done.assign_add(1)
        saved.save()
    return [dict(zip(("loss", "accuracy", "val_auc"), map(float, h.numpy()), strict=True)) for h in history]


def predict(tagger: keras.Model, planes: NDArray[np.uint8], batch: int = 256) -> NDArray[np.float32]:
    """Return [P(QCD), P(top)], float32 [n, 2], of a tagger."""
    return _in_batches(lambda x: tf.nn.softmax(compute(tagger, x)).numpy(), planes, batch)


def features(featurizer: keras.Model, planes: NDArray[np.uint8], batch: int = 256) -> NDArray[np.float32]:
    """Return the features, float32 [n, features], computed eagerly and hence exactly for a quantised featurizer."""
    return _in_batches(partial(compute, featurizer), planes, batch)


def compute(model: keras.Model, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what a model gives for network input, computed eagerly."""
    return model(x, training=False).numpy()


def _in_batches(function: Any, planes: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
    starts = tqdm(range(0, len(planes), batch), desc="images", unit="batch", leave=False)
    return np.concatenate([function(network_input(planes[start : start + batch])) for start in starts])
