"""The chain from jets to the trained artefact. Each step leaves a file, and a step whose file exists is not repeated.

<folder>/jets/{train,val,test}.h5   jets.generate, or the public dataset
<folder>/float.npz                  float training: folded convolutions and classifier
<folder>/calibrated.npz             quantised, not yet fine-tuned (the artefact's own format)
<folder>/network.npz              the trained artefact, with what it reached on the test jets
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow import keras

from quantize import checkpoint, dataset, resnet, train
from quantize.calibrate import calibrate
from quantize.classifier import Classifier
from quantize.evaluate import Performance, evaluate
from quantize.fold import ConvWeights, fold, set_weights
from quantize.images import CHANNELS


@dataclass(frozen=True)
class Plan:
    """What to train and for how long. The defaults make the demo's network in about one core-hour."""

    config: resnet.ResNetConfig = field(default_factory=lambda: resnet.ResNetConfig(width=16, size=64))
    hidden: int = 256  # of the classifier; the paper's is 1024, on four times as many features
    float_schedule: train.Schedule = field(default_factory=lambda: train.Schedule(epochs=2, batch=64, rate=2e-3))
    finetune_schedule: train.Schedule = field(default_factory=lambda: train.Schedule(epochs=1, batch=64, rate=2e-4))
    # The classifier's last fit, on the features of the training jets as the accelerator computes them.
    classifier_schedule: train.Schedule = field(default_factory=lambda: train.Schedule(epochs=10, batch=128, rate=1e-4))
    batch_norm_momentum: float = 0.9
    training_jets: int | None = None  # all of them
    finetuning_jets: int = 32_000
    classifier_jets: int = 16_000
    calibration_jets: int = 512
    validation_jets: int = 2_000


