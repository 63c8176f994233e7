"""Start and stop: a device, its program and models behind a gRPC port."""

from __future__ import annotations

import asyncio
import logging
import signal

import grpc

from driver.runtime import Npu
from host_service.models import Featurizer, Model, Tagger
from host_service.servicer import Servicer, rpc_handlers
from quantize.classifier import Classifier

LOG = logging.getLogger(__name__)
MAX_MESSAGE = 2**31 - 1
"""Clients allow messages of INT32_MAX bytes, so the service does too."""
GRACE = 60.0
"""Seconds that running requests get to finish when the service stops."""


class Service:
    """Serves ``featurizer``, and ``tagger`` where there is a classifier. Owns ``npu``, which has its program loaded, and closes it."""

    def __init__(self, npu: Npu, classifier: Classifier | None = None) -> None:
        self._npu = npu
        featurizer = Featurizer(npu)
        self.models: list[Model] = [featurizer]
        if classifier is not None:
            self.models.append(Tagger(featurizer, classifier))
        self._server: grpc.aio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Open the port (0: any free one) and return its number. Raises OSError when it is taken."""
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.so_reuseport", 0),  # a second service on the same port is an error, not a lottery
        ]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((rpc_handlers(Servicer(self.models)),))
        try:
            port = server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {host}:{port} ({error}): is another service running there?") from error
        await server.start()
        self._server = server
        return port

    async def stop(self, grace: float = GRACE) -> None:
        """Take no new requests, finish those that run (for at most ``grace`` seconds), then close the device."""
        if self._server is not None:
            await self._server.stop(grace)
            self._server = None
        await asyncio.to_thread(self._npu.close)


async def serve_until_stopped(service: Service, host: str, port: int) -> None:
    """Serve until SIGTERM or ctrl-C, then finish what runs."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        port = await service.start(host, port)
        names = ", ".join(model.name for model in service.models)
        print(f"serving {names} on {host}:{port}", flush=True)
        await stopped.wait()
        print("stopping: finishing the requests that run", flush=True)
    finally:
        await service.stop()
    print("stopped", flush=True)
