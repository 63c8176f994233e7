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
from running_service import WAIT, Running, device_process, devices_held, running_configuration, until
from tritonclient.grpc import InferenceServerClient, InferResult
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from host_service.runners import AHEAD

pytestmark = pytest.mark.usefixtures("each_transport")
SEED = 81
PROGRAM = featurizer(SEED)
IMAGES = [random_image(np.random.default_rng(SEED + n), PROGRAM) for n in range(8)]
SUMS = [feature_sums(featurizer_layers(SEED), image) for image in IMAGES]
OK = grpc.StatusCode.OK


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults")
    PROGRAM.save(path / "net.npu")
    return path


@pytest.fixture(scope="module")
def golden(each_transport: str, folder: Path) -> Iterator[Running]:
    """Two devices, each in a process of its own."""
    with running_configuration(
        folder, models={"program": "net.npu"}, devices=[{"name": "golden", "count": 2, "timeout": 60.0}]
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


def lanes(running: Running):
    return running.service.scheduler.lanes


def healthy(running: Running) -> bool:
    return all(lane.state == "ready" for lane in lanes(running))


def pid(running: Running, number: int) -> int | None:
    return device_process(running, number).pid


def restart(running: Running, number: int) -> None:
    """Kill a device's process and wait until another one is in its place."""
    victim = pid(running, number)
    os.kill(victim, signal.SIGKILL)
    until(lambda: healthy(running) and pid(running, number) != victim, "the device comes back")


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
    until(lambda: healthy(golden), "both devices work")
    lane, patience = lanes(golden)[1], lanes(golden)[1].timeout
    restart(golden, 1)  # nothing of the load before is watched over any more
    before, victim = lane.faults, pid(golden, 1)
    monkeypatch.setattr("host_service.lane.GRACE", 1.0)
    monkeypatch.setattr(lane, "timeout", 0.0)  # of the one that will hang, no other
    os.kill(victim, signal.SIGSTOP)

    def noticed() -> None:
        until(lambda: lane.faults > before, "the device is found to hang")
        monkeypatch.setattr(lane, "timeout", patience)

    assert load(golden, 400, noticed) == {"right": 400}
    until(lambda: healthy(golden) and pid(golden, 1) != victim, "the device comes back")
    assert "hangs" in str(lane.error)


def test_all_devices_killed_at_once_lose_no_request(golden: Running):
    until(lambda: healthy(golden), "both devices work")
    victims = [pid(golden, number) for number in range(2)]
    assert load(golden, 200, lambda: [os.kill(victim, signal.SIGKILL) for victim in victims]) == {"right": 200}
    until(lambda: healthy(golden), "the devices come back")


def test_a_device_that_dies_without_work_is_brought_back_too(golden: Running):
    until(lambda: healthy(golden), "both devices work")
    restart(golden, 0)


def test_devices_share_the_work(golden: Running):
    until(lambda: healthy(golden), "both devices work")
    before = [lane.images for lane in lanes(golden)]
    with grpc.insecure_channel(golden.address) as channel:
        with devices_held(golden):
            calls = [
                rpc.GRPCInferenceServiceStub(channel).ModelInfer.future(request(n), timeout=WAIT) for n in range(20)
            ]
            until(lambda: golden.service.scheduler.waiting == 20 - 2 * AHEAD, "what no device has room for waits")
            assert [len(lane.running) for lane in lanes(golden)] == [AHEAD, AHEAD]
        assert [outcome(number, call) for number, call in enumerate(calls)] == ["right"] * 20
    shares = [lane.images - images for lane, images in zip(lanes(golden), before, strict=True)]
    assert sum(shares) == 20 and min(shares) >= AHEAD


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


@pytest.fixture(scope="module")
def single(each_transport: str, folder: Path) -> Iterator[Running]:
    """One device, and room for 64 images."""
    with running_configuration(
        folder, models={"program": "net.npu"}, devices=[{"name": "golden"}], limits={"queue": 64}
    ) as running:
        yield running


def images_since(running: Running, before: int) -> int:
    return lanes(running)[0].images - before


def waiting(running: Running) -> int:
    return running.service.scheduler.waiting


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(single: Running):
    before = single.service.scheduler.refused
    with grpc.insecure_channel(single.address) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        with devices_held(single):
            first = [stub.ModelInfer.future(request(n, batch=16), timeout=WAIT) for n in range(4)]
            until(lambda: waiting(single) == 64 - AHEAD, "the queue fills")
            refused = stub.ModelInfer.future(request(0, batch=32), timeout=WAIT)
            assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert f"{64 - AHEAD} images wait and the queue holds 64: send these 32 again in" in refused.details()
            assert int(dict(refused.trailing_metadata())["grpc-retry-pushback-ms"]) >= 1
            assert not any(call.done() for call in first)
        assert [call.code() for call in first] == [OK] * 4
    assert single.service.scheduler.refused == before + 32


def test_cancelled_requests_never_reach_the_device(single: Running):
    before, count = lanes(single)[0].images, AHEAD + 4
    with grpc.insecure_channel(single.address) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        with devices_held(single):
            stay = [stub.ModelInfer.future(request(n), timeout=WAIT) for n in range(count)]
            until(lambda: waiting(single) == 4, "a few wait")
            leave = [stub.ModelInfer.future(request(n), timeout=WAIT) for n in range(32)]
            until(lambda: waiting(single) == 36, "the queue fills")
            for call in leave:
                call.cancel()
            until(lambda: waiting(single) == 4, "the cancelled ones are gone")
        assert [outcome(number, call) for number, call in enumerate(stay)] == ["right"] * count
    assert images_since(single, before) == count


def test_requests_whose_time_is_over_never_reach_the_device(single: Running):
    before, dropped = lanes(single)[0].images, single.service.scheduler.dropped
    with grpc.insecure_channel(single.address) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        with devices_held(single):
            first = [stub.ModelInfer.future(request(n, batch=10), timeout=WAIT) for n in range(6)]
            until(lambda: waiting(single) == 60 - AHEAD, "the queue fills")
            late = request(0)
            late.parameters["timeout"].int64_param = 200_000
            call = stub.ModelInfer.future(late, timeout=WAIT)
            assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert "before a device could answer it" in call.details()
            assert single.service.scheduler.dropped == dropped + 1
        assert [call.code() for call in first] == [OK] * 6
    assert images_since(single, before) == 60


def test_calls_whose_deadline_is_over_never_reach_the_device(single: Running):
    before = lanes(single)[0].images
    with grpc.insecure_channel(single.address) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        with devices_held(single):
            first = [stub.ModelInfer.future(request(n, batch=10), timeout=WAIT) for n in range(6)]
            until(lambda: waiting(single) == 60 - AHEAD, "the queue fills")
            late = stub.ModelInfer.future(request(0), timeout=1.0)
            until(lambda: waiting(single) == 61 - AHEAD or late.done(), "it waits too")
            assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            until(lambda: waiting(single) == 60 - AHEAD, "it waits no longer")
        assert [call.code() for call in first] == [OK] * 6
    assert images_since(single, before) == 60


def test_clients_that_vanish_leave_nothing_behind(single: Running, tmp_path: Path):
    """A client process is killed in the middle of its requests."""
    before = lanes(single)[0].images
    code = (
        "import grpc, sys, time; channel = grpc.insecure_channel(sys.argv[1]);"
        "call = channel.unary_unary('/inference.GRPCInferenceService/ModelInfer');"
        "data = open(sys.argv[2], 'rb').read(); calls = [call.future(data) for _ in range(50)];"
        "print('sent', flush=True); time.sleep(600)"
    )
    (tmp_path / "request").write_bytes(request(0).SerializeToString())
    client = subprocess.Popen(
        [sys.executable, "-c", code, single.address, tmp_path / "request"], stdout=subprocess.PIPE
    )
    with client, devices_held(single):
        assert client.stdout and client.stdout.readline()
        until(lambda: waiting(single) == 50 - AHEAD, "the queue fills")
        client.kill()
        until(lambda: waiting(single) == 0, "its requests are dropped")
    until(lambda: not lanes(single)[0].running, "the device is free")
    assert images_since(single, before) <= AHEAD
    with grpc.insecure_channel(single.address) as channel:
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
