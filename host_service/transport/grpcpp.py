"""The transport of gRPC's C++ library: ``grpcpp_server.cpp`` receives and answers calls in a thread that needs no interpreter.

A call that has come costs Python's thread a few look-ups; ``grpc.aio`` copies its message two times, and hands the interpreter's lock to
and fro. Handlers are the same as those of ``grpc.aio``.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from struct import Struct
from typing import Any, NamedTuple, NoReturn

import grpc
import numpy as np
from numpy.typing import NDArray

from host_service.configuration import Tls
from host_service.transport.library import library
from host_service.wire import ID, RAW, Parts, take_apart

LOG = logging.getLogger(__name__)
CALL, MESSAGE, WRITTEN, CANCELLED = range(4)
"""What an event says; ``Kind`` in grpcpp_server.cpp."""
EVENT = Struct("qqqqd")
Metadata = Sequence[tuple[str, str]]
BATCH = 64
"""Events that are taken at a time."""
SPAN = Struct("qqqq")
MOST_SPANS = 16
MOST_HEAD = 1 << 16
"""Tensors of a message that is taken apart, and bytes of all else."""

_new_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)
"""Bytes of a length, to be filled before anybody sees them."""


class GrpcppServer:
    """A ``host_service.transport.Transport``."""

    name = "grpc++"

    def __init__(self, message_bytes: int) -> None:
        self.lib = library()
        self.spans = ctypes.create_string_buffer(MOST_SPANS * SPAN.size)
        self.head = ctypes.create_string_buffer(MOST_HEAD)
        """Where messages are taken apart."""
        self._server = self.lib.qw_server(message_bytes)
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._methods: dict[bytes, grpc.RpcMethodHandler] = {}
        """Of the methods that were called so far."""
        self._calls: dict[int, _Call] = {}
        self._events = ctypes.create_string_buffer(BATCH * EVENT.size)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        self._is_over = False
        """Whether every call has ended, and nothing may be asked of the library's calls any more."""
        self._sends = False
        """Whether _send() is about to be called."""

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See Transport."""
        self._handlers.extend(handlers)

    async def start(self, host: str, port: int, tls: Tls) -> int:
        """See Transport."""
        pems = [path.read_bytes() if path else None for path in (tls.key, tls.certificate, tls.client_ca)]
        found = self.lib.qw_start(self._server, f"{host}:{port}".encode(), *pems)
        if not found:
            raise OSError(f"cannot listen on {host}:{port}: is another service running there, are the TLS files right?")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.lib.qw_signal(self._server), self._take)
        return int(found)

    async def stop(self, grace: float) -> None:
        """See Transport."""
        if self._stopped:
            return
        self._stopped = True
        await asyncio.to_thread(self.lib.qw_stop, self._server, grace)
        self._take()
        while self._calls:
            await asyncio.wait([call.task for call in self._calls.values()])
        self._is_over = True
        self.lib.qw_send(self._server)
        await asyncio.to_thread(self.lib.qw_finish_events, self._server)
        self._take()
        if self._loop is not None:
            self._loop.remove_reader(self.lib.qw_signal(self._server))
        self.lib.qw_free(self._server)

    def _take(self) -> None:
        """Take what has happened."""
        count = BATCH
        while count == BATCH:
            count = self.lib.qw_take(self._server, self._events, BATCH)
            for pointer, kind, data, size, left in EVENT.iter_unpack(memoryview(self._events)[: count * EVENT.size]):
                message = _Message(self, data, size) if data else None
                if kind == CALL and not self._is_over:
                    self._begin(pointer, message, left)
                    continue
                call = self._calls.get(pointer)
                if call is not None:
                    if kind == MESSAGE:
                        call.has_read(message)
                    elif kind == WRITTEN:
                        call.has_written()
                    else:
                        call.leave()
                self.lib.qw_release(pointer)

    def _begin(self, pointer: int, message: _Message | None, left: float) -> None:
        """Have a call answered."""
        assert self._loop is not None
        method = self.lib.qw_method(pointer)
        try:
            handler = self._methods[method]
        except KeyError:
            handler = self._find(method)
        call = self._calls[pointer] = _Call(
            self.lib, self._answered, pointer, message, self._loop.time() + left, handler
        )
        call.task = self._loop.create_task(self._serve(call, handler))

    def _answered(self) -> None:
        """Have the answers of this turn of the event loop sent together."""
        if not self._sends:
            assert self._loop is not None
            self._sends = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._sends = False
        if not self._is_over:
            self.lib.qw_send(self._server)

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
        call.is_served = True
        try:
            if call.is_left:
                pass
            elif handler is None:
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
            call.release()


class _Details(NamedTuple):
    """A ``grpc.HandlerCallDetails``."""

    method: str
    invocation_metadata: Metadata


class _Call:
    """One call. To its handler it is the context, with what the handlers here use of a ``grpc.aio.ServicerContext``.

    ``message``: what came with it; ``deadline``: by the event loop's clock; ``answered``: is told of an answer that may be sent.
    """

    task: asyncio.Task[None]

    def __init__(
        self,
        lib: ctypes.CDLL,
        answered: Callable[[], None],
        pointer: int,
        message: _Message | None,
        deadline: float,
        handler: grpc.RpcMethodHandler | None,
    ) -> None:
        self.pointer = pointer
        self.lib = lib
        self._answered = answered
        self._message = message
        self._deadline = deadline
        self._handler = handler
        self._is_ours = True
        """Whether the reference to the library's call has not been given back."""
        self.is_served = False
        """Whether its task has begun; one that is cancelled before never does, and would not clean up."""
        self.is_left = False
        self._reading: asyncio.Future[_Message | None] | None = None
        self._writing: asyncio.Future[None] | None = None

    # For the server --------------------------------------------------------------------------------------------------

    async def serve(self, handler: grpc.RpcMethodHandler) -> None:
        """Have it answered by ``handler``."""
        if handler.request_streaming:
            await self._send_all(handler.stream_stream(self._requests(), self))
            return
        message, self._message = self._message, None
        if message is None:
            self.end(grpc.StatusCode.INTERNAL, "the call came without its message, or one that cannot be read")
            return
        if handler.request_deserializer is take_apart:  # without making one piece of it
            request = message.parts() or take_apart(message.whole())
        else:
            request = self._request(message.whole())
        if handler.response_streaming:
            await self._send_all(handler.unary_stream(request, self))
            return
        data = self._serialised(await handler.unary_unary(request, self))
        self._is_ours = False
        self.lib.qw_answer(self.pointer, data, len(data))
        self._answered()

    def end(self, code: grpc.StatusCode, text: str) -> None:
        """Without (another) message."""
        self.lib.qw_finish(self.pointer, code.value[0], text.encode())

    def release(self) -> None:
        """The library may forget the call when it is through with it."""
        if self._is_ours:
            self._is_ours = False
            self.lib.qw_release(self.pointer)

    def leave(self) -> None:
        """Nobody waits for the answer."""
        self.is_left = True
        if self.is_served:
            self.task.cancel()

    def has_read(self, message: _Message | None) -> None:
        """The next message has come, or none will."""
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(message)

    def has_written(self) -> None:
        """The last message is on its way."""
        if self._writing is not None and not self._writing.done():
            self._writing.set_result(None)

    async def _requests(self) -> AsyncIterator[Any]:
        message, self._message = self._message, None
        while message is not None:
            yield self._request(message.whole())
            self._reading = asyncio.get_running_loop().create_future()
            self.lib.qw_next(self.pointer)
            message = await self._reading

    def _request(self, message: bytes) -> Any:
        assert self._handler is not None
        deserializer = self._handler.request_deserializer
        return message if deserializer is None else deserializer(message)

    def _serialised(self, response: Any) -> bytes:
        assert self._handler is not None
        serializer = self._handler.response_serializer
        return response if serializer is None else serializer(response)

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
        data = self._serialised(response)
        self._writing = asyncio.get_running_loop().create_future()
        self.lib.qw_write(self.pointer, data, len(data))
        await self._writing

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """End the call without an answer."""
        self.set_trailing_metadata(trailing_metadata)
        self.end(code, details)
        raise _AbortedError

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """Headers that follow the answer."""
        for key, value in trailing_metadata:
            self.lib.qw_trailer(self.pointer, key.encode(), value.encode())

    def invocation_metadata(self) -> Metadata:
        """The headers that the client sent, but for binary ones."""
        size = self.lib.qw_headers(self.pointer, None, 0)
        data = ctypes.create_string_buffer(size)
        self.lib.qw_headers(self.pointer, data, size)
        texts = data.raw.split(b"\0")
        return [(k.decode(), v.decode("latin-1")) for k, v in zip(texts[0::2], texts[1::2], strict=False)]

    def time_remaining(self) -> float:
        """Seconds until the client stops waiting, a huge number when it never does."""
        return self._deadline - asyncio.get_running_loop().time()


