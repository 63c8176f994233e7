"""Several NPUs in one device process: a pool behind one lane, of an overlay with two NPUs and of devices of two kinds."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from random_networks import feature_sums, featurizer, featurizer_layers, random_image
from running_service import WAIT, Running, device_process, devices_held, running_configuration, until
from tritonclient.grpc import InferenceServerClient

from host_service.client import RemoteNpu
from host_service.runners import AHEAD

SEED = 91
PROGRAM = featurizer(SEED)
IMAGES = [random_image(np.random.default_rng(SEED + n), PROGRAM) for n in range(6)]
SUMS = [feature_sums(featurizer_layers(SEED), image) for image in IMAGES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several")
    PROGRAM.save(path / "net.npu")
    return path


@pytest.fixture(scope="module")
def board(folder: Path) -> Iterator[Running]:
    """The simulated board with two NPUs in its overlay."""
    with running_configuration(
        folder, http=True, models={"program": "net.npu"}, devices=[{"name": "simulated-board:2", "timeout": 60.0}]
    ) as running:
        yield running


def answers(running: Running, count: int) -> list[np.ndarray]:
    """Feature sums of ``count`` images, many under way at a time."""
    with RemoteNpu(running.address) as npu:
        futures = [npu.run_async(IMAGES[n % len(IMAGES)]) for n in range(count)]
        return [future.result(WAIT).result for future in futures]


def test_all_npus_of_a_board_are_one_device_of_one_process(board: Running):
    assert device_process(board).npus == 2
    found = answers(board, 24)
    assert all(np.array_equal(sums, SUMS[n % len(IMAGES)]) for n, sums in enumerate(found)), f"seed {SEED}"


def test_clients_and_the_page_are_told_how_many_npus_there_are(board: Running):
    with InferenceServerClient(board.address) as client:
        config = client.get_model_config("featurizer", as_json=True)["config"]
    assert config["instance_group"][0]["count"] == 2
    assert board.service._web is not None
    (device,) = board.service._web.status()["devices"]
    assert device["npus"] == 2


def test_more_images_are_handed_to_more_npus(board: Running):
    scheduler = board.service.scheduler
    with RemoteNpu(board.address) as npu:
        with devices_held(board):
            futures = [npu.run_async(IMAGES[0]) for _ in range(32)]
            until(lambda: scheduler.waiting == 32 - 2 * AHEAD, "all have come")
            assert len(scheduler.lanes[0].running) == 2 * AHEAD
        assert all(np.array_equal(future.result(WAIT).result, SUMS[0]) for future in futures)


def test_a_killed_process_of_several_npus_loses_no_image_and_comes_back(board: Running):
    victim = device_process(board).pid
    assert victim is not None
    with RemoteNpu(board.address) as npu:
        futures = [npu.run_async(IMAGES[n % len(IMAGES)]) for n in range(24)]
        os.kill(victim, signal.SIGKILL)
        assert all(np.array_equal(f.result(WAIT).result, SUMS[n % len(IMAGES)]) for n, f in enumerate(futures))
    assert device_process(board).pid != victim
    assert device_process(board).npus == 2


def test_every_npu_of_a_pool_gets_images(folder: Path):
    """The timed device answers with bytes of the packed image, the golden model with the sums: so one sees who computed."""
    with running_configuration(
        folder, models={"program": "net.npu"}, devices=[{"name": "golden+timed:20ms", "timeout": 60.0}]
    ) as running:
        packed = [PROGRAM.pack_image(image).reshape(-1)[: len(SUMS[0])] for image in IMAGES]
        found: Counter[str] = Counter()
        for number, sums in enumerate(answers(running, 48)):
            n = number % len(IMAGES)
            golden, timed = np.array_equal(sums, SUMS[n]), np.array_equal(sums, packed[n])
            assert golden or timed, f"image {n}, seed {SEED}"
            found["golden" if golden else "timed"] += 1
    assert set(found) == {"golden", "timed"}
