"""The RPCs of ``inference.GRPCInferenceService`` (KServe v2 with Triton's extensions), a few lines each.

An RPC without a method here is answered with UNIMPLEMENTED by gRPC itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from tritonclient.grpc import service_pb2 as pb

from host_service import converters
from host_service.access import Access
from host_service.caller import Caller, answered, status_of
from host_service.errors import RequestError
from host_service.plan import Plan, Plans
from host_service.registry import Registry
from host_service.scheduler import Scheduler
from host_service.shared_memory import SharedMemory
from host_service.statistics import Recorder
from host_service.wire import Parts, take_apart

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
EXTENSIONS = ("model_configuration", "model_repository", "statistics", "classification", "system_shared_memory")
STREAM_AHEAD = 16
"""Requests of one stream that are under way at a time; the stream is read no further before one is answered."""
FINAL = "triton_enable_empty_final_response"


class Servicer:
    """Answers for the models of ``registry``."""

    def __init__(self, registry: Registry, scheduler: Scheduler, recorder: Recorder, access: Access) -> None:
        self._registry = registry
        self._scheduler = scheduler
        self._recorder = recorder
        self._access = access
        self._memory = SharedMemory()
        self._plans = Plans(registry)
        self.stopping = False

    # The server ------------------------------------------------------------------------------------------------------

    async def ServerLive(self, request: pb.ServerLiveRequest, caller: Caller) -> pb.ServerLiveResponse:  # noqa: N802
        """The process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, caller: Caller) -> pb.ServerReadyResponse:  # noqa: N802
        """Whether requests can be answered: a device works, and the service is not about to stop."""
        return pb.ServerReadyResponse(ready=self._scheduler.works and not self.stopping)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, caller: Caller) -> pb.ServerMetadataResponse:  # noqa: N802
        """Who answers."""
        return pb.ServerMetadataResponse(name="quarkwave", version=version("quarkwave"), extensions=EXTENSIONS)

    # Models ----------------------------------------------------------------------------------------------------------

    async def ModelReady(self, request: pb.ModelReadyRequest, caller: Caller) -> pb.ModelReadyResponse:  # noqa: N802
        """Whether the model can be called."""
        try:
            self._registry.find(request.name, request.version)
        except RequestError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._scheduler.works)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, caller: Caller) -> pb.ModelMetadataResponse:  # noqa: N802
        """Inputs and outputs."""
        self._access.check_model(caller, request.name)
        model, found = self._registry.find(request.name, request.version)
        return converters.model_metadata(model, [found] if request.version else self._registry.versions(request.name))

    async def ModelConfig(self, request: pb.ModelConfigRequest, caller: Caller) -> pb.ModelConfigResponse:  # noqa: N802
        """Inputs, outputs, largest batch, and the program that runs."""
        self._access.check_model(caller, request.name)
        model, _ = self._registry.find(request.name, request.version)
        given = self._registry.entries[request.name].config
        return pb.ModelConfigResponse(config=converters.model_config(model, given, self._scheduler.npus))

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, caller: Caller) -> pb.ModelStatisticsResponse:  # noqa: N802
        """Counts and times of one model, or of all when none is named."""
        if request.name:
            found = [(request.name, self._registry.find(request.name, request.version)[1])]
        else:
            found = [(name, v) for name, entry in self._registry.entries.items() for v in entry.versions]
        stats = [self._recorder.of(name, v).message(name, v) for name, v in found]
        return pb.ModelStatisticsResponse(model_stats=stats)

    async def infer(self, parts: Parts, caller: Caller) -> bytes:
        """ModelInfer: compute a batch; the serialised ModelInferResponse."""
        plan = self._plans.find(parts.head)
        if plan is not None:
            self._access.check_model(caller, plan.request.model_name)
            statistics = plan.statistics
        else:
            request = parsed(Parts.request, parts, "inference.ModelInferRequest")
            self._access.check_model(caller, request.model_name)
            model, found = self._registry.find(request.model_name, request.model_version)
            statistics = self._recorder.of(model.name, found)
        with statistics.request() as counted:
            if plan is None:
                plan = Plan(request, model, found, statistics)
                self._plans.keep(parts.head, plan)
            inputs = converters.read_inputs(plan.inputs, parts.raw, self._memory)
            answer = await plan.model.infer(inputs, caller.until(plan.timeout_us), plan.outputs)
            counted(answer)
            return plan.answer(parts.id, answer.outputs, self._memory)

    # The repository --------------------------------------------------------------------------------------------------

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, caller: Caller) -> pb.RepositoryIndexResponse:  # noqa: N802
        """Every model and version, and whether it is loaded."""
        response = pb.RepositoryIndexResponse()
        for name in dict.fromkeys([*self._registry.entries, *self._registry.names_in_repository()]):
            entry = self._registry.entries.get(name)
            for found in entry.versions if entry else ():
                response.models.add(name=name, version=found, state="READY")
            if not request.ready and entry is None:
                response.models.add(name=name)
            elif not request.ready and entry is not None and not entry.versions:
                response.models.add(name=name, state="UNAVAILABLE", reason=entry.reason)
        return response

    async def RepositoryModelLoad(  # noqa: N802
        self, request: pb.RepositoryModelLoadRequest, caller: Caller
    ) -> pb.RepositoryModelLoadResponse:
        """Load a model from the repository, or load it again."""
        self._access.check_admin(caller)
        if request.parameters:
            raise RequestError("models are loaded from the repository as they are there: no parameters are taken")
        await self._registry.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: N802
        self, request: pb.RepositoryModelUnloadRequest, caller: Caller
    ) -> pb.RepositoryModelUnloadResponse:
        """Take a model out; what is under way is answered."""
        self._access.check_admin(caller)
        self._registry.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    # Shared memory ---------------------------------------------------------------------------------------------------

    async def SystemSharedMemoryStatus(  # noqa: N802
        self, request: pb.SystemSharedMemoryStatusRequest, caller: Caller
    ) -> pb.SystemSharedMemoryStatusResponse:
        """The regions that are registered, or one of them."""
        response = pb.SystemSharedMemoryStatusResponse()
        for region in [self._memory.find(request.name)] if request.name else self._memory.regions.values():
            status = response.regions[region.name]
            status.name, status.key = region.name, region.key
            status.offset, status.byte_size = region.offset, region.byte_size
        return response

    async def SystemSharedMemoryRegister(  # noqa: N802
        self, request: pb.SystemSharedMemoryRegisterRequest, caller: Caller
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Open a region of /dev/shm."""
        self._access.check_admin(caller)
        self._memory.register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(  # noqa: N802
        self, request: pb.SystemSharedMemoryUnregisterRequest, caller: Caller
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forget a region, or all."""
        self._access.check_admin(caller)
        self._memory.unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(  # noqa: N802
        self, request: pb.CudaSharedMemoryStatusRequest, caller: Caller
    ) -> pb.CudaSharedMemoryStatusResponse:
        """There are no regions: CudaSharedMemoryRegister is not offered."""
        if request.name:
            raise RequestError(f"there is no CUDA shared memory region {request.name!r}: only system ones are offered")
        return pb.CudaSharedMemoryStatusResponse()

    async def CudaSharedMemoryUnregister(  # noqa: N802
        self, request: pb.CudaSharedMemoryUnregisterRequest, caller: Caller
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """One that is not there is fine: perf_analyzer clears both kinds before it measures."""
        return pb.CudaSharedMemoryUnregisterResponse()

    # Streams ---------------------------------------------------------------------------------------------------------

    async def infer_stream(
        self, requests: AsyncIterator[bytes], caller: Caller
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """ModelStreamInfer: the answers in the order of the requests, several of which are under way at a time."""
        under_way: deque[asyncio.Task[pb.ModelStreamInferResponse]] = deque()
        reader = aiter(requests)
        incoming: asyncio.Task[bytes | None] | None = None
        ended = False
        try:
            while not ended or under_way:
                if not ended and incoming is None and len(under_way) < STREAM_AHEAD:
                    incoming = asyncio.ensure_future(_next(reader))
                waiting: list[asyncio.Task[Any]] = [*under_way][:1] + ([incoming] if incoming else [])
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if incoming is not None and incoming.done():
                    data, incoming = incoming.result(), None
                    if data is None:
                        ended = True
                    else:
                        under_way.append(asyncio.ensure_future(self._streamed(data, caller)))
                while under_way and under_way[0].done():
                    yield under_way.popleft().result()
        finally:
            for task in (incoming, *under_way):
                if task is not None:
                    task.cancel()

    async def _streamed(self, data: bytes, caller: Caller) -> pb.ModelStreamInferResponse:
        """One answer of a stream; a failure is one of its answers, and the stream goes on."""
        response = pb.ModelStreamInferResponse()
        parts = take_apart(data)
        try:
            response.infer_response.MergeFromString(await self.infer(parts, caller))
        except Exception as error:
            response.error_message = status_of(error)[1]
            response.infer_response.MergeFromString(parts.id)  # the field has the same number in the answer
        if _wants_final(parts):
            response.infer_response.parameters["triton_final_response"].bool_param = True
        return response


def _wants_final(parts: Parts) -> bool:
    """Whether the client of a stream wants to be told which answer is the last one to its request: each is."""
    if FINAL.encode() not in parts.head:
        return False
    with suppress(DecodeError):
        parameters = parts.request().parameters
        return FINAL in parameters and parameters[FINAL].bool_param
    return False


async def _next(reader: AsyncIterator[bytes]) -> bytes | None:
    async for data in reader:
        return data
    return None


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

    async def infer(parts: Parts, context: grpc.aio.ServicerContext) -> bytes:
        return await answered(servicer.infer(parts, Caller(context)), context)

    async def infer_stream(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[Message]:
        async for response in servicer.infer_stream(requests, Caller(context)):
            yield response

    handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(infer, request_deserializer=take_apart)
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        infer_stream, response_serializer=pb.ModelStreamInferResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)


def _answering(
    method: Callable[[Any, Caller], Awaitable[Message]], kind: type[Message]
) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[Message]]:
    """``method`` on requests of ``kind`` as bytes, with every failure turned into a status and a text."""

    async def answer(data: bytes, context: grpc.aio.ServicerContext) -> Message:
        async def work() -> Message:
            return await method(parsed(kind.FromString, data, kind.DESCRIPTOR.full_name), Caller(context))

        return await answered(work(), context)

    return answer


def parsed(parser: Callable[[Any], Any], data: Any, name: str) -> Any:
    """``parser(data)``. Raises RequestError when the bytes are no such message."""
    try:
        return parser(data)
    except DecodeError as error:
        raise RequestError(f"the bytes are no {name} ({error})") from None
