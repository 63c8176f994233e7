"""The models that clients see: what each takes and gives, and how it computes an answer.

``featurizer``: image -> features, on the NPU. ``tagger``: the same, and the classifier's probabilities, on the CPU.
``constituents_tagger``: the same from the jet's constituents, of which the service makes the image. All run the images of a batch one
after another, so a batch gives bit for bit what single calls give.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driver.runtime import Counters, Result
from host_service.errors import RequestError
from host_service.quantise import Quantiser
from host_service.scheduler import Scheduler
from host_service.tensor import StoredTensor, Values
from hw.program import Program, ProgramError
from quantize.classifier import Classifier
from quantize.images import CHANNELS, jet_image

MAX_BATCH = 64
"""Most images of one request. The NPU takes them one at a time, so larger batches would only delay other callers."""
MAX_CONSTITUENTS = 200
"""Of one jet, zero-padded ones included."""
COUNTERS = tuple(field.name for field in fields(Counters) if field.name != "layers")
"""Columns of the output ``npu_counters``."""
_OUTPUTS: dict[str, Callable[[Result], NDArray[Any]]] = {
    "features": lambda result: result.features,
    "feature_sums": lambda result: result.result,
    "npu_counters": lambda result: np.array([getattr(result.counters, name) for name in COUNTERS], np.uint32),
}
OUTPUTS = tuple(_OUTPUTS)
"""What every model gives."""
SMALL = 1 << 18
"""Multiplications of a classifier that are sooner done than handed to a thread."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: KServe datatype and dimensions without the batch. Inputs may come in ``also`` as well."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    """-1: any from 1 to ``most``."""
    also: tuple[str, ...] = ()
    most: int = 0
    labels: tuple[str, ...] = ()
    """Of an output's values, for ``classification``."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether ``shape``, without the batch, is one of this tensor."""
        return len(shape) == len(self.dims) and all(
            1 <= n <= self.most if d == -1 else n == d for n, d in zip(shape, self.dims, strict=True)
        )


@dataclass(frozen=True)
class Answer:
    """Outputs by name, each [batch, ...], and where the time went, in ns summed over the batch.

    The times may overlap: the NPU computes one image while the next is made ready.
    """

    outputs: dict[str, NDArray[Any]]
    images: int
    """Of the batch, each one execution of the NPU."""
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int


@dataclass(frozen=True)
class Sample:
    """One image that was tagged, for people to look at."""

    model: str
    image: Callable[[], NDArray[np.uint8]]
    """Makes it, when people look."""
    probabilities: tuple[float, ...]
    labels: tuple[str, ...]


class Model:
    """The featurizer ``program`` behind ``name``: input ``image`` [H, W, C], outputs ``features``, ``feature_sums``, ``npu_counters``.

    Raises ProgramError when the program does not end in a global sum, as a featurizer does.
    """

    def __init__(self, name: str, program: Program, scheduler: Scheduler, device: str) -> None:
        self.name = name
        self.program = program
        self.max_batch = MAX_BATCH
        self.on_sample: Callable[[Sample], None] | None = None
        self._scheduler = scheduler
        self._quantiser = Quantiser(program.image_fraction_bits)
        image, output = program.image, program.output
        if output.dtype != "int32":
            raise ProgramError(
                f"program {program.name!r} ends in a tensor of {output.dtype}, not in global sums: no featurizer"
            )
        self.inputs = (TensorSpec("image", "UINT8", (image.height, image.width, image.channels), also=("FP32",)),)
        self.outputs: tuple[TensorSpec, ...] = (
            TensorSpec("features", "FP32", (output.channels,)),
            TensorSpec("feature_sums", "INT32", (output.channels,)),
            TensorSpec("npu_counters", "UINT32", (len(COUNTERS),)),
        )
        self.parameters = {
            "program": program.name,
            "program_sha256": fingerprint(program),
            "board": program.config.name,
            "device": device,
            "macs": str(program.macs),
            "image_fp32": f"0..1, rounded half to even to multiples of 1/{2**program.image_fraction_bits} and clipped",
            "npu_counters": ",".join(COUNTERS),
        }

    async def infer(
        self, inputs: Mapping[str, Values], deadline: float = math.inf, wanted: Collection[str] = OUTPUTS
    ) -> Answer:
        """Answer a batch, each input [batch, ...], until ``deadline`` by the event loop's clock; at least the outputs ``wanted``.

        Raises RequestError for values that are no image and for what the scheduler refuses, DeviceError when the NPUs fail.
        """
        start = time.perf_counter_ns()
        (values,) = inputs.values()
        images = [_Image(self, value) for value in values]
        results = await self._scheduler.run(self.program, images, deadline)
        begin = time.perf_counter_ns()
        input_ns = sum(image.ns for image in images)
        infer_ns = round(1e9 * sum(r.seconds for r in results))
        outputs = {name: _stacked([_OUTPUTS[name](r) for r in results]) for name in OUTPUTS if name in wanted}
        return Answer(
            outputs,
            len(results),
            queue_ns=max(0, begin - start - input_ns - infer_ns),
            input_ns=input_ns,
            infer_ns=infer_ns,
            output_ns=time.perf_counter_ns() - begin,
        )

    def write_image(self, value: Values, out: NDArray[np.uint8]) -> None:
        """Write the NPU's image of one input to ``out``, uint8 [height, width, channels]. Raises RequestError."""
        if value.dtype != np.uint8:
            self._quantiser.write(value, out)
        elif isinstance(value, StoredTensor):
            value.copy_to(out)
        else:
            np.copyto(out, value)


