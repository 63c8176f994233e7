"""The transport of gRPC's C++ library: ``grpcpp_server.cpp`` receives and answers calls in a thread that needs no interpreter.

A call that has come costs Python's thread a few look-ups and one copy of its message, where ``grpc.aio`` takes two copies and hands the
interpreter's lock to and fro. Handlers are the same as those of ``grpc.aio``.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from struct import Struct
from typing import Any, NamedTuple, NoReturn

import grpc

from host_service.configuration import Tls
from host_service.transport.build import library

LOG = logging.getLogger(__name__)
CALL, MESSAGE, WRITTEN, CANCELLED = range(4)
"""What an event says; ``Kind`` in grpcpp_server.cpp."""
NONE = -1
"""In place of a message's size."""
EVENT = Struct("qqq")
Metadata = Sequence[tuple[str, str]]
BATCH = 64
"""Events that are taken at a time."""

_new_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)
"""Bytes of a length, to be filled before anybody sees them."""


class GrpcppServer:
    """A ``host_service.transport.Transport``."""

    name = "grpc++"

    def __init__(self, message_bytes: int) -> None:
        self._lib = library()
        self._server = self._lib.qw_server(message_bytes)
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._methods: dict[bytes, grpc.RpcMethodHandler] = {}
        """Of the methods that were called so far."""
        self._calls: dict[int, _Call] = {}
        self._events = ctypes.create_string_buffer(BATCH * EVENT.size)
        self._loop: asyncio.AbstractEventLoop | None = None

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See Transport."""
        self._handlers.extend(handlers)

    async def start(self, host: str, port: int, tls: Tls) -> int:
        """See Transport."""
        pems = [path.read_bytes() if path else None for path in (tls.key, tls.certificate, tls.client_ca)]
        found = self._lib.qw_start(self._server, f"{host}:{port}".encode(), *pems)
        if not found:
            raise OSError(f"cannot listen on {host}:{port}: is another service running there, are the TLS files right?")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._lib.qw_signal(self._server), self._take)
        return int(found)

    async def stop(self, grace: float) -> None:
        """See Transport."""
        await asyncio.to_thread(self._lib.qw_stop, self._server, grace)
        if self._loop is not None:
            self._loop.remove_reader(self._lib.qw_signal(self._server))
            self._take()
            await asyncio.gather(*(call.task for call in self._calls.values()), return_exceptions=True)
        self._lib.qw_free(self._server)

    def _take(self) -> None:
        """Take what has happened."""
        count = BATCH
        while count == BATCH:
            count = self._lib.qw_take(self._server, self._events, BATCH)
            for pointer, kind, size in EVENT.iter_unpack(memoryview(self._events)[: count * EVENT.size]):
                if kind == CALL:
                    self._begin(pointer, self._message(pointer, size))
                    continue
                call = self._calls.get(pointer)
                if call is not None:
                    if kind == MESSAGE:
                        call.has_read(self._message(pointer, size))
                    elif kind == WRITTEN:
                        call.has_written()
                    else:
                        call.task.cancel()
                self._lib.qw_release(pointer)

    def _message(self, pointer: int, size: int) -> bytes | None:
        if size == NONE:
            return None
        message = _new_bytes(None, size)
        return message if self._lib.qw_message(pointer, message) else None

    def _begin(self, pointer: int, message: bytes | None) -> None:
        """Have a call answered; its event's reference is given back at the end."""
        assert self._loop is not None
        method = self._lib.qw_method(pointer)
        try:
            handler = self._methods[method]
        except KeyError:
            handler = self._find(method)
        call = self._calls[pointer] = _Call(self._lib, pointer, message, handler)
        call.task = self._loop.create_task(self._serve(call, handler))

    def _find(self, method: bytes) -> grpc.RpcMethodHandler | None:
        """The handler of ``method``; the unknown ones are not remembered, or any client could fill the memory."""
        details = _Details(method.decode("utf-8", "replace"), ())
        for generic in self._handlers:
            handler = generic.service(details)
            if handler is not None:
                self._methods[method] = handler
                return handler
        return None

    async def _serve(self, call: _Call, handler: grpc.RpcMethodHandler | None) -> None:
        """Answer ``call``, whatever its handler does."""
        try:
            if handler is None:
                call.end(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            else:
                await call.serve(handler)
        except _AbortedError:
            pass
        except asyncio.CancelledError:
            call.end(grpc.StatusCode.CANCELLED, "")
        except Exception as error:
            LOG.error("a call failed unexpectedly", exc_info=error)
            call.end(grpc.StatusCode.INTERNAL, f"internal error ({type(error).__name__}); see the service's log")
        finally:
            del self._calls[call.pointer]
            self._lib.qw_release(call.pointer)


class _Details(NamedTuple):
    """A ``grpc.HandlerCallDetails``."""

    method: str
    invocation_metadata: Metadata


class _Call:
    """One call. To its handler it is the context, with what the handlers here use of a ``grpc.aio.ServicerContext``."""

    task: asyncio.Task[None]

    def __init__(self, lib: ctypes.CDLL, pointer: int, message: bytes | None, handler: grpc.RpcMethodHandler) -> None:
        self.pointer = pointer
        self._lib = lib
        self._first = message
        self._handler = handler
        self._reading: asyncio.Future[bytes | None] | None = None
        self._writing: asyncio.Future[None] | None = None

    # For the server --------------------------------------------------------------------------------------------------

    async def serve(self, handler: grpc.RpcMethodHandler) -> None:
        """Have it answered by ``handler``."""
        if handler.request_streaming:
            await self._send_all(handler.stream_stream(self._requests(handler.request_deserializer), self))
            return
        if self._first is None:
            self.end(grpc.StatusCode.INTERNAL, "the call came without its message")
            return
        request, self._first = self._first, None
        if handler.request_deserializer is not None:
            request = handler.request_deserializer(request)
        if handler.response_streaming:
            await self._send_all(handler.unary_stream(request, self))
            return
        data = handler.response_serializer(await handler.unary_unary(request, self))
        self._lib.qw_finish(self.pointer, data, len(data), 0, None)

    def end(self, code: grpc.StatusCode, text: str) -> None:
        """Without (another) message."""
        self._lib.qw_finish(self.pointer, None, 0, code.value[0], text.encode())

    def has_read(self, message: bytes | None) -> None:
        """The next message has come, or none will."""
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(message)

    def has_written(self) -> None:
        """The last message is on its way."""
        if self._writing is not None and not self._writing.done():
            self._writing.set_result(None)

    async def _requests(self, deserializer: Callable[[bytes], Any] | None) -> AsyncIterator[Any]:
        message, self._first = self._first, None
        while message is not None:
            yield deserializer(message) if deserializer is not None else message
            self._reading = asyncio.get_running_loop().create_future()
            self._lib.qw_next(self.pointer)
            message = await self._reading

    async def _send_all(self, responses: AsyncIterator[Any] | Awaitable[None]) -> None:
        """From a generator, or from a coroutine that uses write()."""
        if isinstance(responses, AsyncIterator):
            async for response in responses:
                await self.write(response)
        else:
            await responses
        self.end(grpc.StatusCode.OK, "")

    # For the handler -------------------------------------------------------------------------------------------------

    async def write(self, response: Any) -> None:
        """Send one of several messages."""
        data = self._handler.response_serializer(response)
        self._writing = asyncio.get_running_loop().create_future()
        self._lib.qw_write(self.pointer, data, len(data))
        await self._writing

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """End the call without an answer."""
        self.set_trailing_metadata(trailing_metadata)
        self.end(code, details)
        raise _AbortedError

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """Headers that follow the answer."""
        for key, value in trailing_metadata:
            self._lib.qw_trailer(self.pointer, key.encode(), value.encode())

    def invocation_metadata(self) -> Metadata:
        """The headers that the client sent, but for binary ones."""
        size = self._lib.qw_headers(self.pointer, None, 0)
        data = ctypes.create_string_buffer(size)
        self._lib.qw_headers(self.pointer, data, size)
        texts = data.raw.split(b"\0")
        return [(k.decode(), v.decode("latin-1")) for k, v in zip(texts[0::2], texts[1::2], strict=False)]

    def time_remaining(self) -> float:
        """Seconds until the client stops waiting, a huge number when it never does."""
        return float(self._lib.qw_seconds_left(self.pointer))


class _AbortedError(Exception):
    """A handler ended its call itself."""
