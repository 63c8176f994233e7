"""Protobuf <-> arrays and descriptions: the KServe v2 / Triton messages, checked against what a model declares."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from host_service.errors import RequestError
from host_service.models import Model, TensorSpec
from host_service.shared_memory import SharedMemory
from host_service.tensor import Content, StoredTensor, Values

CONTENTS = {
    "UINT8": "uint_contents",
    "INT32": "int_contents",
    "UINT32": "uint_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
"""Field of InferTensorContents that carries a datatype."""
DTYPES = {name: np.dtype(triton_to_np_dtype(name)).newbyteorder("<") for name in CONTENTS}
"""Of a tensor's bytes."""
PLATFORM = "quarkwave_npu"
REGION = "shared_memory_region"


# Requests ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InputLayout:
    """One input of a request, checked but for its values."""

    spec: TensorSpec
    tensor: Any
    """The request's ``InferInputTensor``."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int
    has_contents: bool
    place: tuple[str, int, int] | None
    """Region, offset and bytes where it is in shared memory."""


def input_layouts(request: pb.ModelInferRequest, model: Model) -> list[InputLayout]:
    """The request's inputs, in its order. Raises RequestError, saying what to send instead."""
    names = [tensor.name for tensor in request.inputs]
    expected = [spec.name for spec in model.inputs]
    if sorted(names) != sorted(expected):
        raise RequestError(f"model {request.model_name!r} takes the inputs {expected}, the request has {names}")
    by_name, layouts = {spec.name: spec for spec in model.inputs}, []
    for tensor in request.inputs:
        spec = by_name[tensor.name]
        shape, dtype = _shape(tensor, spec, model.max_batch), DTYPES[tensor.datatype]
        place = _place(tensor, f"input {spec.name!r}") if REGION in tensor.parameters else None
        has_contents = tensor.HasField("contents") and bool(_filled(tensor.contents))
        layouts.append(InputLayout(spec, tensor, shape, dtype, math.prod(shape) * dtype.itemsize, has_contents, place))
    return layouts


def read_inputs(
    layouts: Sequence[InputLayout], raw: Sequence[bytes | memoryview | Content], memory: SharedMemory
) -> dict[str, Values]:
    """The inputs by name, each [batch, *dims], as views of ``raw`` or ``memory`` where they are there. Raises RequestError."""
    count = sum(layout.place is None for layout in layouts)
    if raw and len(raw) != count:
        raise RequestError(
            f"the request has {count} inputs but {len(raw)} raw_input_contents: "
            "give one for each that is not in shared memory"
        )
    parts = iter(raw)
    arrays: dict[str, Values] = {}
    for layout in layouts:
        if layout.place is not None:
            region, offset, byte_size = layout.place
            data: bytes | memoryview | Content | None = memory.find(region).read(offset, byte_size)
        else:
            data = next(parts) if raw else None
        arrays[layout.spec.name] = _from_bytes(layout, data) if data is not None else _contents(layout)
    return arrays


def _shape(tensor: Any, spec: TensorSpec, max_batch: int) -> tuple[int, ...]:
    if tensor.datatype != spec.datatype and tensor.datatype not in spec.also:
        accepted = (spec.datatype, *spec.also)
        raise RequestError(
            f"input {spec.name!r} is {tensor.datatype or 'without datatype'}; it must be {' or '.join(accepted)}"
        )
    shape = tuple(tensor.shape)
    if not shape or not (shape[1:] == spec.dims or spec.fits(shape[1:])) or not 1 <= shape[0] <= max_batch:
        wanted = ", ".join(f"1 to {spec.most}" if n == -1 else str(n) for n in spec.dims)
        raise RequestError(
            f"input {spec.name!r} has shape {list(shape)}; it must be [batch, {wanted}], batch 1 to {max_batch}"
        )
    return shape


def _from_bytes(layout: InputLayout, data: bytes | memoryview | Content) -> Values:
    name = layout.spec.name
    if layout.has_contents:
        raise RequestError(
            f"input {name!r} comes both in contents and in raw_input_contents or shared memory: send it once"
        )
    if len(data) != layout.nbytes:
        raise RequestError(
            f"input {name!r} has {len(data)} bytes; {layout.tensor.datatype} {list(layout.shape)} takes {layout.nbytes}"
        )
    if isinstance(data, (bytes, memoryview)):
        return np.frombuffer(data, layout.dtype).reshape(layout.shape)
    return StoredTensor(data, layout.dtype, layout.shape)


def _contents(layout: InputLayout) -> NDArray[Any]:
    name, datatype, contents = layout.spec.name, layout.tensor.datatype, layout.tensor.contents
    field = CONTENTS[datatype]
    strange = [filled for filled in _filled(contents) if filled != field]
    if strange:
        raise RequestError(f"input {name!r}: {datatype} values belong in {field}, the request has {', '.join(strange)}")
    values = getattr(contents, field)
    if len(values) != math.prod(layout.shape):
        raise RequestError(
            f"input {name!r} has {len(values)} values; shape {list(layout.shape)} takes {math.prod(layout.shape)}"
        )
    dtype = np.dtype(triton_to_np_dtype(datatype))
    if dtype.kind in "iu" and max(values) > np.iinfo(dtype).max:
        raise RequestError(f"input {name!r} holds {max(values)}, which is no {datatype}")
    return np.array(values, dtype).reshape(layout.shape)


def _filled(contents: Message) -> list[str]:
    return [descriptor.name for descriptor, _ in contents.ListFields()]


