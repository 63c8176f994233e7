"""`python -m host_service serve` as a process: it says where it listens, finishes what runs on SIGTERM, and fails in one clear line."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from random_networks import CHANNELS, feature_sums, featurizer, featurizer_layers, random_image
from running_service import random_classifier
from tritonclient.grpc import InferenceServerClient, InferInput

from host_service.client import RemoteNpu

PROGRAM = featurizer(41)
IMAGE = random_image(np.random.default_rng(41), PROGRAM)
SUMS = feature_sums(featurizer_layers(41), IMAGE)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    PROGRAM.save(tmp_path / "net.npu")
    arrays = {f"classifier/{name}": value for name, value in vars(random_classifier(41, CHANNELS)).items()}
    np.savez(tmp_path / "net.npz", **arrays)
    return tmp_path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "host_service", *map(str, arguments)]


@contextmanager
def serving(*arguments: object) -> Iterator[tuple[subprocess.Popen, str]]:
    """The process and its "host:port", once it serves."""
    process = subprocess.Popen(command("serve", "--port", 0, *arguments), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield process, process.stdout.readline().split()[-1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_serves_both_models(files: Path):
    with serving("--program", files / "net.npu", "--classifier", files / "net.npz") as (_, address):
        client = InferenceServerClient(address)
        tensor = InferInput("image", [1, *IMAGE.shape], "UINT8")
        tensor.set_data_from_numpy(IMAGE[None])
        answer = client.infer("tagger", [tensor])
        client.close()
    assert np.array_equal(answer.as_numpy("feature_sums")[0], SUMS)
    expected = random_classifier(41, CHANNELS).probabilities(PROGRAM.features(SUMS)[None])
    assert np.array_equal(answer.as_numpy("probabilities"), expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_under_load(files: Path, number: signal.Signals):
    with serving("--program", files / "net.npu") as (process, address), RemoteNpu(address) as npu:
        npu.run(IMAGE)
        futures = [npu.run_async(IMAGE) for _ in range(300)]
        futures[0].result()
        process.send_signal(number)
        assert process.wait(300) == 0
        answers = [f.result().result for f in futures if not f.exception()]
    assert answers and all(np.array_equal(a, SUMS) for a in answers)
    errors = [str(f.exception()) for f in futures if f.exception()]
    assert all("service at" in error for error in errors), "what was not accepted is told so"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--program", "missing.npu"], "missing.npu"),
        (["--program", "net.npz"], "net.npz is not an NPU program"),
        (["--program", "net.npu", "--classifier", "net.npu"], "net.npu holds no classifier"),
        (["--program", "net.npu", "--device", "abacus"], "no device named 'abacus'; installed here:"),
    ],
)
def test_what_cannot_be_served_is_one_clear_line(files: Path, arguments: list[str], text: str):
    done = subprocess.run(command("serve", *arguments), cwd=files, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_service_needs_no_tensorflow(files: Path):
    code = (
        "import sys; import host_service.__main__, driver.__main__, driver.golden, host_service.client;"
        "print([m for m in ('tensorflow', 'qkeras', 'hls4ml', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
