"""What a caller did wrong, with the gRPC status that says so."""

from __future__ import annotations

import grpc


class RequestError(Exception):
    """A request that cannot be answered; the service goes on. The text says what to send instead."""

    def __init__(self, text: str, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT) -> None:
        super().__init__(text)
        self.code = code