class Workshop:
    """A folder in which a network is being made."""

    def __init__(self, folder: Path, plan: Plan, jets: Path | None = None) -> None:
        self.folder, self.plan = folder, plan
        self.jets = jets or folder / "jets"
        described = json.dumps(asdict(plan), indent=1)
        stamp = folder / "plan.json"
        if not stamp.is_file():
            with dataset.written_whole(stamp) as temporary:
                temporary.write_text(described)
        elif stamp.read_text() != described:
            raise ValueError(f"{folder} belongs to another plan (see its plan.json): choose another --out folder")

    def images(self, split: str, limit: int | None = None) -> train.LabelledImages:
        """Return the images of the first `limit` jets of a split."""
        jets = dataset.read(self.jets / f"{split}.h5", limit)
        return train.LabelledImages.of(jets.constituents, jets.is_top, self.plan.config.size)

    def train_float(self) -> None:
        """Train the float network and fold it, into float.npz."""
        plan = self.plan
        keras.utils.set_random_seed(plan.float_schedule.seed)
        featurizer = resnet.trainable(plan.config, plan.batch_norm_momentum)
        tagger = train.add_classifier(featurizer, plan.hidden)
        history = train.fit(
            tagger,
            self.images("train", plan.training_jets),
            self.images("val", plan.validation_jets),
            plan.float_schedule,
            self.folder / "float-checkpoint",
        )
        print(f"float: {history[-1]}")
        arrays = {f"classifier/{name}": value for name, value in vars(train.classifier_of(tagger)).items()}
        for name, conv in fold(plan.config, featurizer).items():
            arrays |= {f"{name}/kernel": conv.kernel, f"{name}/bias": conv.bias}
        with dataset.written_whole(self.folder / "float.npz") as temporary:
            np.savez(temporary, **arrays)

    def load_float(self) -> tuple[dict[str, ConvWeights], Classifier]:
        """Return the folded convolutions and the classifier of float.npz."""
        with np.load(self.folder / "float.npz", allow_pickle=False) as stored:
            weights = {
                conv.name: ConvWeights(stored[f"{conv.name}/kernel"], stored[f"{conv.name}/bias"])
                for conv in self.plan.config.convs
            }
            return weights, Classifier(*(stored[f"classifier/{name}"] for name in ("w1", "b1", "w2", "b2")))

    def calibrate(self) -> None:
        """Quantise the folded network with the best power-of-two scales, into calibrated.npz."""
        config = self.plan.config
        weights, classifier = self.load_float()
        planes = self.images("train", self.plan.calibration_jets).planes
        fractions = calibrate(config, weights, np.repeat(planes[..., None], CHANNELS, axis=-1))
        model = resnet.quantised(config, fractions)
        set_weights(model, weights)
        network = checkpoint.to_integers(config, fractions, model)
        checkpoint.save(
            self.folder / "calibrated.npz", checkpoint.Checkpoint(network, classifier, {"stage": "calibrated"})
        )

    def finetune(self) -> None:
        """Fine-tune the quantised network, re-fit its classifier, measure it, and write network.npz."""
        plan = self.plan
        start = checkpoint.load(self.folder / "calibrated.npz")
        fractions = start.network.fractions
        weights, classifier = self.load_float()
        featurizer = resnet.quantised(plan.config, fractions)
        set_weights(featurizer, weights)  # the float weights: what rounding took away may yet move a weight
        tagger = train.add_classifier(featurizer, plan.hidden)
        train.set_classifier(tagger, classifier)
        images = self.images("train", plan.finetuning_jets)
        history = train.fit(
            tagger,
            images,
            self.images("val", plan.validation_jets),
            plan.finetune_schedule,
            self.folder / "finetune-checkpoint",
        )
        print(f"fine-tuned: {history[-1]}")
        network = checkpoint.to_integers(plan.config, fractions, featurizer)
        exact = checkpoint.to_keras(network)
        sample = self.images("train", plan.classifier_jets)
        classifier = train.fit_classifier(
            train.features(exact, sample.planes),
            sample.is_top,
            train.classifier_of(tagger),
            plan.classifier_schedule,
        )
        test = self.images("test")
        reached = {
            "float": self._float_performance(test),
            "calibrated": _quantised_performance(start, test),
            "finetuned": _quantised_performance(checkpoint.Checkpoint(network, classifier), test),
        }
        for name, performance in reached.items():
            print(f"{name}: {performance}")
        provenance: dict[str, Any] = {
            "command": "python -m quantize demo-net",
            "plan": asdict(plan),
            "jets": _manifest(self.jets),
            "test": {name: asdict(performance) for name, performance in reached.items()},
        }
        checkpoint.save(self.folder / "network.npz", checkpoint.Checkpoint(network, classifier, provenance))

    def _float_performance(self, test: train.LabelledImages) -> Performance:
        weights, classifier = self.load_float()
        model = resnet.folded(self.plan.config)
        set_weights(model, weights)
        return evaluate(test.is_top, classifier.probabilities(train.features(model, test.planes))[:, 1])

    def run(self) -> Path:
        """Run every step that is not done yet, and return the artefact."""
        steps: list[tuple[str, Callable[[], None]]] = [
            ("float.npz", self.train_float),
            ("calibrated.npz", self.calibrate),
            ("network.npz", self.finetune),
        ]
        for name, step in steps:
            if not (self.folder / name).is_file():
                step()
        return self.folder / steps[-1][0]


def _quantised_performance(trained: checkpoint.Checkpoint, test: train.LabelledImages) -> Performance:
    return evaluate(test.is_top, tag(trained, test)[:, 1])


def tag(trained: checkpoint.Checkpoint, images: train.LabelledImages) -> np.ndarray:
    """Return [P(QCD), P(top)], float32 [n, 2], of a trained artefact, with exact quantised features."""
    if trained.classifier is None:
        raise ValueError("this network has no classifier: fine-tune it first")
    return trained.classifier.probabilities(train.features(checkpoint.to_keras(trained.network), images.planes))


def _manifest(jets: Path) -> Any:
    path = jets / "manifest.json"
    return json.loads(path.read_text()) if path.is_file() else f"no manifest beside the jets in {jets.name}"
