"""How calls reach the service: HTTP/2, TLS, compression, deadlines. Two of gRPC's own libraries do it, and the service runs on either.

``grpc++``: gRPC's C++ library, from Debian's packages, behind ``grpcpp_server.cpp``, which is compiled once. ``grpcio``: gRPC's Python
package, with which the whole service takes about twice the CPU time for a call of 602 kB.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import grpc

from host_service.configuration import Tls
from host_service.transport.grpcio import GrpcioServer
from host_service.transport.grpcpp import GrpcppServer
from hw.native import NativeBuildError

LOG = logging.getLogger(__name__)
PREFERRED = ("grpc++", "grpcio")
"""What ``auto`` tries, in this order."""


class Transport(Protocol):
    """A gRPC server, as far as the service needs one; its methods are called in the event loop's thread.

    Handlers are those of ``grpc.aio``; of their context they use abort(), write(), set_trailing_metadata(), invocation_metadata() and
    time_remaining(). Their task is cancelled when nobody waits for the answer any more.
    """

    name: str
    """For people."""

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve their methods; the first that has one answers it. Before start()."""

    async def start(self, host: str, port: int, tls: Tls) -> int:
        """Listen (port 0: any free one) and return the port. Raises OSError when that cannot be had."""

    async def stop(self, grace: float) -> None:
        """Take no further calls, give those that run ``grace`` seconds, then cancel them; return when all are over."""


def transport(name: str, message_bytes: int) -> Transport:
    """The transport ``name`` (``configuration.TRANSPORTS``) for messages of at most ``message_bytes``.

    Raises NativeBuildError when gRPC's C++ library is asked for by name and is not there.
    """
    for candidate in PREFERRED if name == "auto" else (name,):
        if candidate == "grpcio":
            return GrpcioServer(message_bytes)
        try:
            return GrpcppServer(message_bytes)
        except NativeBuildError as error:
            if candidate == name or PREFERRED[-1] == candidate:
                raise
            LOG.info("gRPC's Python package receives the calls, which takes more CPU: %s", str(error).splitlines()[0])
    raise AssertionError("PREFERRED is empty")
