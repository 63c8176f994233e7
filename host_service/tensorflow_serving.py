"""TensorFlow Serving's ``PredictionService.Predict``, as the Brainwave client of Duarte et al. (arXiv:1904.08986) calls it.

Input ``images``: DT_FLOAT [n, H, W, C], values as the model's FP32 input, or DT_STRING [n], each an encoded picture (PNG, JPEG) of the
right size. Output ``output_alias``: DT_FLOAT [n, ...], the model's first output. Message definitions as in TensorFlow 2.14
(tensorflow/core/framework/tensor.proto, tensorflow_serving/apis/predict.proto), only the fields that are used, in a pool of their own so
that TensorFlow itself may be loaded beside them.
"""

from __future__ import annotations

import io
import math
from typing import Any

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from numpy.typing import NDArray

from host_service.access import Access
from host_service.caller import Caller, answered
from host_service.errors import RequestError
from host_service.models import Model
from host_service.registry import Registry
from host_service.servicer import parsed
from host_service.statistics import Recorder

SERVICE = "tensorflow.serving.PredictionService"
INPUT, OUTPUT = "images", "output_alias"
DT_FLOAT, DT_STRING = 1, 7
_FIELD = descriptor_pb2.FieldDescriptorProto
_KINDS = {
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "float": _FIELD.TYPE_FLOAT,
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
}
_MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    # name, number, type, repeated; an enumeration travels as an int32 does
    "Dim": [("size", 1, "int64", False)],
    "TensorShapeProto": [("dim", 2, "Dim", True)],
    "TensorProto": [
        ("dtype", 1, "int32", False),
        ("tensor_shape", 2, "TensorShapeProto", False),
        ("tensor_content", 4, "bytes", False),
        ("float_val", 5, "float", True),
        ("string_val", 8, "bytes", True),
    ],
    "Int64Value": [("value", 1, "int64", False)],
    "ModelSpec": [
        ("name", 1, "string", False),
        ("version", 2, "Int64Value", False),
        ("signature_name", 3, "string", False),
    ],
    "Entry": [("key", 1, "string", False), ("value", 2, "TensorProto", False)],
    "PredictRequest": [
        ("model_spec", 1, "ModelSpec", False),
        ("inputs", 2, "Entry", True),
        ("output_filter", 3, "string", True),
    ],
    "PredictResponse": [("outputs", 1, "Entry", True), ("model_spec", 2, "ModelSpec", False)],
}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="predict.proto", package="quarkwave.tfs", syntax="proto3")
    for name, rows in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in rows:
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if kind in _KINDS:
                message.field.add(name=field, number=number, type=_KINDS[kind], label=label)
            else:
                message.field.add(
                    name=field, number=number, type=_FIELD.TYPE_MESSAGE, type_name=f".quarkwave.tfs.{kind}", label=label
                )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"quarkwave.tfs.{n}")) for n in _MESSAGES}


CLASSES = _classes()
"""The messages by name. A map field is, on the wire, a repeated Entry."""


async def predict(request: Any, registry: Registry, recorder: Recorder, caller: Caller, access: Access) -> Message:
    """Answer a PredictRequest with a PredictResponse. Raises RequestError, DeviceError."""
    name = request.model_spec.name
    access.check_model(caller, name)
    version = str(request.model_spec.version.value) if request.model_spec.HasField("version") else ""
    model, found = registry.find(name, version)
    with recorder.of(name, found).request() as answered_with:
        unknown = [key for key in request.output_filter if key != OUTPUT]
        if unknown:
            raise RequestError(f"there is no output {unknown[0]!r}; there is {OUTPUT!r}")
        answer = await model.infer(_inputs(request, model), caller.deadline, {model.outputs[0].name})
        answered_with(answer)
        response = CLASSES["PredictResponse"](model_spec=request.model_spec)
        response.model_spec.version.value = int(found)
        values = np.ascontiguousarray(answer.outputs[model.outputs[0].name], "<f4")
        entry = response.outputs.add(key=OUTPUT)
        entry.value.dtype = DT_FLOAT
        for size in values.shape:
            entry.value.tensor_shape.dim.add(size=size)
        entry.value.float_val.extend(values.reshape(-1).tolist())
        return response


def _inputs(request: Any, model: Model) -> dict[str, NDArray[Any]]:
    """The model's only input from ``images``. Raises RequestError."""
    (spec,) = model.inputs
    keys = [entry.key for entry in request.inputs]
    if keys != [INPUT]:
        raise RequestError(f"the request has the inputs {keys}; send {INPUT!r}")
    tensor = request.inputs[0].value
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if not shape or not 1 <= shape[0] <= model.max_batch:
        raise RequestError(
            f"{INPUT!r} has shape {list(shape)}; the first dimension is the batch, 1 to {model.max_batch}"
        )
    if tensor.dtype == DT_STRING and spec.name == "image":
        if len(shape) != 1 or len(tensor.string_val) != shape[0]:
            raise RequestError(f"{INPUT!r} has {len(tensor.string_val)} strings for shape {list(shape)}")
        return {spec.name: np.stack([_decoded(data, spec.dims) for data in tensor.string_val])}
    if tensor.dtype != DT_FLOAT:
        raise RequestError(f"{INPUT!r} has the type {tensor.dtype}; send DT_FLOAT (1), or pictures as DT_STRING (7)")
    if not spec.fits(shape[1:]):
        raise RequestError(f"{INPUT!r} has shape {list(shape)}; model {model.name!r} wants [batch, *{list(spec.dims)}]")
    count = math.prod(shape)
    if tensor.tensor_content:
        if len(tensor.tensor_content) != 4 * count:
            raise RequestError(f"{INPUT!r} has {len(tensor.tensor_content)} bytes; its shape takes {4 * count}")
        values = np.frombuffer(tensor.tensor_content, "<f4")
    elif len(tensor.float_val) in (1, count):
        values = np.resize(np.array(tensor.float_val, np.float32), count)  # one value stands for all
    else:
        raise RequestError(f"{INPUT!r} has {len(tensor.float_val)} values; its shape takes {count}")
    return {spec.name: values.reshape(shape)}


def _decoded(data: bytes, dims: tuple[int, ...]) -> NDArray[np.uint8]:
    """An encoded picture, uint8 [H, W, C]. Raises RequestError."""
    from PIL import Image, UnidentifiedImageError

    height, width, channels = dims
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "BMP")) as picture:
            if picture.size != (width, height):
                raise RequestError(f"a picture is {picture.size[1]} x {picture.size[0]}; it must be {height} x {width}")
            pixels = np.asarray(picture.convert({1: "L", 3: "RGB"}.get(channels, "RGB")))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise RequestError(f"a string of {INPUT!r} is no PNG, JPEG or BMP picture: {error}") from None
    return pixels.reshape(height, width, -1)


def rpc_handlers(registry: Registry, recorder: Recorder, access: Access) -> grpc.GenericRpcHandler:
    """The Predict method; the others of the service are answered with UNIMPLEMENTED."""

    async def answer(data: bytes, context: grpc.aio.ServicerContext) -> Message:
        async def work() -> Message:
            request = parsed(CLASSES["PredictRequest"].FromString, data, "tensorflow.serving.PredictRequest")
            return await predict(request, registry, recorder, Caller(context), access)

        return await answered(work(), context)

    handler = grpc.unary_unary_rpc_method_handler(
        answer, response_serializer=CLASSES["PredictResponse"].SerializeToString
    )
    return grpc.method_handlers_generic_handler(SERVICE, {"Predict": handler})
