"""The chain of pipeline.py with PyTorch's training: the same files, and larger networks grown out of smaller ones.

A stage of growth is a workshop of its own. It starts from the float.npz of the stage before, whose network it may widen (widen.py) and
whose images it may enlarge: a convolutional network takes any size, and what it learned on small images is a start for large ones.
"""

import json
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quantize import checkpoint, dataset, float_network, plots, torch_train
from quantize.classifier import Classifier
from quantize.float_network import FloatNetwork
from quantize.images import jet_planes
from quantize.pipeline import FINETUNED, FLOAT, Plan, Workshop
from quantize.torch_network import Featurizer, Folded, Quantised, Tagger, Trainable, network_input
from quantize.widen import widen

FEATURES = "features"
"""Folder of a workshop with the features that have been computed."""
STATISTICS_JETS = 256
"""How many jets give a folded network its batch normalisation back."""


@dataclass(frozen=True)
class Door:
    """What only this framework takes.

    start: float network to begin with; a fresh one when None. noise: see widen. batch_norm: train with it, or the folded network.
    minutes: longest training. device: cpu or cuda; the GPU where there is one when None. teacher: fine-tune towards the float network's
    features, not the labels.
    """

    start: Path | None = None
    noise: float = 0.02
    batch_norm: bool = True
    minutes: float | None = None
    device: str | None = None
    teacher: bool = False


class TorchWorkshop(Workshop):
    """A folder in which a network is being made by PyTorch."""

    command = "make train-resnet50"

    def __init__(self, folder: Path, plan: Plan, jets: Path | None = None, door: Door | None = None) -> None:
        super().__init__(folder, plan, jets)
        self.door = door or Door()
        self.device = self.door.device or torch_train.best_device()

    def train_float(self) -> None:
        """Train the float network and fold it, into float.npz; float-curve.png shows how it learned, from the first stage on."""
        plan = self.plan
        torch.manual_seed(plan.float_schedule.seed)
        train, val = self._jets("train", plan.training_jets), self._jets("val", plan.validation_jets)
        start = self._start()
        tagger = self._tagger(start, train)
        progress = self._fit(tagger, train, val, "float")
        featurizer = tagger.featurizer
        assert isinstance(featurizer, Trainable | Folded)
        made = FloatNetwork(
            plan.config,
            featurizer.fold(),
            tagger.classifier(),
            {
                "framework": f"PyTorch {torch.__version__}",
                "plan": asdict(plan),
                "noise": self.door.noise,
                "batch_norm": self.door.batch_norm,
                "minutes": self.door.minutes,
                "curve": progress.curve,
                "start": start.provenance if start else None,
            },
        )
        float_network.save(self.folder / FLOAT, made)
        plots.draw_learning_curve(_curves(made.provenance), self.folder / "float-curve.png")

    def finetune(self) -> None:
        """Fine-tune the quantised network together with its classifier, into finetuned.npz."""
        plan = self.plan
        weights, fractions, classifier = self.load_calibrated()
        featurizer = Quantised(plan.config, weights, fractions)
        tagger = _with_classifier(featurizer, classifier)
        train, val = self._jets("train", plan.finetuning_jets), self._jets("val", plan.validation_jets)
        # A float network that went on learning is fine-tuned anew.
        of = f"-{zlib.crc32((self.folder / FLOAT).read_bytes()):08x}"
        teacher = None
        if self.door.teacher:
            network, _ = self.load_float()
            teacher, of = Folded(network.config, network.weights), f"{of}-teacher"
        progress = self._fit(tagger, train, val, "finetune", of, teacher)
        provenance = {
            "stage": "finetuned",
            "framework": f"PyTorch {torch.__version__}",
            "teacher": self.door.teacher,
            "curve": progress.curve,
        }
        made = checkpoint.Checkpoint(featurizer.to_integers(), tagger.classifier(), provenance)
        checkpoint.save(self.folder / FINETUNED, made)

    def float_features(self, network: FloatNetwork, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of a float network, float32 [n, features]."""
        return self._kept_features(Folded(network.config, network.weights), planes)

    def features(self, network: checkpoint.QuantisedNetwork, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of a quantised network, float32 [n, features]: QKeras's and the NPU's, integer by integer."""
        return self._kept_features(Quantised.of(network), planes)

    def _kept_features(self, featurizer: Featurizer, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
        return torch_train.kept_features(featurizer.to(self.device), planes, self.folder / FEATURES)

    def _jets(self, split: str, limit: int | None) -> dataset.Jets:
        return dataset.read(self.jets / f"{split}.h5", limit)

    def _start(self) -> FloatNetwork | None:
        """The network to begin with, at this plan's width and size."""
        if self.door.start is None:
            return None
        config, given = self.plan.config, float_network.load(self.door.start)
        if (given.config.stages, given.config.version) != (config.stages, config.version):
            raise ValueError(f"{self.door.start} is a {given.config}, which cannot grow into the plan's {config}")
        if given.config.width != config.width:
            given = widen(given, config.width, self.door.noise, self.plan.float_schedule.seed)
        return replace(given, config=config)

    def _tagger(self, start: FloatNetwork | None, train: dataset.Jets) -> Tagger:
        config = self.plan.config
        if start is None:
            return Tagger(Trainable(config, self.plan.batch_norm_momentum), self.plan.hidden)
        if start.classifier is None:
            raise ValueError(f"{self.door.start} has no classifier: fit one with `python -m quantize head`")
        if not self.door.batch_norm:
            return _with_classifier(Folded(config, start.weights), start.classifier)
        featurizer = Trainable(config, self.plan.batch_norm_momentum)
        # On the CPU: one large batch may be more than a GPU holds.
        featurizer.load_folded(
            start.weights, network_input(jet_planes(train[:STATISTICS_JETS].constituents, config.size))
        )
        return _with_classifier(featurizer, start.classifier)

    def _fit(
        self,
        tagger: Tagger,
        train: dataset.Jets,
        val: dataset.Jets,
        stage: str,
        of: str = "",
        teacher: Featurizer | None = None,
    ) -> torch_train.Progress:
        schedule = self.plan.float_schedule if stage == "float" else self.plan.finetune_schedule
        folder = self.folder / f"{stage}-checkpoint{of}"
        progress = torch_train.fit(tagger, train, val, schedule, folder, self.device, self.door.minutes, teacher)
        with dataset.written_whole(self.folder / f"{stage}-curve.json") as temporary:
            temporary.write_text(json.dumps(progress.curve, indent=1) + "\n")
        return progress


def _curves(provenance: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """The learning curves that led to a float network, stage after stage."""
    before = provenance.get("start") or {}
    if "curve" not in provenance:  # Keras keeps none
        return {}
    config = provenance["plan"]["config"]
    return _curves(before) | {f"width {config['width']}, {config['size']} px": provenance["curve"]}


def _with_classifier(featurizer: Any, classifier: Classifier) -> Tagger:
    tagger = Tagger(featurizer, len(classifier.b1))
    tagger.load_classifier(classifier)
    return tagger
