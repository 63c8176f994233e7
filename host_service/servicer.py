"""The RPCs of ``inference.GRPCInferenceService`` (KServe v2 with Triton's extensions), a few lines each.

An RPC without a method here is answered with UNIMPLEMENTED by gRPC itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import version
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from tritonclient.grpc import service_pb2 as pb

from driver.device import DeviceError, DeviceTimeoutError
from host_service import converters
from host_service.errors import RequestError
from host_service.models import Model
from host_service.statistics import Statistics

LOG = logging.getLogger(__name__)
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
EXTENSIONS = ("model_configuration", "statistics")


class Servicer:
    """Answers for ``models``."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = {model.name: model for model in models}
        self._statistics = {name: Statistics() for name in self._models}

    def _find(self, name: str, version: str) -> Model:
        if name not in self._models:
            raise RequestError(f"there is no model {name!r}; there are {list(self._models)}", grpc.StatusCode.NOT_FOUND)
        if version not in ("", converters.VERSION):
            text = f"model {name!r} has no version {version!r}, only {converters.VERSION!r}"
            raise RequestError(text, grpc.StatusCode.NOT_FOUND)
        return self._models[name]

    async def ServerLive(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:  # noqa: N802
        """The process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:  # noqa: N802
        """Programs are loaded before the port opens, so who gets an answer gets yes."""
        return pb.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:  # noqa: N802
        """Who answers."""
        return pb.ServerMetadataResponse(name="quarkwave", version=version("quarkwave"), extensions=EXTENSIONS)

    async def ModelReady(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:  # noqa: N802
        """Whether the model can be called."""
        try:
            self._find(request.name, request.version)
        except RequestError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:  # noqa: N802
        """Inputs and outputs."""
        return converters.model_metadata(self._find(request.name, request.version))

    async def ModelConfig(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:  # noqa: N802
        """Inputs, outputs, largest batch, and the program that runs."""
        return pb.ModelConfigResponse(config=converters.model_config(self._find(request.name, request.version)))

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:  # noqa: N802
        """Every model, all of them ready."""
        response = pb.RepositoryIndexResponse()
        for name in self._models:
            response.models.add(name=name, version=converters.VERSION, state="READY")
        return response

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:  # noqa: N802
        """Counts and times of one model, or of all when none is named."""
        names = [self._find(request.name, request.version).name] if request.name else list(self._models)
        stats = [self._statistics[name].message(name, converters.VERSION) for name in names]
        return pb.ModelStatisticsResponse(model_stats=stats)

    async def ModelInfer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:  # noqa: N802
        """Compute a batch."""
        model, begin = self._find(request.model_name, request.model_version), time.perf_counter_ns()
        statistics = self._statistics[model.name]
        try:
            inputs = converters.read_inputs(request, model.inputs)
            wanted = converters.wanted_outputs(request, model.outputs)
            answer = await model.infer(inputs)
            response = converters.infer_response(request, wanted, answer.outputs)
        except BaseException:
            statistics.failed(time.perf_counter_ns() - begin)
            raise
        statistics.succeeded(time.perf_counter_ns() - begin, answer)
        return response


def rpc_handlers(servicer: Servicer) -> grpc.GenericRpcHandler:
    """Every RPC that ``servicer`` has a method for."""
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            _answering(getattr(servicer, method.name), getattr(pb, method.input_type.name)),
            response_serializer=getattr(pb, method.output_type.name).SerializeToString,
        )
        for method in SERVICE.methods
        if hasattr(servicer, method.name)
    }
    return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)


def _answering(
    method: Callable[[Any], Awaitable[Message]], kind: type[Message]
) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[Message]]:
    """``method`` on requests of ``kind`` as bytes, with every failure turned into a status and a text."""

    async def answer(data: bytes, context: grpc.aio.ServicerContext) -> Message:
        try:
            return await method(kind.FromString(data))
        except DecodeError as error:
            text = f"the bytes are no {kind.DESCRIPTOR.full_name} ({error})"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        except RequestError as error:
            await context.abort(error.code, str(error))
        except DeviceTimeoutError as error:
            LOG.error("%s", error)
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, str(error))
        except DeviceError as error:
            LOG.error("%s", error)
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
        except Exception as error:
            LOG.exception("a request failed unexpectedly")
            text = f"internal error ({type(error).__name__}); see the service's log"
            await context.abort(grpc.StatusCode.INTERNAL, text)
        raise AssertionError("context.abort() raises")

    return answer
