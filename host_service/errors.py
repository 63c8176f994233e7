"""Why a request gets no answer, with the gRPC status that says so."""

from __future__ import annotations

import grpc


class RequestError(Exception):
    """A request that cannot be answered; the service goes on. The text says what to do instead.

    ``retry_ms``: after how many milliseconds it is worth trying again, where it is.
    """

    def __init__(
        self, text: str, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT, retry_ms: int | None = None
    ) -> None:
        super().__init__(text)
        self.code = code
        self.retry_ms = retry_ms
