"""Protobuf <-> arrays and descriptions: the KServe v2 / Triton messages, checked against what a model declares."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import triton_to_np_dtype

from host_service.errors import RequestError
from host_service.models import MAX_BATCH, Model, TensorSpec

VERSION = "1"
"""The one version of every model."""
CONTENTS = {"UINT8": "uint_contents", "INT32": "int_contents", "UINT32": "uint_contents", "FP32": "fp32_contents"}
"""Field of InferTensorContents that carries a datatype."""
PLATFORM = "quarkwave_npu"


# Requests ------------------------------------------------------------------------------------------------------------


def read_inputs(request: pb.ModelInferRequest, specs: tuple[TensorSpec, ...]) -> dict[str, NDArray[Any]]:
    """The request's inputs by name, each [batch, *dims]. Raises RequestError, saying what to send instead."""
    names = [tensor.name for tensor in request.inputs]
    expected = [spec.name for spec in specs]
    if sorted(names) != sorted(expected):
        raise RequestError(f"model {request.model_name!r} takes the inputs {expected}, the request has {names}")
    raw = request.raw_input_contents
    if raw and len(raw) != len(names):
        raise RequestError(f"the request has {len(names)} inputs but {len(raw)} raw_input_contents: give one for each")
    by_name = {spec.name: spec for spec in specs}
    return {
        tensor.name: _read_tensor(tensor, by_name[tensor.name], raw[i] if raw else None)
        for i, tensor in enumerate(request.inputs)
    }


def _read_tensor(tensor: Any, spec: TensorSpec, raw: bytes | None) -> NDArray[Any]:
    if any(key.startswith("shared_memory") for key in tensor.parameters):
        raise RequestError(f"input {spec.name!r}: shared memory is not offered; send the values in the request")
    accepted = (spec.datatype, *spec.also)
    if tensor.datatype not in accepted:
        raise RequestError(
            f"input {spec.name!r} is {tensor.datatype or 'without datatype'}; it must be {' or '.join(accepted)}"
        )
    shape = tuple(tensor.shape)
    if len(shape) != 1 + len(spec.dims) or shape[1:] != spec.dims or not 1 <= shape[0] <= MAX_BATCH:
        wanted = ", ".join(map(str, spec.dims))
        raise RequestError(
            f"input {spec.name!r} has shape {list(shape)}; it must be [batch, {wanted}], batch 1 to {MAX_BATCH}"
        )
    if raw is None:
        return _read_contents(tensor, spec, shape)
    if _filled(tensor.contents):
        raise RequestError(f"input {spec.name!r} comes both in raw_input_contents and in contents: send it once")
    dtype = np.dtype(triton_to_np_dtype(tensor.datatype)).newbyteorder("<")
    nbytes = math.prod(shape) * dtype.itemsize
    if len(raw) != nbytes:
        raise RequestError(f"input {spec.name!r} has {len(raw)} bytes; {tensor.datatype} {list(shape)} takes {nbytes}")
    return np.frombuffer(raw, dtype).reshape(shape)


def _read_contents(tensor: Any, spec: TensorSpec, shape: tuple[int, ...]) -> NDArray[Any]:
    field = CONTENTS[tensor.datatype]
    strange = [name for name in _filled(tensor.contents) if name != field]
    if strange:
        raise RequestError(
            f"input {spec.name!r}: {tensor.datatype} values belong in {field}, the request has {', '.join(strange)}"
        )
    values = getattr(tensor.contents, field)
    if len(values) != math.prod(shape):
        raise RequestError(
            f"input {spec.name!r} has {len(values)} values; shape {list(shape)} takes {math.prod(shape)}"
        )
    dtype = np.dtype(triton_to_np_dtype(tensor.datatype))
    if dtype.kind in "iu" and max(values) > np.iinfo(dtype).max:
        raise RequestError(f"input {spec.name!r} holds {max(values)}, which is no {tensor.datatype}")
    return np.array(values, dtype).reshape(shape)


def _filled(contents: Message) -> list[str]:
    return [descriptor.name for descriptor, _ in contents.ListFields()]


def wanted_outputs(request: pb.ModelInferRequest, specs: tuple[TensorSpec, ...]) -> list[TensorSpec]:
    """The outputs asked for, in the order asked for; all when none is named. Raises RequestError."""
    if not request.outputs:
        return list(specs)
    by_name = {spec.name: spec for spec in specs}
    for output in request.outputs:
        if output.name not in by_name:
            raise RequestError(f"model {request.model_name!r} has no output {output.name!r}; it has {list(by_name)}")
        for key in output.parameters:
            if key == "classification" or key.startswith("shared_memory"):
                raise RequestError(f"output {output.name!r}: {key} is not offered; ask for the plain tensor")
    names = [output.name for output in request.outputs]
    if len(set(names)) != len(names):
        raise RequestError(f"the request names an output twice: {names}")
    return [by_name[name] for name in names]


# Answers -------------------------------------------------------------------------------------------------------------


def infer_response(
    request: pb.ModelInferRequest, specs: list[TensorSpec], outputs: dict[str, NDArray[Any]]
) -> pb.ModelInferResponse:
    """``outputs`` as raw contents, in the order of ``specs``."""
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=VERSION, id=request.id)
    for spec in specs:
        values = np.ascontiguousarray(outputs[spec.name])
        response.outputs.add(name=spec.name, datatype=spec.datatype, shape=values.shape)
        response.raw_output_contents.append(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return response


def model_metadata(model: Model) -> pb.ModelMetadataResponse:
    """What a client needs to call ``model``; the first dimension is the batch."""
    response = pb.ModelMetadataResponse(name=model.name, versions=[VERSION], platform=PLATFORM)
    for specs, field in ((model.inputs, response.inputs), (model.outputs, response.outputs)):
        for spec in specs:
            field.add(name=spec.name, datatype=spec.datatype, shape=(-1, *spec.dims))
    return response


def model_config(model: Model) -> model_config_pb2.ModelConfig:
    """The Triton configuration; dimensions without the batch, what the metadata cannot say in ``parameters``."""
    config = model_config_pb2.ModelConfig(
        name=model.name, platform=PLATFORM, backend="quarkwave", max_batch_size=MAX_BATCH
    )
    config.version_policy.latest.num_versions = 1
    for specs, field in ((model.inputs, config.input), (model.outputs, config.output)):
        for spec in specs:
            field.add(name=spec.name, data_type=f"TYPE_{spec.datatype}", dims=spec.dims)
    config.instance_group.add(name=model.name, count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_MODEL)
    for key, value in model.parameters.items():
        config.parameters[key].string_value = value
    return config
