"""What clients can get wrong, and what the device can: every failure has its status and a clear text, and the service goes on."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from random_networks import CHANNELS, SIZE, feature_sums, featurizer, featurizer_layers, random_image
from running_service import WAIT, random_classifier, running_service
from tritonclient.grpc import InferResult
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from driver.device import DeviceTimeoutError
from driver.golden import GoldenDevice
from driver.runtime import Npu
from host_service.models import MAX_BATCH
from host_service.server import Service
from hw.isa import Register

pytestmark = pytest.mark.usefixtures("each_transport")
PROGRAM = featurizer(21)
IMAGE = random_image(np.random.default_rng(21), PROGRAM)
SUMS = feature_sums(featurizer_layers(21), IMAGE)
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND

Stub = rpc.GRPCInferenceServiceStub
Edit = Callable[[pb.ModelInferRequest], object]


@pytest.fixture(scope="module")
def device() -> GoldenDevice:
    return GoldenDevice(PROGRAM.config)


@pytest.fixture(scope="module")
def channel(each_transport: str, device: GoldenDevice) -> Iterator[grpc.Channel]:
    with (
        running_service(PROGRAM, random_classifier(21, CHANNELS), device) as address,
        grpc.insecure_channel(address) as channel,
    ):
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> Stub:
    return Stub(channel)


def good_request() -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="featurizer", raw_input_contents=[IMAGE.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=(1, SIZE, SIZE, 3))
    return request


def assert_serves(stub: Stub) -> None:
    answer = InferResult(stub.ModelInfer(good_request(), timeout=30))
    assert np.array_equal(answer.as_numpy("feature_sums")[0], SUMS)


def typed(**contents: list) -> Edit:
    def edit(request: pb.ModelInferRequest) -> None:
        request.ClearField("raw_input_contents")
        for name, values in contents.items():
            getattr(request.inputs[0].contents, name).extend(values)

    return edit


def shape(*dims: int) -> Edit:
    def edit(request: pb.ModelInferRequest) -> None:
        request.inputs[0].shape[:] = dims

    return edit


def field(name: str, value: str) -> Edit:
    return lambda request: setattr(request.inputs[0], name, value)


def floats(value: float) -> Edit:
    def edit(request: pb.ModelInferRequest) -> None:
        request.inputs[0].datatype = "FP32"
        request.raw_input_contents[0] = np.full(IMAGE.shape, value, "<f4").tobytes()

    return edit


VALUES = SIZE * SIZE * 3
WRONG: dict[str, tuple[Edit, grpc.StatusCode, str]] = {
    "model": (lambda r: setattr(r, "model_name", "resnet"), NOT_FOUND, "no model 'resnet'; there are"),
    "no model": (lambda r: setattr(r, "model_name", ""), NOT_FOUND, "no model ''"),
    "version": (lambda r: setattr(r, "model_version", "9"), NOT_FOUND, "no version '9'"),
    "input name": (field("name", "picture"), INVALID, "takes the inputs ['image'], the request has ['picture']"),
    "no input": (lambda r: r.ClearField("inputs"), INVALID, "the request has []"),
    "input twice": (lambda r: r.inputs.append(r.inputs[0]), INVALID, "has ['image', 'image']"),
    "datatype": (field("datatype", "INT8"), INVALID, "is INT8; it must be UINT8 or FP32"),
    "datatype that no one knows": (field("datatype", "QUARK"), INVALID, "is QUARK"),
    "no datatype": (field("datatype", ""), INVALID, "without datatype"),
    "height": (shape(1, SIZE + 1, SIZE, 3), INVALID, f"must be [batch, {SIZE}, {SIZE}, 3]"),
    "no batch dimension": (shape(SIZE, SIZE, 3), INVALID, "must be [batch"),
    "empty batch": (shape(0, SIZE, SIZE, 3), INVALID, "batch 1 to"),
    "negative batch": (shape(-1, SIZE, SIZE, 3), INVALID, "batch 1 to"),
    "batch too large": (shape(MAX_BATCH + 1, SIZE, SIZE, 3), INVALID, f"batch 1 to {MAX_BATCH}"),
    "enormous shape": (shape(2**62, 2**62, 2**62, 2**62), INVALID, "must be [batch"),
    "byte count": (lambda r: r.raw_input_contents.__setitem__(0, b"123"), INVALID, f"has 3 bytes; UINT8 [1, {SIZE}"),
    "no bytes": (typed(), INVALID, "has 0 values"),
    "bytes of another input": (lambda r: r.raw_input_contents.append(b""), INVALID, "1 inputs but 2 raw_input"),
    "bytes and values": (lambda r: r.inputs[0].contents.uint_contents.append(1), INVALID, "send it once"),
    "values of another kind": (typed(int_contents=[1] * VALUES), INVALID, "UINT8 values belong in uint_contents"),
    "too few values": (typed(uint_contents=[1] * (VALUES - 1)), INVALID, f"has {VALUES - 1} values"),
    "values beyond uint8": (typed(uint_contents=[256] * VALUES), INVALID, "256, which is no UINT8"),
    "NaN": (floats(float("nan")), INVALID, "NaN or an infinity"),
    "infinity": (floats(float("inf")), INVALID, "NaN or an infinity"),
    "output name": (lambda r: r.outputs.add(name="probabilities"), INVALID, "has no output 'probabilities'; it has"),
    "output twice": (lambda r: [r.outputs.add(name="features") for _ in "12"], INVALID, "names an output twice"),
    "no class": (
        lambda r: r.outputs.add(name="features").parameters["classification"].SetInParent(),
        INVALID,
        "classification must be 1 or more",
    ),
    "shared memory of nobody": (
        lambda r: (
            r.inputs[0].parameters["shared_memory_region"].MergeFrom(pb.InferParameter(string_param="x")),
            r.inputs[0].parameters["shared_memory_byte_size"].MergeFrom(pb.InferParameter(int64_param=VALUES)),
            r.ClearField("raw_input_contents"),
        ),
        INVALID,
        "no shared memory region 'x'",
    ),
    "shared memory without size": (
        lambda r: (
            r.inputs[0].parameters["shared_memory_region"].MergeFrom(pb.InferParameter(string_param="x")),
            r.ClearField("raw_input_contents"),
        ),
        INVALID,
        "without shared_memory_byte_size",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_gets_its_status_and_a_clear_text(stub: Stub, name: str):
    edit, code, text = WRONG[name]
    request = good_request()
    edit(request)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=30)
    assert caught.value.code() == code, caught.value.details()
    assert text in caught.value.details()
    assert_serves(stub)


@pytest.mark.parametrize("call", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_descriptions_of_an_unknown_model_are_not_found(stub: Stub, call: str):
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, call)(getattr(pb, f"{call}Request")(name="resnet"))
    assert caught.value.code() == NOT_FOUND


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_never_stops_the_service_or_changes_an_answer(stub: Stub, channel: grpc.Channel, seed: int):
    """2,500 requests a seed with random bytes changed on the wire: an error with a status, or the exact answer to what arrived."""
    rng = np.random.default_rng(seed)
    send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    codes, whole = set(), good_request().SerializeToString()
    for number in range(2500):
        data = bytearray(whole)
        head = len(data) - VALUES  # name, shape and lengths, where damage is not just another pixel
        for at in rng.integers(0, head if rng.random() < 0.8 else len(data), int(rng.integers(1, 4))):
            data[at] = rng.integers(0, 256)
        if rng.random() < 0.2:
            data = data[: int(rng.integers(0, len(data)))]
        try:
            answer = pb.ModelInferResponse.FromString(send(bytes(data), timeout=30))
        except grpc.RpcError as error:
            codes.add(error.code())
            assert error.code() in (INVALID, NOT_FOUND), f"seed {seed}, request {number}: {error}"
            continue
        arrived = pb.ModelInferRequest.FromString(bytes(data))
        image = np.frombuffer(arrived.raw_input_contents[0], np.uint8).reshape(IMAGE.shape)
        sums = InferResult(answer).as_numpy("feature_sums")
        assert np.array_equal(sums[0], feature_sums(featurizer_layers(21), image)), f"seed {seed}, request {number}"
    assert {INVALID, NOT_FOUND} <= codes, f"seed {seed}: the damage must reach the checks"
    assert_serves(stub)


def test_garbage_instead_of_a_message_does_not_stop_the_service(stub: Stub, channel: grpc.Channel):
    send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError) as caught:
        send(b"\xff" * 1000, timeout=30)
    assert caught.value.code() == INVALID
    assert "the bytes are no inference.ModelInferRequest" in caught.value.details()
    assert_serves(stub)


# The device ----------------------------------------------------------------------------------------------------------


def test_damaged_weights_are_loaded_again_and_the_request_is_answered(stub: Stub, device: GoldenDevice):
    assert_serves(stub)
    device.memory.at(device.read_register(Register.PROGRAM_ADDRESS), len(PROGRAM.stream))[-1] ^= 1
    assert_serves(stub)


def test_an_error_that_stays_reaches_the_caller_with_the_layers_name_and_the_next_run_is_right():
    class Broken(GoldenDevice):
        broken = True

        def write_register(self, offset: int, value: int) -> None:
            if offset == Register.PROGRAM_BEATS and self.broken:
                value -= 1
            super().write_register(offset, value)

    device = Broken(PROGRAM.config)
    with running_service(PROGRAM, device=device) as address, grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            Stub(channel).ModelInfer(good_request(), timeout=30)
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert "at layer 2 (last)" in caught.value.details()
        device.broken = False
        assert_serves(Stub(channel))


def test_a_device_that_never_finishes_makes_the_service_unavailable_with_its_text():
    with running_service(PROGRAM, timeout=0.0) as address, grpc.insecure_channel(address) as channel:
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                Stub(channel).ModelInfer(good_request(), timeout=60)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "no device works: the golden model has finished" in caught.value.details()
            assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
        assert not Stub(channel).ServerReady(pb.ServerReadyRequest()).ready
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_device_that_does_not_finish_once_is_loaded_again_and_the_request_answered():
    class Late(GoldenDevice):
        late = True

        def wait(self, timeout: float) -> None:
            if self.late:
                self.late = False
                raise DeviceTimeoutError("not yet")
            super().wait(timeout)

    device = Late(PROGRAM.config)
    with running_service(PROGRAM, device=device, timeout=30) as address, grpc.insecure_channel(address) as channel:
        assert_serves(Stub(channel))
        assert not device.late


def test_callers_who_leave_do_not_disturb_those_who_stay(stub: Stub):
    def impatient(number: int) -> None:
        call = stub.ModelInfer.future(good_request())
        if number % 2:
            call.cancel()
        else:
            assert np.array_equal(InferResult(call.result(30)).as_numpy("feature_sums")[0], SUMS)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(impatient, range(60)))
    assert_serves(stub)


# Starting ------------------------------------------------------------------------------------------------------------


def test_a_classifier_for_another_network_is_refused_at_the_start():
    with Npu(GoldenDevice(PROGRAM.config)) as npu:
        npu.load(PROGRAM)
        with pytest.raises(ValueError, match=f"gives {CHANNELS} features"):
            Service.local(npu, random_classifier(1, CHANNELS + 1))


async def test_a_port_that_is_taken_is_refused():
    services = []
    for _ in range(2):
        npu = Npu(GoldenDevice(PROGRAM.config))
        npu.load(PROGRAM)
        services.append(Service.local(npu))
    port = await services[0].start()
    try:
        with pytest.raises(OSError, match="is another service running there"):
            await services[1].start(port=port)
    finally:
        for service in services:
            await service.stop()


async def test_stopping_finishes_the_request_that_runs():
    started, go_on = threading.Event(), threading.Event()

    class Held(GoldenDevice):
        def wait(self, timeout: float) -> None:
            started.set()
            assert go_on.wait(WAIT)
            super().wait(timeout)

    npu = Npu(Held(PROGRAM.config))
    npu.load(PROGRAM)
    service = Service.local(npu)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await service.start()}") as channel:
        call = Stub(channel).ModelInfer(good_request())
        assert await asyncio.to_thread(started.wait, WAIT)
        stopping = asyncio.create_task(service.stop())
        await asyncio.sleep(0.1)
        assert not stopping.done(), "it waits for what runs"
        go_on.set()
        assert np.array_equal(InferResult(await call).as_numpy("feature_sums")[0], SUMS)
        await stopping