def _place(tensor: Any, what: str) -> tuple[str, int, int]:
    """Region, offset and bytes of the shared memory that a tensor's parameters name."""
    p = tensor.parameters
    if "shared_memory_byte_size" not in p:
        raise RequestError(f"{what} names a {REGION} without shared_memory_byte_size")
    offset = p["shared_memory_offset"].int64_param if "shared_memory_offset" in p else 0
    return p[REGION].string_param, offset, p["shared_memory_byte_size"].int64_param


def wanted_outputs(
    request: pb.ModelInferRequest, specs: tuple[TensorSpec, ...]
) -> list[tuple[TensorSpec, pb.ModelInferRequest.InferRequestedOutputTensor | None]]:
    """The outputs asked for with how they are wanted, in the order asked for; all when none is named. Raises RequestError."""
    if not request.outputs:
        return [(spec, None) for spec in specs]
    by_name = {spec.name: spec for spec in specs}
    for output in request.outputs:
        if output.name not in by_name:
            raise RequestError(f"model {request.model_name!r} has no output {output.name!r}; it has {list(by_name)}")
        if not output.parameters:
            continue
        if "classification" in output.parameters:
            if output.parameters["classification"].int64_param < 1:
                raise RequestError(f"output {output.name!r}: classification must be 1 or more classes")
            if REGION in output.parameters:
                raise RequestError(f"output {output.name!r}: classification cannot go to shared memory")
    names = [output.name for output in request.outputs]
    if len(set(names)) != len(names):
        raise RequestError(f"the request names an output twice: {names}")
    return [(by_name[output.name], output) for output in request.outputs]


# Answers -------------------------------------------------------------------------------------------------------------


def infer_response(
    request: pb.ModelInferRequest,
    version: str,
    wanted: list[tuple[TensorSpec, Any]],
    outputs: Mapping[str, NDArray[Any]],
    memory: SharedMemory,
) -> pb.ModelInferResponse:
    """``outputs`` as they are ``wanted``: raw contents, the most likely classes, or in shared memory; without ``id``.

    Raises RequestError.
    """
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=version)
    for spec, how in wanted:
        values, datatype = outputs[spec.name], spec.datatype
        if how is not None and not how.parameters:
            how = None
        if how is not None and "classification" in how.parameters:
            values, datatype = classes(values, how.parameters["classification"].int64_param, spec.labels), "BYTES"
        output = response.outputs.add(name=spec.name, datatype=datatype, shape=values.shape)
        data = to_bytes(values)
        if how is None or REGION not in how.parameters:
            response.raw_output_contents.append(data)
            continue
        region, offset, byte_size = _place(how, f"output {spec.name!r}")
        if byte_size < len(data):
            raise RequestError(f"output {spec.name!r} takes {len(data)} bytes; its shared memory has {byte_size}")
        memory.find(region).write(offset, data)
        response.raw_output_contents.append(b"")  # clients count them, those in shared memory included
        for key, value in how.parameters.items():
            output.parameters[key].CopyFrom(value)
        output.parameters["shared_memory_byte_size"].int64_param = len(data)
    return response


def to_bytes(values: NDArray[Any]) -> bytes:
    """An output's raw contents."""
    if values.dtype == np.object_:
        return bytes(serialize_byte_tensor(values).item())
    if sys.byteorder == "big":
        values = values.byteswap()
    return values.tobytes()


def classes(values: NDArray[Any], count: int, labels: tuple[str, ...]) -> NDArray[np.object_]:
    """The ``count`` greatest values of each row of [batch, n] as Triton writes them: ``value:index`` or ``value:index:label``."""
    count = min(count, values.shape[1])
    order = np.argsort(-values.astype(np.float64), axis=1, kind="stable")[:, :count]
    text = "{:d}" if values.dtype.kind in "iu" else "{:f}"
    rows = [
        [f"{text.format(row[i])}:{i}" + (f":{labels[i]}" if labels else "") for i in chosen]
        for row, chosen in zip(values, order, strict=True)
    ]
    return np.array([[entry.encode() for entry in row] for row in rows], np.object_)


def model_metadata(model: Model, versions: Sequence[str]) -> pb.ModelMetadataResponse:
    """What a client needs to call ``model``; the first dimension is the batch."""
    response = pb.ModelMetadataResponse(name=model.name, versions=versions, platform=PLATFORM)
    for specs, field in ((model.inputs, response.inputs), (model.outputs, response.outputs)):
        for spec in specs:
            field.add(name=spec.name, datatype=spec.datatype, shape=(-1, *spec.dims))
    return response


def model_config(model: Model, repository: model_config_pb2.ModelConfig, devices: int) -> model_config_pb2.ModelConfig:
    """The Triton configuration; dimensions without the batch, what the metadata cannot say in ``parameters``."""
    config = model_config_pb2.ModelConfig(
        name=model.name, platform=PLATFORM, backend="quarkwave", max_batch_size=model.max_batch
    )
    config.version_policy.latest.num_versions = 1
    if repository.HasField("version_policy"):
        config.version_policy.CopyFrom(repository.version_policy)
    config.model_repository_agents.CopyFrom(repository.model_repository_agents)
    for specs, field in ((model.inputs, config.input), (model.outputs, config.output)):
        for spec in specs:
            field.add(name=spec.name, data_type=f"TYPE_{spec.datatype}", dims=spec.dims)
    config.instance_group.add(name=model.name, count=devices, kind=model_config_pb2.ModelInstanceGroup.KIND_MODEL)
    for key, value in model.parameters.items():
        config.parameters[key].string_value = value
    return config
