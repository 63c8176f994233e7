"""What receives the calls: gRPC's C++ library takes messages apart as Python would, and behaves as gRPC's Python package does."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

import host_service.transport
import host_service.transport.library as library_module
from host_service.configuration import Tls
from host_service.errors import RequestError
from host_service.quantise import Quantiser
from host_service.tensor import StoredTensor
from host_service.transport import Transport, transport
from host_service.wire import Parts, take_apart
from hw.native import NativeBuildError

METHOD = "/quarkwave.test.Service/Method"
LIMIT = 1 << 24


@asynccontextmanager
async def serving(
    handler: grpc.RpcMethodHandler, name: str = "auto"
) -> AsyncIterator[tuple[Transport, grpc.aio.Channel]]:
    """A transport that serves ``handler`` as METHOD, and a channel to it."""
    server = transport(name, LIMIT)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("quarkwave.test.Service", {"Method": handler})]
    )
    port = await server.start("127.0.0.1", 0, Tls())
    try:
        options = [("grpc.max_receive_message_length", LIMIT)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield server, channel
    finally:
        await server.stop(0.0)


# Messages in pieces --------------------------------------------------------------------------------------------------


def random_message(rng: np.random.Generator) -> bytes:
    """A ModelInferRequest with tensors of up to 1 MB, fields in any order, sometimes damaged."""
    parts = []
    for _ in range(int(rng.integers(1, 4))):
        part = pb.ModelInferRequest(model_name="tagger" * int(rng.integers(0, 40)))
        if rng.random() < 0.5:
            part.id = f"request {rng.integers(1 << 40)} of Zürich"
        if rng.random() < 0.5:
            part.inputs.add(name="image", datatype="FP32", shape=rng.integers(0, 1 << 40, 4).tolist())
        for _ in range(int(rng.integers(0, 3))):
            part.raw_input_contents.append(rng.bytes(int(rng.choice([0, 1, 127, 128, 70_001, 1_000_003]))))
        parts.append(part.SerializeToString())
    data = bytearray(b"".join(parts))
    if rng.random() < 0.4:
        for at in rng.integers(0, max(1, min(len(data), 200)), 2):
            data[at : at + 1] = rng.bytes(1)
    if rng.random() < 0.1:
        del data[int(rng.integers(len(data) + 1)) :]
    return bytes(data)


def values_of(parts: Parts) -> tuple[bytes, bytes, list[bytes]]:
    """Copies of everything in ``parts``."""
    raw = [
        data.tobytes()
        if isinstance(data, memoryview)
        else bytes(data)
        if isinstance(data, bytes)
        else np.asarray(StoredTensor(data, np.dtype(np.uint8), (len(data),))).tobytes()
        for data in parts.raw
    ]
    return parts.head, parts.id, raw


@asynccontextmanager
async def taken_apart() -> AsyncIterator[tuple[list[Any], grpc.aio.Channel]]:
    """The values of the messages that have come through gRPC's C++ library, and a channel to send them."""
    found: list[Any] = []

    async def handle(parts: Parts, context: object) -> bytes:
        found.append(values_of(parts))
        return b""

    handler = grpc.unary_unary_rpc_method_handler(handle, request_deserializer=take_apart)
    async with serving(handler, "grpc++") as (_, channel):
        yield found, channel


@pytest.mark.parametrize("seed", range(4))
async def test_a_message_in_pieces_is_taken_apart_like_a_whole_one(seed: int):
    rng = np.random.default_rng(seed)
    async with taken_apart() as (found, channel):
        for _ in range(60):
            message = random_message(rng)
            await channel.unary_unary(METHOD)(message)
            assert found.pop() == values_of(take_apart(message)), message[:200].hex()


