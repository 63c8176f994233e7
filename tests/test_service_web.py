"""The HTTP port: metrics under Triton's names that agree with the statistics, and the live page's data."""

import base64
import json
import pickle
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from random_networks import CHANNELS, featurizer, random_image
from running_service import Running, random_classifier, running_configuration, serving
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from driver.device import Readings
from driver.golden import GoldenDevice
from driver.runtime import Npu
from host_service import device_child
from host_service.server import Service
from host_service.web import png

SEED = 111
PROGRAM = featurizer(SEED)
IMAGES = np.stack([random_image(np.random.default_rng(SEED), PROGRAM) for _ in range(3)])


READINGS = Readings({"vccint": 1.75}, {"ams temp0": 41.5})


class WarmDevice(GoldenDevice):
    """The golden model on a board that measures itself."""

    def sensors(self) -> Readings:
        return READINGS


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """After three answered requests of 1, 2 and 3 images, and one that was refused."""
    folder = tmp_path_factory.mktemp("web")
    PROGRAM.save(folder / "net.npu")
    np.savez(folder / "net.npz", **{f"classifier/{k}": v for k, v in vars(random_classifier(1, CHANNELS)).items()})
    models = {"program": "net.npu", "classifier": "net.npz"}
    with running_configuration(folder, http=True, models=models) as running:
        with InferenceServerClient(running.address) as client:
            for count in (1, 2, 3):
                client.infer("tagger", [tensor(IMAGES[:count])])
            with pytest.raises(InferenceServerException):
                client.infer("tagger", [tensor(IMAGES[:, :3])])
        yield running


def tensor(images: np.ndarray) -> InferInput:
    made = InferInput("image", list(images.shape), "UINT8")
    made.set_data_from_numpy(images)
    return made


def get(running: Running, path: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(running.http + path, timeout=30) as answer:
        return answer.headers["Content-Type"], answer.read()


def metrics(running: Running) -> dict[str, dict[frozenset[str], float]]:
    """Values by name and by the labels' values."""
    found: dict[str, dict[frozenset[str], float]] = {}
    for family in text_string_to_metric_families(get(running, "/metrics")[1].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.values())] = sample.value
    return found


def test_metrics_have_tritons_names_and_agree_with_the_statistics(running: Running):
    found, tagger = metrics(running), frozenset(("tagger", "1"))
    with InferenceServerClient(running.address) as client:
        (statistics,) = client.get_inference_statistics("tagger").model_stats
    s = statistics.inference_stats
    expected = {
        "nv_inference_request_success": s.success.count,
        "nv_inference_request_failure": s.fail.count,
        "nv_inference_count": statistics.inference_count,
        "nv_inference_exec_count": statistics.execution_count,
        "nv_inference_request_duration_us": s.success.ns / 1000,
        "nv_inference_queue_duration_us": s.queue.ns / 1000,
        "nv_inference_compute_input_duration_us": s.compute_input.ns / 1000,
        "nv_inference_compute_infer_duration_us": s.compute_infer.ns / 1000,
        "nv_inference_compute_output_duration_us": s.compute_output.ns / 1000,
        "nv_inference_pending_request_count": 0,
    }
    assert {name: found[name][tagger] for name in expected} == expected
    assert (s.success.count, s.fail.count, statistics.inference_count) == (3, 1, 6)


def test_metrics_of_the_devices(running: Running):
    found, device = metrics(running), frozenset(("0", "golden"))
    assert found["quarkwave_device_images_total"][device] == 6
    assert found["quarkwave_device_state"][device | {"ready"}] == 1
    assert found["quarkwave_npu_total"][device | {"layers_done"}] == 6 * len(PROGRAM.layer_names)
    assert found["quarkwave_device_busy_seconds_total"][device] > 0
    assert found["quarkwave_queue_images"][frozenset()] == 0


def test_metrics_of_a_boards_sensors():
    npu = Npu(WarmDevice(PROGRAM.config))
    npu.load(PROGRAM)

    async def make() -> Service:
        return Service.local(npu)

    with serving(make, http=True) as running:
        found = metrics(running)
    assert found["quarkwave_device_power_watts"] == {frozenset(("0", "golden", "vccint")): 1.75}
    assert found["quarkwave_device_temperature_celsius"] == {frozenset(("0", "golden", "ams temp0")): 41.5}


def test_a_devices_process_reports_its_sensors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_child, "open_devices", lambda name, config: [WarmDevice(config)])
    ours, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with childs, ours:
        ours.settimeout(60)
        child = threading.Thread(target=device_child.Child(childs).serve)
        child.start()
        ours.send(pickle.dumps((7, "open", "warm", PROGRAM.config, 1.0)))
        answers = [pickle.loads(ours.recv(device_child.MESSAGE)) for _ in range(2)]
        ours.shutdown(socket.SHUT_RDWR)
        child.join()
    assert answers == [(7, None, 1), (device_child.SENSORS, None, READINGS)]


def test_the_latency_histogram_counts_every_request(running: Running):
    found = metrics(running)
    assert found["quarkwave_request_seconds_count"][frozenset(("tagger", "1"))] == 3
    assert found["quarkwave_request_seconds_bucket"][frozenset(("tagger", "1", "+Inf"))] == 3


def test_the_pages_data_says_what_happened(running: Running):
    kind, body = get(running, "/status.json")
    status = json.loads(body)
    assert kind == "application/json"
    (device,) = status["devices"]
    assert (device["kind"], device["state"], device["images"], device["faults"]) == ("golden", "ready", 6, 0)
    assert status["models"] == [{"name": "tagger", "version": "1", "answered": 3, "failed": 1, "now": 0}]
    assert sum(status["latency"]["counts"]) == 3
    assert len(status["samples"]) == 3, "the last image of each request"
    assert abs(sum(status["samples"][0]["probabilities"]) - 1) < 1e-6
    data = base64.b64decode(status["samples"][0]["picture"].partition("base64,")[2])
    assert data.startswith(b"\x89PNG")


def test_the_page_uses_nothing_from_elsewhere(running: Running):
    kind, body = get(running, "/")
    assert kind.startswith("text/html")
    assert not any(text in body for text in (b"http:", b"https:", b"src=", b"@import", b"url("))


def test_health_for_load_balancers(running: Running):
    for path in ("/v2/health/live", "/v2/health/ready"):
        get(running, path)


def test_other_paths_are_not_found(running: Running):
    with pytest.raises(HTTPError, match="404"):
        get(running, "/../net.npu")


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (5, 7)])
def test_pictures_are_the_images(shape: tuple[int, int], tmp_path: Path):
    plane = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    (tmp_path / "plane.png").write_bytes(png(plane))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "plane.png")), plane)
