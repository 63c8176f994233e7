"""The chain from jets to the trained artefact. Each step leaves a file, and a step whose file exists is not repeated.

<folder>/jets/{train,val,test}.h5   jets.generate, or the public dataset
<folder>/float.npz                  float training or an import: folded convolutions and classifier (float_network.py)
<folder>/calibrated.npz             quantised, not yet fine-tuned (checkpoint.py, as the next two)
<folder>/finetuned.npz              quantised and fine-tuned
<folder>/network.npz                the trained artefact: its classifier re-fit, with what it reached on the test jets
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow import keras

from quantize import checkpoint, dataset, float_network, head, resnet, train
from quantize.bias_correction import correct_biases
from quantize.calibrate import candidates
from quantize.classifier import Classifier
from quantize.evaluate import evaluate
from quantize.float_network import FloatNetwork
from quantize.fold import ConvWeights, fold, set_weights
from quantize.images import CHANNELS

FLOAT, CALIBRATED, FINETUNED, NETWORK = "float.npz", "calibrated.npz", "finetuned.npz", "network.npz"
STAGES = {FLOAT: "train", CALIBRATED: "calibrate", FINETUNED: "finetune", NETWORK: "refit"}
"""The files of a workshop, in order, and the command that makes each."""


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
    test_jets: int | None = None  # all of them


class Workshop:
    """A folder in which a network is being made."""

    command = "python -m quantize demo-net"
    """What does all of it, for the artefact's provenance."""

    def __init__(self, folder: Path, plan: Plan, jets: Path | None = None) -> None:
        self.folder, self.plan = folder, plan
        self.jets = jets or folder / "jets"
        described = json.dumps(asdict(plan), indent=1)
        stamp = folder / "plan.json"
        if not stamp.is_file():
            with dataset.written_whole(stamp) as temporary:
                temporary.write_text(described)
        elif json.dumps(asdict(Plan()) | json.loads(stamp.read_text()), indent=1) != described:
            raise ValueError(f"{folder} belongs to another plan (see its plan.json): choose another --out folder")

    def images(self, split: str, limit: int | None = None) -> train.LabelledImages:
        """Return the images of the first `limit` jets of a split."""
        jets = dataset.read(self.jets / f"{split}.h5", limit)
        return train.LabelledImages.of(jets.constituents, jets.is_top, self.plan.config.size)

    def float_features(self, network: FloatNetwork, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of a float network, float32 [n, features], of planes uint8 [n, size, size]."""
        return train.features(network.to_keras(), planes)

    def features(self, network: checkpoint.QuantisedNetwork, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of a quantised network as the NPU computes them, float32 [n, features]."""
        return train.features(checkpoint.to_keras(network), planes)

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
        made = FloatNetwork(
            plan.config, fold(plan.config, featurizer), train.classifier_of(tagger), {"plan": asdict(plan)}
        )
        float_network.save(self.folder / FLOAT, made)

    def load_float(self) -> tuple[FloatNetwork, Classifier]:
        """Return float.npz and its classifier, whether trained here or imported."""
        network = float_network.load(self.folder / FLOAT)
        if network.config != self.plan.config:
            raise ValueError(f"{self.folder / FLOAT} is a {network.config}, but the plan here is a {self.plan.config}")
        if network.classifier is None:
            raise ValueError(f"{self.folder / FLOAT} has no classifier: fit one with `python -m quantize head`")
        return network, network.classifier

    def calibrate(self) -> None:
        """Quantise the folded network with the power-of-two scales that suit it best, into calibrated.npz."""
        network, classifier = self.load_float()
        planes = self.images("train", self.plan.calibration_jets).planes
        found = quantise(
            network,
            np.repeat(planes[..., None], CHANNELS, axis=-1),
            lambda network: self.float_features(network, planes),
            lambda network: self.features(network, planes),
        )
        provenance = {"stage": "calibrated", "errors": found.errors}
        checkpoint.save(self.folder / CALIBRATED, checkpoint.Checkpoint(found.network, classifier, provenance))

    def load_calibrated(self) -> tuple[dict[str, ConvWeights], resnet.Fractions, Classifier]:
        """Return what fine-tuning starts from: kernels before rounding, corrected biases, the binary points and the classifier."""
        calibrated = checkpoint.load(self.folder / CALIBRATED).network
        network, classifier = self.load_float()
        corrected = checkpoint.dequantised(calibrated)
        # Float kernels: what rounding took away may yet move a weight.
        weights = {name: replace(conv, bias=corrected[name].bias) for name, conv in network.weights.items()}
        return weights, calibrated.fractions, classifier

    def finetune(self) -> None:
        """Fine-tune the quantised network together with its classifier, into finetuned.npz."""
        plan = self.plan
        weights, fractions, classifier = self.load_calibrated()
        featurizer = resnet.quantised(plan.config, fractions)
        set_weights(featurizer, weights)
        tagger = train.add_classifier(featurizer, len(classifier.b1))
        train.set_classifier(tagger, classifier)
        history = train.fit(
            tagger,
            self.images("train", plan.finetuning_jets),
            self.images("val", plan.validation_jets),
            plan.finetune_schedule,
            self.folder / "finetune-checkpoint",
        )
        print(f"fine-tuned: {history[-1]}")
        made = checkpoint.Checkpoint(
            checkpoint.to_integers(plan.config, fractions, featurizer),
            train.classifier_of(tagger),
            {"stage": "finetuned", "history": history},
        )
        checkpoint.save(self.folder / FINETUNED, made)

    def refit(self) -> None:
        """Re-fit the classifier on the features as the NPU computes them, measure every stage, and write network.npz."""
        plan = self.plan
        start = checkpoint.load(self.folder / FINETUNED)
        calibrated = checkpoint.load(self.folder / CALIBRATED)
        if start.classifier is None or calibrated.classifier is None:
            raise ValueError(f"{FINETUNED} or {CALIBRATED} in {self.folder} has no classifier: fine-tune again")
        sample = self.images("train", plan.classifier_jets)
        values = self.features(start.network, sample.planes)
        schedule = plan.classifier_schedule
        classifier = head.refit(
            values, sample.is_top, start.classifier, schedule.epochs, schedule.batch, schedule.rate, schedule.seed
        )
        test = self.images("test", plan.test_jets)
        network, float_classifier = self.load_float()
        # The fine-tuned network and this one have the same features: they are computed once.
        test_features = self.features(start.network, test.planes)
        tagged = {
            "float": float_classifier.probabilities(self.float_features(network, test.planes)),
            "calibrated": calibrated.classifier.probabilities(self.features(calibrated.network, test.planes)),
            "finetuned": start.classifier.probabilities(test_features),
            "refit": classifier.probabilities(test_features),
        }
        reached = {name: evaluate(test.is_top, probabilities[:, 1]) for name, probabilities in tagged.items()}
        for name, performance in reached.items():
            print(f"{name}: {performance}")
        provenance: dict[str, Any] = {
            "command": self.command,
            "plan": asdict(plan),
            "jets": _manifest(self.jets),
            "float": network.provenance,
            "calibrated": calibrated.provenance,
            "finetuned": start.provenance,
            "test": {name: asdict(performance) for name, performance in reached.items()},
        }
        checkpoint.save(self.folder / NETWORK, checkpoint.Checkpoint(start.network, classifier, provenance))

    def run(self) -> Path:
        """Run every step that is not done yet, and return the artefact."""
        steps: list[tuple[str, Callable[[], None]]] = [
            (FLOAT, self.train_float),
            (CALIBRATED, self.calibrate),
            (FINETUNED, self.finetune),
            (NETWORK, self.refit),
        ]
        for name, step in steps:
            if not (self.folder / name).is_file():
                step()
        return self.folder / steps[-1][0]


@dataclass(frozen=True)
class Quantisation:
    """A float network in integers. errors: of its features, by the power of the rounding errors that chose the binary points."""

    network: checkpoint.QuantisedNetwork
    errors: dict[float, float]


def quantise(
    network: FloatNetwork,
    images: NDArray[np.uint8],
    float_features: Callable[[FloatNetwork], NDArray] | None = None,
    features: Callable[[checkpoint.QuantisedNetwork], NDArray] | None = None,
) -> Quantisation:
    """Return the float network in integers: biases corrected, and the binary points whose features are nearest to the float network's.

    images: uint8 [n, size, size, channels], a sample of what it will see. float_features, features: what computes the features of
    that sample, [n, features]; Keras if not given. An error is the features' squared error over their variance.
    """
    wanted = float_features(network) if float_features else _features(network.to_keras(), images)
    spread = np.square(wanted - wanted.mean(axis=0)).sum() or 1.0
    made, errors = {}, {}
    for power, fractions in candidates(network.config, network.weights, images).items():
        model = resnet.quantised(network.config, fractions)
        set_weights(model, correct_biases(network.config, network.weights, fractions, images))
        made[power] = checkpoint.to_integers(network.config, fractions, model)
        found = features(made[power]) if features else _features(model, images)
        errors[power] = float(np.square(found - wanted).sum() / spread)
        print(
            f"binary points by errors to the power of {power:g}: features off by {errors[power]:.2%} of their variance"
        )
    return Quantisation(made[min(errors, key=lambda power: errors[power])], errors)


def _features(model: keras.Model, images: NDArray[np.uint8], batch: int = 32) -> NDArray[np.float32]:
    inputs = (images[i : i + batch].astype(np.float32) / 2**resnet.INPUT_FRACTION for i in range(0, len(images), batch))
    return np.concatenate([train.compute(model, x) for x in inputs])


def tag(trained: checkpoint.Checkpoint, images: train.LabelledImages) -> np.ndarray:
    """Return [P(QCD), P(top)], float32 [n, 2], of a trained artefact, with exact quantised features."""
    if trained.classifier is None:
        raise ValueError("this network has no classifier: fine-tune it first")
    return trained.classifier.probabilities(train.features(checkpoint.to_keras(trained.network), images.planes))


def _manifest(jets: Path) -> Any:
    path = jets / "manifest.json"
    return json.loads(path.read_text()) if path.is_file() else f"no manifest beside the jets in {jets.name}"