class Tagger(Model):
    """image [H, W, C] -> ``probabilities`` of the classifier's classes (QCD and top, or a user's own), from a featurizer and a
    classifier on the CPU.

    Raises ValueError when the classifier's arrays do not fit together, or are for another number of features.
    """

    def __init__(self, name: str, program: Program, scheduler: Scheduler, device: str, classifier: Classifier) -> None:
        super().__init__(name, program, scheduler, device)
        features, hidden, classes = program.output.channels, len(classifier.b1), len(classifier.classes)
        expected = [(features, hidden), (hidden,), (hidden, classes), (classes,)]
        found = [a.shape for a in (classifier.w1, classifier.b1, classifier.w2, classifier.b2)]
        if found != expected:
            raise ValueError(
                f"the classifier's arrays are {found}; program {program.name!r}, which gives {features} features, "
                f"needs {expected}: use the classifier that was trained with this network"
            )
        self._classifier = classifier
        self.outputs = (TensorSpec("probabilities", "FP32", (classes,), labels=classifier.classes), *self.outputs)
        self.parameters["labels"] = ",".join(classifier.classes)

    async def infer(
        self, inputs: Mapping[str, Values], deadline: float = math.inf, wanted: Collection[str] = OUTPUTS
    ) -> Answer:
        """Answer a batch, ``probabilities`` always; see Model.infer()."""
        found = await super().infer(inputs, deadline, {"features", *wanted})
        begin = time.perf_counter_ns()
        features = found.outputs["features"]
        if features.shape[0] * self._classifier.w1.size <= SMALL:
            probabilities = self._classify(features)
        else:
            probabilities = await asyncio.to_thread(self._classify, features)
        if self.on_sample is not None:
            (values,) = inputs.values()
            self.on_sample(
                Sample(
                    self.name,
                    partial(self._image, values[-1]),
                    tuple(map(float, probabilities[-1])),
                    self._classifier.classes,
                )
            )
        return Answer(
            {"probabilities": probabilities, **found.outputs},
            found.images,
            found.queue_ns,
            found.input_ns,
            found.infer_ns + time.perf_counter_ns() - begin,
            found.output_ns,
        )

    def _image(self, value: Values) -> NDArray[np.uint8]:
        layout = self.program.image
        out = np.empty((layout.height, layout.width, layout.channels), np.uint8)
        self.write_image(value, out)
        return out

    def _classify(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        # One row at a time: a matrix product of several rows may round differently from that of one.
        return np.concatenate([self._classifier.probabilities(row[None]) for row in features])


class ConstituentsTagger(Tagger):
    """constituents [<= 200, 4] (E, px, py, pz in GeV, zero-padded) -> as Tagger, of the image that quantize.images makes of them.

    Raises ValueError also when the program's image is not square with three channels.
    """

    def __init__(self, name: str, program: Program, scheduler: Scheduler, device: str, classifier: Classifier) -> None:
        super().__init__(name, program, scheduler, device, classifier)
        if not makes_jet_images(program):
            raise ValueError(f"program {program.name!r} takes no jet images (square, {CHANNELS} channels)")
        self.inputs = (TensorSpec("constituents", "FP32", (-1, 4), also=("FP64",), most=MAX_CONSTITUENTS),)
        self.parameters["constituents"] = "E, px, py, pz in GeV, zero-padded"
        del self.parameters["image_fp32"]

    def write_image(self, value: Values, out: NDArray[np.uint8]) -> None:
        """See Model.write_image()."""
        try:
            np.copyto(out, jet_image(np.asarray(value), self.program.image.height))
        except ValueError as error:
            raise RequestError(str(error)) from None


def makes_jet_images(program: Program) -> bool:
    """Whether the program's image is one that quantize.images makes."""
    image = program.image
    return image.height == image.width and image.channels == CHANNELS


def fingerprint(program: Program) -> str:
    """SHA-256 of the program file: equal fingerprints, equal answers."""
    return hashlib.sha256(program.to_bytes()).hexdigest()


def _stacked(rows: list[NDArray[Any]]) -> NDArray[Any]:
    """[batch, ...]; of a single row, as nearly always, a view."""
    return rows[0][None] if len(rows) == 1 else np.stack(rows)


class _Image:
    """The WriteImage of one input, and how long it took."""

    __slots__ = ("_model", "_value", "ns")

    def __init__(self, model: Model, value: Values) -> None:
        self._model = model
        self._value = value
        self.ns = 0

    def __call__(self, out: NDArray[np.uint8]) -> None:
        begin = time.perf_counter_ns()
        self._model.write_image(self._value, out)
        self.ns += time.perf_counter_ns() - begin
