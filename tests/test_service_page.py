"""The live page in a headless Chromium: what people see follows what the service does."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import headless_chromium
import numpy as np
import pytest
from headless_chromium import Page
from random_networks import CHANNELS, featurizer, random_image
from running_service import Running, random_classifier, running_configuration
from tritonclient.grpc import InferenceServerClient, InferInput

from host_service.device_process import DeviceProcess

SEED = 121
PROGRAM = featurizer(SEED)
IMAGES = np.stack([random_image(np.random.default_rng(SEED), PROGRAM) for _ in range(4)])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("page")
    PROGRAM.save(folder / "net.npu")
    np.savez(folder / "net.npz", **{f"classifier/{k}": v for k, v in vars(random_classifier(1, CHANNELS)).items()})
    models = {"program": "net.npu", "classifier": "net.npz"}
    with running_configuration(folder, http=True, models=models, devices=[{"count": 2}]) as running:
        yield running


@pytest.fixture(scope="module")
def page(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with headless_chromium.page(tmp_path_factory.mktemp("profile")) as page:
        page.open(running.http)
        yield page


def tag(running: Running, count: int) -> None:
    with InferenceServerClient(running.address) as client:
        for number in range(count):
            tensor = InferInput("image", [1, *IMAGES[0].shape], "UINT8")
            tensor.set_data_from_numpy(IMAGES[number % len(IMAGES)][None])
            client.infer("tagger", [tensor])


def test_devices_are_listed_with_their_state(page: Page):
    page.until("document.querySelectorAll('#devices tr').length === 2")
    states = page.evaluate("[...document.querySelectorAll('#devices tr')].map(row => row.children[1].textContent)")
    assert states == ["ready", "ready"]


def test_requests_and_pictures_appear_as_they_are_answered(page: Page, running: Running):
    tag(running, 5)
    page.until("[...document.querySelectorAll('#models td')].some(cell => cell.textContent === '5')")
    page.until("document.querySelectorAll('#jets img').length === 5")
    page.until("[...document.querySelectorAll('#jets img')].every(image => image.naturalWidth > 0)")
    captions = page.evaluate("[...document.querySelectorAll('#jets figcaption')].map(c => c.textContent.split(' ')[0])")
    assert set(captions) <= {"QCD", "top"}
    assert page.evaluate("[...document.querySelectorAll('#latency div')].some(bar => bar.title !== '0')")


def test_a_device_that_died_shows_as_a_fault(page: Page, running: Running):
    runner = running.service.scheduler.lanes[0].runner
    assert isinstance(runner, DeviceProcess) and runner.pid
    os.kill(runner.pid, signal.SIGKILL)
    page.until("document.querySelector('#devices tr').textContent.includes('died')")
    page.until("document.querySelector('#devices tr').children[1].textContent === 'ready'")


def test_the_page_throws_no_errors_and_asks_only_this_service(page: Page, running: Running):
    page.until("performance.getEntriesByType('resource').length > 2")
    asked = page.evaluate("[...new Set(performance.getEntriesByType('resource').map(entry => entry.name))]")
    assert [url for url in asked if not url.startswith("data:")] == [f"{running.http}/status.json"]
    assert page.errors == []


def test_the_page_says_when_the_service_is_gone(tmp_path: Path):
    PROGRAM.save(tmp_path / "net.npu")
    with headless_chromium.page(tmp_path / "profile") as page:
        with running_configuration(tmp_path, http=True, models={"program": "net.npu"}) as running:
            page.open(running.http)
            page.until("document.getElementById('note').textContent.startsWith('up ')")
        page.until("document.getElementById('note').textContent.startsWith('no answer from the service')")
