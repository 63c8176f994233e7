"""Which models there are, by name and version: those the service was started with, or those of a model repository folder.

A repository is laid out as Triton's: ``<name>/<version>/program.npu``, with ``classifier.npz`` beside it for a tagger, and an optional
``<name>/config.pbtxt`` of which these fields count: ``name``, ``max_batch_size``, ``version_policy``, ``model_repository_agents`` (given
back to clients), and the parameter ``input`` ("image" or "constituents").
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from host_service.errors import RequestError
from host_service.models import MAX_BATCH, ConstituentsTagger, Model, Tagger, fingerprint, makes_jet_images
from host_service.scheduler import Scheduler
from hw.program import Program, ProgramError
from quantize.classifier import Classifier, load_classifier

LOG = logging.getLogger(__name__)
VERSION = "1"
"""The one version of models that come from no repository."""
CONFIG_FIELDS = (
    "name",
    "platform",
    "backend",
    "max_batch_size",
    "version_policy",
    "model_repository_agents",
    "parameters",
    "input",  # inputs, outputs and instances are the program's and the service's; only Triton needs them here
    "output",
    "instance_group",
)
INPUTS = ("image", "constituents")


@dataclass
class Entry:
    """One model's versions that are loaded, or why there are none."""

    versions: dict[str, Model] = field(default_factory=dict)
    reason: str = ""
    config: model_config_pb2.ModelConfig = field(default_factory=model_config_pb2.ModelConfig)

    @property
    def newest(self) -> str:
        """The greatest version number."""
        return max(self.versions, key=int)