async def test_a_message_of_many_tensors_or_a_long_head_arrives_whole():
    many = pb.ModelInferRequest(raw_input_contents=[bytes([n]) for n in range(40)]).SerializeToString()
    long = pb.ModelInferRequest(model_name="x" * 100_000, raw_input_contents=[b"tensor"]).SerializeToString()
    async with taken_apart() as (found, channel):
        for message in (many, long):
            await channel.unary_unary(METHOD)(message)
        assert found == [values_of(take_apart(message)) for message in (many, long)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fraction_bits", [7, 8])
async def test_values_in_pieces_are_quantised_like_an_array(fraction_bits: int, seed: int):
    rng = np.random.default_rng(seed)
    quantiser = Quantiser(fraction_bits)
    out: list[np.ndarray | str] = []

    async def handle(parts: Parts, context: object) -> bytes:
        (content,) = parts.raw
        batch = StoredTensor(content, np.dtype("<f4"), (2, len(content) // 8))  # type: ignore[arg-type]
        pixels = np.empty(batch.shape, np.uint8)
        try:
            for image, row in zip(batch, pixels, strict=True):
                quantiser.write(image, row)
            out.append(pixels)
        except RequestError as error:
            out.append(str(error))
        return b""

    handler = grpc.unary_unary_rpc_method_handler(handle, request_deserializer=take_apart)
    async with serving(handler, "grpc++") as (_, channel):
        for strange in (None, np.nan, np.inf, -np.inf):
            size = int(rng.integers(1, 150_000))
            ties = rng.integers(-600, 1200, (2, size)) / 2 ** (fraction_bits + 1)
            values = np.where(rng.random((2, size)) < 0.5, ties, rng.normal(0.5, 1.0, (2, size))).astype("<f4")
            if strange is not None:
                values[rng.integers(2), rng.integers(size)] = strange
            # A name of random length, so that the values stand anywhere.
            message = pb.ModelInferRequest(model_name="m" * int(rng.integers(9)), raw_input_contents=[values.tobytes()])
            await channel.unary_unary(METHOD)(message.SerializeToString())
            if strange is not None:
                assert out.pop() == "the image holds a NaN or an infinity: every value must be a number, 0 to 1"
                continue
            expected = np.empty(values.shape, np.uint8)
            quantiser.write(values, expected)
            assert np.array_equal(out.pop(), expected)


# Which one it is -----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine without g++ on which nothing was compiled yet."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(library_module, "LIBRARIES", ["-lnothing-that-was-linked-before"])
    library_module.library.cache_clear()
    yield
    library_module.library.cache_clear()


@pytest.mark.usefixtures("no_compiler")
async def test_without_a_compiler_pythons_package_receives_the_calls(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        assert transport("auto", LIMIT).name == "grpcio"
    assert "there is no g++" in caplog.text and "apt-get install g++ libgrpc++-dev" in caplog.text


@pytest.mark.usefixtures("no_compiler")
def test_a_transport_asked_for_by_name_is_not_replaced_by_another():
    with pytest.raises(NativeBuildError, match="there is no g"):
        transport("grpc++", LIMIT)


async def test_the_cpp_library_is_preferred():
    server = transport("auto", LIMIT)
    assert server.name == "grpc++"
    await server.stop(0.0)


# Calls, on either transport ------------------------------------------------------------------------------------------


@pytest.fixture(params=host_service.transport.PREFERRED)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


async def echo(data: bytes, context: object) -> bytes:
    return data


@pytest.mark.parametrize("size", [0, 1, 16_384, 5_000_000])
async def test_bytes_come_back_as_they_were_sent(name: str, size: int):
    data = np.random.default_rng(size).bytes(size)
    async with serving(grpc.unary_unary_rpc_method_handler(echo), name) as (_, channel):
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate):
            assert await channel.unary_unary(METHOD)(data, compression=compression) == data


@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
async def test_streams_keep_their_order(name: str, kind: str):
    async def repeat(data: bytes, context: object) -> AsyncIterator[bytes]:
        for number in range(data[0]):
            yield bytes([number])

    async def all_of(requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
        async for data in requests:
            async for answer in repeat(data, context):
                yield answer

    if kind == "unary_stream":
        async with serving(grpc.unary_stream_rpc_method_handler(repeat), name) as (_, channel):
            assert [d[0] async for d in channel.unary_stream(METHOD)(bytes([100]))] == [*range(100)]
    else:
        async with serving(grpc.stream_stream_rpc_method_handler(all_of), name) as (_, channel):
            call = channel.stream_stream(METHOD)(iter([bytes([3]), bytes([0]), bytes([2])]))
            assert [d[0] async for d in call] == [0, 1, 2, 0, 1]


async def status(call: grpc.aio.UnaryUnaryCall) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_a_method_that_is_not_there_is_unimplemented(name: str):
    async with serving(grpc.unary_unary_rpc_method_handler(echo), name) as (_, channel):
        for method in ("/quarkwave.test.Service/Other", "/other.Service/Method"):
            assert await status(channel.unary_unary(method)(b"")) == grpc.StatusCode.UNIMPLEMENTED


async def test_a_handler_that_fails_does_no_harm(name: str):
    async def fail(data: bytes, context: object) -> bytes:
        raise ZeroDivisionError if data else RuntimeError

    async with serving(grpc.unary_unary_rpc_method_handler(fail), name) as (_, channel):
        for data in (b"", b"1", b""):
            code = await status(channel.unary_unary(METHOD)(data))
            assert code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


async def test_a_message_over_the_limit_is_refused(name: str):
    async with serving(grpc.unary_unary_rpc_method_handler(echo), name) as (_, channel):
        assert await status(channel.unary_unary(METHOD)(bytes(LIMIT + 1))) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await channel.unary_unary(METHOD)(b"next") == b"next"


async def test_metadata_and_deadline_reach_the_handler_and_trailers_the_client(name: str):
    seen: dict[str, Any] = {}

    async def handle(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        seen["metadata"], seen["left"] = dict(context.invocation_metadata() or ()), context.time_remaining()
        context.set_trailing_metadata((("grpc-retry-pushback-ms", "250"),))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "später, café")
        return b""

    async with serving(grpc.unary_unary_rpc_method_handler(handle), name) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(METHOD)(b"", metadata=(("authorization", "Bearer x y"),), timeout=500)
    assert seen["metadata"]["authorization"] == "Bearer x y"
    assert 400 < seen["left"] < 510  # gRPC rounds up what it sends
    assert caught.value.details() == "später, café"
    assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "250"


@pytest.mark.parametrize("how", ["cancelled", "deadline", "stopped"])
async def test_a_call_that_nobody_waits_for_is_cancelled_in_its_handler(name: str, how: str):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(data: bytes, context: object) -> bytes:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()
        return data

    async with serving(grpc.unary_unary_rpc_method_handler(wait), name) as (server, channel):
        call = channel.unary_unary(METHOD)(b"", timeout=0.5 if how == "deadline" else 600)
        waiting = asyncio.ensure_future(asyncio.wait({asyncio.ensure_future(_outcome(call))}))
        await asyncio.wait_for(begun.wait(), 60)
        if how == "cancelled":
            call.cancel()
        elif how == "stopped":
            await server.stop(0.1)
        await asyncio.wait_for(ended.wait(), 60)
        await waiting


async def _outcome(call: grpc.aio.UnaryUnaryCall) -> None:
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call


async def test_a_stop_waits_for_the_calls_that_run(name: str):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(data: bytes, context: object) -> bytes:
        begun.set()
        await go_on.wait()
        return data

    async with serving(grpc.unary_unary_rpc_method_handler(wait), name) as (server, channel):
        call = channel.unary_unary(METHOD)(b"answer")
        asyncio.ensure_future(call.code())  # noqa: RUF006  sends it
        await asyncio.wait_for(begun.wait(), 60)
        stopping = asyncio.ensure_future(server.stop(60))
        await asyncio.sleep(0.1)
        go_on.set()
        assert await call == b"answer"
        await stopping


async def test_a_port_that_is_taken_is_said_to_be(name: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = transport(name, LIMIT)
        with pytest.raises(OSError, match="is another service running there"):
            await server.start("127.0.0.1", taken.getsockname()[1], Tls())
        await server.stop(0.0)


async def test_files_that_are_no_certificate_are_said_to_be_wrong(name: str, tmp_path: Path):
    for file in ("key", "certificate"):
        (tmp_path / file).write_text("-----BEGIN NONSENSE-----")
    server = transport(name, LIMIT)
    with pytest.raises(OSError, match="are the TLS files right"):
        await server.start("127.0.0.1", 0, Tls(tmp_path / "certificate", tmp_path / "key"))
    await server.stop(0.0)
