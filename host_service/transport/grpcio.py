"""The transport of ``grpc.aio``: pip's packages are all it needs, and it is the slower one."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from host_service.configuration import Tls


class GrpcioServer:
    """A ``host_service.transport.Transport``."""

    name = "grpcio"

    def __init__(self, message_bytes: int) -> None:
        options = [
            ("grpc.max_receive_message_length", message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a second service on the same port is an error, not a lottery
        ]
        self._server = grpc.aio.server(options=options)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See Transport."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    async def start(self, host: str, port: int, tls: Tls) -> int:
        """See Transport."""
        address = f"{host}:{port}"
        try:
            if tls.certificate is None or tls.key is None:
                port = self._server.add_insecure_port(address)
            else:
                pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
                ca = tls.client_ca.read_bytes() if tls.client_ca else None
                credentials = grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(
                f"cannot listen on {address} ({error}): is another service running there, are the TLS files right?"
            ) from error
        await self._server.start()
        return int(port)

    async def stop(self, grace: float) -> None:
        """See Transport."""
        await self._server.stop(grace)