class _Message:
    """The message of ``size`` bytes at ``pointer``, as the library has it; it goes with this object."""

    __slots__ = ("_pointer", "_server", "_size", "lib")

    def __init__(self, server: GrpcppServer, pointer: int, size: int) -> None:
        self.lib = server.lib
        self._server = server
        self._size = size
        self._pointer = pointer

    def __del__(self) -> None:
        self.lib.qw_message_free(self._pointer)

    def whole(self) -> bytes:
        """In one piece."""
        return self.part(0, self._size)

    def part(self, begin: int, size: int) -> bytes:
        """A part of it, in one piece."""
        data = _new_bytes(None, size)
        self.lib.qw_copy(self._pointer, begin, data, size)
        return data

    def parts(self) -> Parts | None:
        """Those of a ModelInferRequest; None when it is damaged, or larger apart from its tensors than they usually are."""
        head, spans, size = self._server.head, self._server.spans, ctypes.c_size_t(MOST_HEAD)
        count = self.lib.qw_split(self._pointer, 1 << ID | 1 << RAW, head, ctypes.byref(size), spans, MOST_SPANS)
        if count < 0:
            return None
        identity, raw = b"", []
        for number, begin, contents, length in SPAN.iter_unpack(memoryview(spans)[: count * SPAN.size]):
            if number == RAW:
                raw.append(_Content(self, contents, length))
                continue
            identity = self.part(begin, contents + length - begin)
            try:
                identity[contents - begin :].decode()
            except UnicodeDecodeError:
                return None
        return Parts(ctypes.string_at(head, size.value), identity, raw)

    def copy(self, begin: int, out: NDArray[np.uint8]) -> None:
        """See ``host_service.tensor.Content``."""
        self.lib.qw_copy(self._pointer, begin, out.ctypes.data, out.size)

    def quantise(self, begin: int, highest: float, offset: float, out: NDArray[np.uint8]) -> bool:
        """See ``host_service.tensor.Content``."""
        return bool(self.lib.qw_quantise(self._pointer, begin, out.size, highest, offset, out.ctypes.data))


class _Content:
    """A ``host_service.tensor.Content``: ``length`` bytes of ``message``, which stays as long as this."""

    __slots__ = ("_begin", "_length", "_message")

    def __init__(self, message: _Message, begin: int, length: int) -> None:
        self._message = message
        self._begin = begin
        self._length = length

    def __len__(self) -> int:
        return self._length

    def copy(self, begin: int, out: NDArray[np.uint8]) -> None:
        """See Content."""
        self._message.copy(self._begin + begin, out)

    def quantise(self, begin: int, highest: float, offset: float, out: NDArray[np.uint8]) -> bool:
        """See Content."""
        return self._message.quantise(self._begin + begin, highest, offset, out)


class _AbortedError(Exception):
    """A handler ended its call itself."""
