"""Start and stop: devices, models and ports of one service."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from driver.runtime import TIMEOUT, Npu
from host_service import tensorflow_serving
from host_service.access import Access
from host_service.allocator import give_back, settle
from host_service.configuration import Configuration, Limits, Server, Tls
from host_service.device_process import DeviceProcess
from host_service.models import Model
from host_service.registry import Registry
from host_service.runners import LocalNpu, Runner
from host_service.scheduler import Scheduler
from host_service.servicer import SERVICE, Servicer, rpc_handlers
from host_service.statistics import Recorder
from host_service.transport import Transport, transport
from host_service.web import Web
from hw.program import Program, ProgramError
from quantize.classifier import Classifier, load_classifier

LOG = logging.getLogger(__name__)
TIDY_SECONDS = 30.0
"""How often free memory goes back to the kernel."""
GRACE = 60.0
"""Seconds that running requests get to finish when the service stops."""


class Service:
    """Serves networks on ``runners``. Add models, then start()."""

    def __init__(
        self,
        runners: Sequence[Runner],
        *,
        timeout: float = TIMEOUT,
        limits: Limits = Limits(),  # noqa: B008  frozen
        tls: Tls = Tls(),  # noqa: B008
        access: Access | None = None,
        repository: Path | None = None,
        transport_name: str = "auto",
    ) -> None:
        self.scheduler = Scheduler(runners, limit=limits.queue, timeout=timeout)
        self.recorder = Recorder()
        self.registry = Registry(self.scheduler, ", ".join(sorted({r.kind for r in runners})), repository)
        self.http_port = -1
        self._servicer = Servicer(self.registry, self.scheduler, self.recorder, access or Access())
        self._transport_name = transport_name
        self._limits = limits
        self._tls = tls
        self._access = access or Access()
        self._health = health.aio.HealthServicer()
        self._server: Transport | None = None
        self._web: Web | None = None
        self._telling: asyncio.Task[None] | None = None

    @classmethod
    def local(cls, npu: Npu, classifier: Classifier | None = None, **options: object) -> Service:
        """The models of the program that ``npu`` has loaded, on it alone, in this process; close it after stop()."""
        service = cls([LocalNpu(npu)], **options)  # type: ignore[arg-type]
        service.registry.add_network(npu.program, classifier)
        return service

    @classmethod
    async def of(cls, configuration: Configuration) -> Service:
        """What a configuration file asks for. Raises ProgramError, ValueError, DeviceError or OSError."""
        c = configuration
        program = Program.load(c.models.program) if c.models.program else _any_program(c.models.repository)
        runners = [DeviceProcess(d.name, program.config, d.timeout) for d in c.devices for _ in range(d.count)]
        service = cls(
            runners,
            timeout=max(d.timeout for d in c.devices),
            limits=c.limits,
            tls=c.tls,
            access=Access(c.tokens),
            transport_name=c.server.transport,
            repository=c.models.repository,
        )
        if c.models.program:
            classifier = load_classifier(c.models.classifier) if c.models.classifier else None
            service.registry.add_network(program, classifier)
        else:
            for text in await service.registry.load_all():
                LOG.error("not loaded: %s", text)
        return service

    @property
    def models(self) -> list[Model]:
        """The newest version of every loaded model."""
        return [entry.versions[entry.newest] for entry in self.registry.entries.values() if entry.versions]

    async def start(self, host: str = "127.0.0.1", port: int = 0, http_port: int = -1) -> int:
        """Open devices and ports (0: any free one; -1: no page) and return the gRPC one.

        Raises OSError when a port is taken, DeviceError when a device does not open.
        """
        program = self.registry.first_program()
        if program is None:
            raise ProgramError("there is no model to serve: put one into the repository")
        try:
            await self.scheduler.start(program)
            self._server = self._transport()
            if http_port >= 0:
                self._web = Web(self.registry, self.scheduler, self.recorder, self._access, self._tls.for_http())
                self.http_port = self._web.start(host, http_port)
            port = await self._server.start(host, port, self._tls)
            LOG.info("%s receives the calls on %s:%d", self._server.name, host, port)
        except BaseException:
            self._server = None
            await self.stop()
            raise
        await self._set_health(True)
        self.scheduler.on_works = self._works
        return port

    def _works(self, works: bool) -> None:
        self._telling = asyncio.get_running_loop().create_task(self._set_health(works))

    async def _set_health(self, works: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if works else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE.full_name):
            await self._health.set(name, status)

    def _transport(self) -> Transport:
        found = transport(self._transport_name, self._limits.message_bytes)
        names = [SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME]
        registered = _Handlers()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registered)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), registered)
        found.add_generic_rpc_handlers(
            [
                rpc_handlers(self._servicer),
                tensorflow_serving.rpc_handlers(self.registry, self.recorder, self._access),
                *registered,
            ]
        )
        return found

    async def stop(self, grace: float = GRACE) -> None:
        """Take no new requests, finish those that run (for at most ``grace`` seconds), then close the devices."""
        self._servicer.stopping = True
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(grace)
            self._server = None
        if self._web is not None:
            await asyncio.to_thread(self._web.stop)
            self._web = None
        await self.scheduler.close()


class _Handlers(list[grpc.GenericRpcHandler]):
    """Takes what generated code registers with a server."""

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As that of ``grpc.aio.Server``."""
        self.extend(handlers)


def _any_program(repository: Path | None) -> Program:
    """A program of the repository, for the array that it was compiled for. Raises ProgramError when there is none."""
    for path in sorted(repository.glob("*/*/program.npu")) if repository else ():
        try:
            return Program.load(path)
        except ProgramError as error:
            LOG.error("%s", error)
    raise ProgramError(f"there is no program in the model repository {repository}: put one at <model>/1/program.npu")


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether ``event`` is set ``seconds`` from now at the latest; returns as soon as it is."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True


async def serve_until_stopped(configuration: Configuration) -> None:
    """Serve until SIGTERM or ctrl-C, then finish what runs."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server: Server = configuration.server
    service = await Service.of(configuration)
    try:
        port = await service.start(server.host, server.port, server.http_port)
        settle()
        names = ", ".join(model.name for model in service.models)
        print(f"serving {names} on {server.host}:{port}", flush=True)
        if service.http_port >= 0:
            print(f"page and metrics on http://{server.host}:{service.http_port}", flush=True)
        while not await _set_within(stopped, TIDY_SECONDS):
            give_back()
        print("stopping: finishing the requests that run", flush=True)
    finally:
        await service.stop(server.grace)
    print("stopped", flush=True)
