"""Who calls: the facts about one call that its methods need, apart from the message; and how a failure becomes a status."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError

from driver.device import DeviceError, DeviceTimeoutError
from host_service.errors import RequestError

LOG = logging.getLogger(__name__)
FOREVER = 1e8
"""Seconds left of a call without deadline, as gRPC reports it, are more than these."""
PUSHBACK = "grpc-retry-pushback-ms"
"""Trailing metadata that tells a retrying client how long to wait (gRFC A6)."""
T = TypeVar("T")


class Caller:
    """Of the call behind ``context``, which is asked only for what is needed."""

    __slots__ = ("_context",)

    def __init__(self, context: grpc.aio.ServicerContext) -> None:
        self._context = context

    @property
    def authorization(self) -> str:
        """The header of that name; empty without one."""
        for key, value in self._context.invocation_metadata() or ():
            if key == "authorization":
                return str(value)
        return ""

    @property
    def deadline(self) -> float:
        """By the event loop's clock; inf without one."""
        left = self._context.time_remaining()
        return math.inf if left is None or left > FOREVER else asyncio.get_running_loop().time() + left

    def until(self, timeout_us: int) -> float:
        """The deadline when the request itself has ``timeout_us`` microseconds too (0: none)."""
        if timeout_us <= 0:
            return self.deadline
        return min(self.deadline, asyncio.get_running_loop().time() + timeout_us * 1e-6)


async def answered(work: Awaitable[T], context: grpc.aio.ServicerContext) -> T:
    """What ``work`` gives; its failure as the call's status and text."""
    try:
        return await work
    except Exception as error:
        code, text, retry_ms = status_of(error)
        if retry_ms is not None:
            context.set_trailing_metadata(((PUSHBACK, str(retry_ms)),))
        await context.abort(code, text)
        raise AssertionError("context.abort() raises") from None


def status_of(error: Exception) -> tuple[grpc.StatusCode, str, int | None]:
    """Status, text, and milliseconds after which to try again, of what went wrong; the log has what is the service's own fault."""
    if isinstance(error, RequestError):
        return error.code, str(error), error.retry_ms
    if isinstance(error, DecodeError):
        return grpc.StatusCode.INVALID_ARGUMENT, str(error), None
    if isinstance(error, DeviceError):
        LOG.error("%s", error)
        late = isinstance(error, DeviceTimeoutError)
        return (grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.INTERNAL), str(error), None
    LOG.error("a request failed unexpectedly", exc_info=error)
    return grpc.StatusCode.INTERNAL, f"internal error ({type(error).__name__}); see the service's log", None
