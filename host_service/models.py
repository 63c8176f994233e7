"""The models that clients see: what each takes and gives, and how it computes an answer.

``featurizer``: image -> features, on the NPU. ``tagger``: the same, and the classifier's probabilities, on the CPU. Both run the images
of a batch one after another, so a batch gives bit for bit what single calls give.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from concurrent.futures import Future
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driver.runtime import Counters, Npu, Result
from host_service.errors import RequestError
from hw.program import Program, ProgramError
from quantize.classifier import Classifier

MAX_BATCH = 64
"""Most images of one request. The NPU takes them one at a time, so larger batches would only delay other callers."""
LABELS = ("QCD", "top")
COUNTERS = tuple(field.name for field in fields(Counters) if field.name != "layers")
"""Columns of the output ``npu_counters``."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: KServe datatype and dimensions without the batch. Inputs may come in ``also`` as well."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Outputs by name, each [batch, ...], and where the time went, in ns summed over the batch.

    The times may overlap: the NPU computes one image while the next is packed.
    """

    outputs: dict[str, NDArray[Any]]
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int

    @property
    def images(self) -> int:
        """Images of the batch, each one execution of the NPU."""
        return len(next(iter(self.outputs.values())))


class Featurizer:
    """image [H, W, C] -> features of the program that ``npu`` has loaded.

    Raises ProgramError when the program does not end in a global sum, as a featurizer does.
    """

    name = "featurizer"

    def __init__(self, npu: Npu) -> None:
        self._npu = npu
        self.program = npu.program
        image, output = self.program.image, self.program.output
        if output.dtype != "int32":
            raise ProgramError(
                f"program {self.program.name!r} ends in a tensor of {output.dtype}, not in global sums: no featurizer"
            )
        self.inputs = (TensorSpec("image", "UINT8", (image.height, image.width, image.channels), also=("FP32",)),)
        self.outputs: tuple[TensorSpec, ...] = (
            TensorSpec("features", "FP32", (output.channels,)),
            TensorSpec("feature_sums", "INT32", (output.channels,)),
            TensorSpec("npu_counters", "UINT32", (len(COUNTERS),)),
        )
        self.parameters = {
            "program": self.program.name,
            "program_sha256": fingerprint(self.program),
            "board": self.program.config.name,
            "device": npu.device.kind,
            "macs": str(self.program.macs),
            "image_fp32": f"0..1, rounded half to even to multiples of 1/{2**self.program.image_fraction_bits} and clipped",
            "npu_counters": ",".join(COUNTERS),
        }

    async def infer(self, inputs: dict[str, NDArray[Any]]) -> Answer:
        """Answer a batch. Raises RequestError for values that are no image, DeviceError when the NPU fails."""
        begin = time.perf_counter_ns()
        futures = await asyncio.to_thread(self._submit, inputs["image"])
        submitted = time.perf_counter_ns()
        try:
            results = await asyncio.gather(*map(asyncio.wrap_future, futures))
        finally:
            for future in futures:
                future.cancel()  # what an error or a caller who has left makes useless; nothing otherwise
        computed = time.perf_counter_ns()
        outputs = {
            "features": np.stack([r.features for r in results]),
            "feature_sums": np.stack([r.result for r in results]),
            "npu_counters": np.array([[getattr(r.counters, c) for c in COUNTERS] for r in results], np.uint32),
        }
        infer_ns = round(1e9 * sum(r.seconds for r in results))
        return Answer(
            outputs,
            queue_ns=max(0, computed - submitted - infer_ns),
            input_ns=submitted - begin,
            infer_ns=infer_ns,
            output_ns=time.perf_counter_ns() - computed,
        )

    def _submit(self, images: NDArray[Any]) -> list[Future[Result]]:
        """Quantise, check, pack and queue every image; outside the event loop, and outside the device's thread."""
        if images.dtype == np.float32:
            images = to_grid(images, self.program.image_fraction_bits)
        return [self._npu.run_async(image) for image in images]


class Tagger:
    """image [H, W, C] -> [P(QCD), P(top)], from ``featurizer`` and a classifier on the CPU.

    Raises ValueError when the classifier's arrays do not fit together, or are for another number of features.
    """

    name = "tagger"

    def __init__(self, featurizer: Featurizer, classifier: Classifier) -> None:
        features, hidden = featurizer.program.output.channels, len(classifier.b1)
        expected = [(features, hidden), (hidden,), (hidden, len(LABELS)), (len(LABELS),)]
        found = [a.shape for a in (classifier.w1, classifier.b1, classifier.w2, classifier.b2)]
        if found != expected:
            raise ValueError(
                f"the classifier's arrays are {found}; program {featurizer.program.name!r}, which gives {features} features, "
                f"needs {expected}: use the classifier that was trained with this network"
            )
        self._featurizer = featurizer
        self._classifier = classifier
        self.inputs = featurizer.inputs
        self.outputs = (TensorSpec("probabilities", "FP32", (len(LABELS),)), *featurizer.outputs)
        self.parameters = {**featurizer.parameters, "labels": ",".join(LABELS)}

    async def infer(self, inputs: dict[str, NDArray[Any]]) -> Answer:
        """Answer a batch; see Featurizer.infer()."""
        found = await self._featurizer.infer(inputs)
        begin = time.perf_counter_ns()
        probabilities = await asyncio.to_thread(self._classify, found.outputs["features"])
        elapsed = time.perf_counter_ns() - begin
        return Answer(
            {"probabilities": probabilities, **found.outputs},
            found.queue_ns,
            found.input_ns,
            found.infer_ns + elapsed,
            found.output_ns,
        )

    def _classify(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        # One row at a time: a matrix product of several rows may round differently from that of one.
        return np.concatenate([self._classifier.probabilities(row[None]) for row in features])


Model = Featurizer | Tagger


def to_grid(images: NDArray[np.float32], fraction_bits: int) -> NDArray[np.uint8]:
    """Real values as uint8 in steps of ``2**-fraction_bits``: rounded half to even, then clipped to 0..255.

    Raises RequestError for a NaN or an infinity.
    """
    if not np.isfinite(images).all():
        raise RequestError("the image holds a NaN or an infinity: every value must be a number, 0 to 1")
    steps = np.rint(np.ldexp(images, fraction_bits))
    return np.clip(steps, 0, 255).astype(np.uint8)


def fingerprint(program: Program) -> str:
    """SHA-256 of the program file: equal fingerprints, equal answers."""
    return hashlib.sha256(program.to_bytes()).hexdigest()
