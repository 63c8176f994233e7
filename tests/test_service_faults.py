"""Real processes that die, hang or are flooded: every accepted request is answered once, rightly or with the right status."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from random_networks import SIZE, feature_sums, featurizer, featurizer_layers, random_image
from running_service import Running, running_configuration
from tritonclient.grpc import InferenceServerClient, InferResult
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from host_service.device_process import DeviceProcess

SEED = 81
PROGRAM = featurizer(SEED)
IMAGES = [random_image(np.random.default_rng(SEED + n), PROGRAM) for n in range(8)]
SUMS = [feature_sums(featurizer_layers(SEED), image) for image in IMAGES]
OK = grpc.StatusCode.OK
WAIT = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults")
    PROGRAM.save(path / "net.npu")
    return path


@pytest.fixture(scope="module")
def golden(folder: Path) -> Iterator[Running]:
    """Two devices, each in a process of its own."""
    with running_configuration(
        folder, models={"program": "net.npu"}, devices=[{"name": "golden", "count": 2, "timeout": 5.0}]
    ) as running:
        yield running


def request(number: int, batch: int = 1) -> pb.ModelInferRequest:
    images = [IMAGES[(number + n) % len(IMAGES)] for n in range(batch)]
    message = pb.ModelInferRequest(model_name="featurizer", raw_input_contents=[np.stack(images).tobytes()])
    message.inputs.add(name="image", datatype="UINT8", shape=(batch, SIZE, SIZE, 3))
    message.outputs.add(name="feature_sums")
    return message


def outcome(number: int, call: grpc.Future) -> str:
    """ "right", "wrong", or the status of one call."""
    try:
        sums = InferResult(call.result(WAIT)).as_numpy("feature_sums")[0]
    except grpc.RpcError as error:
        return error.code().name
    return "right" if np.array_equal(sums, SUMS[number % len(IMAGES)]) else "wrong"


def load(running: Running, count: int, meanwhile) -> Counter:
    """Outcomes of ``count`` calls, 40 at a time, with ``meanwhile()`` called when a quarter has been answered."""
    found: Counter[str] = Counter()
    permits, done = threading.Semaphore(40), threading.Semaphore(0)
    with grpc.insecure_channel(running.address) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        calls = []
        for number in range(count):
            permits.acquire()
            call = stub.ModelInfer.future(request(number), timeout=WAIT)
            call.add_done_callback(lambda _: (permits.release(), done.release()))
            calls.append(call)
            if number == count // 4:
                meanwhile()
        for number, call in enumerate(calls):
            found[outcome(number, call)] += 1
    return found


def until(condition, what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def lanes(running: Running):
    return running.service.scheduler.lanes


def healthy(running: Running) -> bool:
    return all(lane.state == "ready" for lane in lanes(running))


def pid(running: Running, number: int) -> int | None:
    runner = lanes(running)[number].runner
    assert isinstance(runner, DeviceProcess)
    return runner.pid


# Devices -------------------------------------------------------------------------------------------------------------


def test_a_killed_device_loses_no_request_and_comes_back(golden: Running):
    until(lambda: healthy(golden), "both devices work")
    before, victim = lanes(golden)[0].faults, pid(golden, 0)
    assert load(golden, 400, lambda: os.kill(victim, signal.SIGKILL)) == {"right": 400}
    until(lambda: healthy(golden), "the device comes back")
    assert lanes(golden)[0].faults == before + 1
    assert "died" in str(lanes(golden)[0].error)
    assert pid(golden, 0) != victim


def test_a_hanging_device_loses_no_request_and_comes_back(golden: Running, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("host_service.lane.GRACE", 0.5)
    until(lambda: healthy(golden), "both devices work")
    victim = pid(golden, 1)
    assert load(golden, 400, lambda: os.kill(victim, signal.SIGSTOP)) == {"right": 400}
    until(lambda: healthy(golden) and pid(golden, 1) != victim, "the device comes back")
    assert "hangs" in str(lanes(golden)[1].error)


def test_all_devices_killed_at_once_lose_no_request(golden: Running):
    until(lambda: healthy(golden), "both devices work")
    victims = [pid(golden, number) for number in range(2)]
    assert load(golden, 200, lambda: [os.kill(victim, signal.SIGKILL) for victim in victims]) == {"right": 200}
    until(lambda: healthy(golden), "the devices come back")


def test_a_device_that_dies_without_work_is_brought_back_too(golden: Running):
    until(lambda: healthy(golden), "both devices work")
    victim = pid(golden, 0)
    os.kill(victim, signal.SIGKILL)
    until(lambda: healthy(golden) and pid(golden, 0) != victim, "the device comes back")


def test_devices_share_the_work(golden: Running):
    until(lambda: healthy(golden), "both devices work")
    before = [lane.images for lane in lanes(golden)]
    assert load(golden, 200, lambda: None) == {"right": 200}
    shares = [lane.images - images for lane, images in zip(lanes(golden), before, strict=True)]
    assert sum(shares) == 200 and min(shares) > 20


def test_no_process_is_left_behind(folder: Path):
    with running_configuration(folder, models={"program": "net.npu"}, devices=[{"count": 2}]) as running:
        pids = [pid(running, number) for number in range(2)]
    for number in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_models_loaded_and_unloaded_under_load_leave_every_answer_right(tmp_path: Path):
    PROGRAM.save(tmp_path / "models" / "featurizer" / "1" / "program.npu")
    stop = threading.Event()

    def toggle() -> None:
        with InferenceServerClient(running.address) as client:
            while not stop.is_set():
                client.unload_model("featurizer")
                client.load_model("featurizer")
                time.sleep(0.01)

    with running_configuration(tmp_path, models={"repository": "models"}) as running:
        thread = threading.Thread(target=toggle)
        found = load(running, 600, thread.start)
        stop.set()
        thread.join()
    assert set(found) <= {"right", "UNAVAILABLE"}
    assert found["right"] >= 100


# Callers -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(folder: Path) -> Iterator[Running]:
    """One device of 50 ms an image, and room for 64 images."""
    with running_configuration(
        folder, models={"program": "net.npu"}, devices=[{"name": "timed:50ms"}], limits={"queue": 64}
    ) as running:
        yield running


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(slow: Running):
    with grpc.insecure_channel(slow.address) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        first = [stub.ModelInfer.future(request(n, batch=16), timeout=WAIT) for n in range(4)]
        until(lambda: slow.service.scheduler.waiting > 50, "the queue fills")
        refused = stub.ModelInfer.future(request(0, batch=32), timeout=WAIT)
        assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "the queue holds 64: send these 32 again in" in refused.details()
        assert int(dict(refused.trailing_metadata())["grpc-retry-pushback-ms"]) > 100
        assert not any(call.done() for call in first[1:])
        assert [call.code() for call in first] == [OK] * 4
    assert slow.service.scheduler.refused == 32


def test_cancelled_requests_never_reach_the_device(slow: Running):
    with grpc.insecure_channel(slow.address) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer.future(request(n), timeout=WAIT) for n in range(40)]
        until(lambda: slow.service.scheduler.waiting > 30, "the queue fills")
        for call in calls[8:]:
            call.cancel()
        assert [call.code() for call in calls[:8]] == [OK] * 8
        until(lambda: slow.service.scheduler.waiting == 0, "the cancelled ones are gone")
        assert stub.ModelInfer(request(0), timeout=WAIT)
    assert lanes(slow)[0].images <= 30


@pytest.mark.parametrize("how", ["deadline of the call", "timeout of the request"])
def test_expired_requests_never_reach_the_device(slow: Running, how: str):
    with grpc.insecure_channel(slow.address) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        first = [stub.ModelInfer.future(request(n, batch=10), timeout=WAIT) for n in range(6)]
        until(lambda: slow.service.scheduler.waiting > 50, "the queue fills")
        late = request(0)
        late.parameters["timeout"].int64_param = 200_000 if "request" in how else 0
        call = stub.ModelInfer.future(late, timeout=0.2 if "call" in how else WAIT)
        assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert [c.code() for c in first] == [OK] * 6
    assert lanes(slow)[0].images == 60


def test_clients_that_vanish_leave_nothing_behind(slow: Running, tmp_path: Path):
    """A client process is killed in the middle of its requests."""
    code = (
        "import grpc, sys, time; channel = grpc.insecure_channel(sys.argv[1]);"
        "call = channel.unary_unary('/inference.GRPCInferenceService/ModelInfer');"
        "data = open(sys.argv[2], 'rb').read(); calls = [call.future(data) for _ in range(50)];"
        "print('sent', flush=True); time.sleep(60)"
    )
    (tmp_path / "request").write_bytes(request(0).SerializeToString())
    client = subprocess.Popen([sys.executable, "-c", code, slow.address, tmp_path / "request"], stdout=subprocess.PIPE)
    with client:
        assert client.stdout and client.stdout.readline()
        until(lambda: slow.service.scheduler.waiting > 30, "the queue fills")
        client.kill()
    until(lambda: slow.service.scheduler.waiting == 0, "its requests are dropped")
    until(lambda: not lanes(slow)[0].running, "the device is free")
    assert lanes(slow)[0].images < 50
    with grpc.insecure_channel(slow.address) as channel:
        assert rpc.GRPCInferenceServiceStub(channel).ModelInfer(request(0), timeout=WAIT)


def test_a_message_above_the_limit_is_refused_and_the_service_goes_on(folder: Path):
    with (
        running_configuration(folder, models={"program": "net.npu"}, limits={"message_bytes": 4096}) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = rpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request(0, batch=64), timeout=WAIT)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert outcome(3, stub.ModelInfer.future(request(3))) == "right"