class Registry:
    """The models; ``repository``: the folder that load() looks into."""

    def __init__(self, scheduler: Scheduler, device: str, repository: Path | None = None) -> None:
        self.entries: dict[str, Entry] = {}
        self.repository = repository
        self.on_change: Callable[[], None] = lambda: None
        self.changes = 0
        """How often what is loaded has changed."""
        self._scheduler = scheduler
        self._device = device
        self._programs: dict[str, Program] = {}
        """By fingerprint: models of one program share it, so that devices need not change theirs."""

    def add_network(self, program: Program, classifier: Classifier | None) -> None:
        """The models of one network: ``featurizer``, and with a classifier ``tagger`` and ``constituents_tagger``."""
        self._add(Model("featurizer", self._shared(program), self._scheduler, self._device))
        if classifier is not None:
            self._add(Tagger("tagger", self._shared(program), self._scheduler, self._device, classifier))
            if makes_jet_images(program):
                more = (self._shared(program), self._scheduler, self._device, classifier)
                self._add(ConstituentsTagger("constituents_tagger", *more))

    def find(self, name: str, version: str = "") -> tuple[Model, str]:
        """The model and its version, the newest when none is named. Raises RequestError (NOT_FOUND, UNAVAILABLE)."""
        entry = self.entries.get(name)
        if entry is None:
            raise RequestError(f"there is no model {name!r}; there are {list(self.entries)}", grpc.StatusCode.NOT_FOUND)
        if not entry.versions:
            raise RequestError(f"model {name!r} is {entry.reason}", grpc.StatusCode.UNAVAILABLE)
        version = version or entry.newest
        if version not in entry.versions:
            text = f"model {name!r} has no version {version!r}, only {', '.join(map(repr, entry.versions))}"
            raise RequestError(text, grpc.StatusCode.NOT_FOUND)
        return entry.versions[version], version

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are loaded, oldest first."""
        return sorted(self.entries[name].versions, key=int)

    async def load_all(self) -> list[str]:
        """Load every model of the repository; returns what could not be, as "name: reason"."""
        failed = []
        for name in self.names_in_repository():
            try:
                await self.load(name)
            except RequestError as error:
                failed.append(f"{name}: {error}")
        return failed

    def names_in_repository(self) -> list[str]:
        """Folders of the repository."""
        if self.repository is None:
            return []
        return sorted(
            path.name for path in self.repository.iterdir() if path.is_dir() and not path.name.startswith(".")
        )

    async def load(self, name: str) -> None:
        """Load ``name`` from the repository, anew if it is loaded. When that fails, what was loaded stays. Raises RequestError."""
        folder = self._folder(name)
        entry = self.entries.setdefault(name, Entry(reason="not loaded"))
        try:
            config, found = await asyncio.to_thread(self._read_all, name, folder)
        except (ProgramError, ValueError, OSError, text_format.ParseError) as error:
            if not entry.versions:
                entry.reason = f"not loaded: {error}"
            raise RequestError(f"model {name!r} cannot be loaded: {error}") from error
        entry.versions, entry.reason, entry.config = found, "", config
        self._changed()
        LOG.info("loaded model %s, versions %s", name, ", ".join(found))

    def unload(self, name: str) -> None:
        """Take ``name`` out; requests that are under way are answered. Raises RequestError."""
        self._folder(name)
        if name not in self.entries:
            raise RequestError(f"there is no model {name!r}", grpc.StatusCode.NOT_FOUND)
        self.entries[name].versions = {}
        self.entries[name].reason = "unloaded"
        self._changed()
        LOG.info("unloaded model %s", name)

    def first_program(self) -> Program | None:
        """What devices start with."""
        return next(iter(self._programs.values()), None)

    def _folder(self, name: str) -> Path:
        if self.repository is None:
            text = "this service has no model repository: start it with one to load and unload models"
            raise RequestError(text, grpc.StatusCode.FAILED_PRECONDITION)
        if name not in self.names_in_repository():
            raise RequestError(f"the model repository has no folder {name!r}", grpc.StatusCode.NOT_FOUND)
        return self.repository / name

    def _read_all(self, name: str, folder: Path) -> tuple[model_config_pb2.ModelConfig, dict[str, Model]]:
        config = _read_config(folder)
        return config, {version: self._read(name, folder / version, config) for version in _chosen(folder, config)}

    def _read(self, name: str, folder: Path, config: model_config_pb2.ModelConfig) -> Model:
        program = self._shared(Program.load(folder / "program.npu"))
        classifier = folder / "classifier.npz"
        input_kind = config.parameters["input"].string_value if "input" in config.parameters else "image"
        if input_kind not in INPUTS:
            raise ValueError(f"its config.pbtxt names the input {input_kind!r}: there are {' and '.join(INPUTS)}")
        model: Model
        if classifier.is_file():
            kind = ConstituentsTagger if input_kind == "constituents" else Tagger
            model = kind(name, program, self._scheduler, self._device, load_classifier(classifier))
        elif input_kind == "constituents":
            raise ValueError(f"the input is constituents, but there is no {classifier}")
        else:
            model = Model(name, program, self._scheduler, self._device)
        model.max_batch = config.max_batch_size or MAX_BATCH
        return model

    def _add(self, model: Model) -> None:
        self.entries[model.name] = Entry({VERSION: model})
        self.changes += 1

    def _shared(self, program: Program) -> Program:
        return self._programs.setdefault(fingerprint(program), program)

    def _changed(self) -> None:
        self.changes += 1
        self._forget_programs()
        self.on_change()

    def _forget_programs(self) -> None:
        used = {id(model.program) for entry in self.entries.values() for model in entry.versions.values()}
        self._programs = {key: program for key, program in self._programs.items() if id(program) in used}


def _read_config(folder: Path) -> model_config_pb2.ModelConfig:
    path = folder / "config.pbtxt"
    config = model_config_pb2.ModelConfig()
    if path.is_file():
        text_format.Parse(path.read_text(), config)
    strange = [descriptor.name for descriptor, _ in config.ListFields() if descriptor.name not in CONFIG_FIELDS]
    if strange:
        raise ValueError(
            f"{path} sets {', '.join(strange)}, which this service cannot: it knows {', '.join(CONFIG_FIELDS)}"
        )
    if config.name not in ("", folder.name):
        raise ValueError(f"{path} is for the model {config.name!r}")
    if not 0 <= config.max_batch_size <= MAX_BATCH:
        raise ValueError(f"{path}: max_batch_size is {config.max_batch_size}; it may be 1 to {MAX_BATCH}")
    return config


def _chosen(folder: Path, config: model_config_pb2.ModelConfig) -> list[str]:
    """Versions that the policy asks for; the newest one when there is no policy, as in Triton."""
    there = sorted((p.name for p in folder.iterdir() if p.is_dir() and p.name.isdecimal() and int(p.name) > 0), key=int)
    if not there:
        raise ValueError(f"{folder} has no version folder: put the program at {folder}/1/program.npu")
    policy = config.version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return there
    if choice == "specific":
        missing = [str(v) for v in policy.specific.versions if str(v) not in there]
        if missing:
            raise ValueError(f"{folder} has no version {', '.join(missing)}, which its config.pbtxt asks for")
        return [str(v) for v in policy.specific.versions]
    return there[-max(1, policy.latest.num_versions) :]
