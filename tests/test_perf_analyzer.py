"""NVIDIA's perf_analyzer, as it is, measures the service: with tensors in the calls and in shared memory, call by call and in streams.

The binary is in tritonclient's wheel, the libraries that it wants are in the stock Triton server's; both are in that server's environment.
"""

import csv
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import stock_triton
from random_networks import feature_sums, featurizer, featurizer_layers, random_image
from service_servers import serving
from tritonclient.grpc import InferenceServerClient

SEED, REQUESTS = 71, 40
PROGRAM = featurizer(SEED)
IMAGES = [random_image(np.random.default_rng(seed), PROGRAM) for seed in range(3)]
SUMS = [feature_sums(featurizer_layers(SEED), image) for image in IMAGES]
MODES = {"sync": ["--sync"], "async": ["--async"], "stream": ["--async", "--streaming"]}

Analyzer = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    PROGRAM.save(folder / "net.npu")
    with serving(["--program", folder / "net.npu", "--device", "golden"], folder / "service.log") as running:
        yield running.address


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server) as client:
        yield client


@pytest.fixture(scope="module")
def analyze(server: str, tmp_path_factory: pytest.TempPathFactory) -> Analyzer:
    """Run perf_analyzer on the featurizer with REQUESTS requests and further options."""
    environment = stock_triton.install()
    libraries = tmp_path_factory.mktemp("libraries")
    for name in ("libb64.so.0d", "libcudart.so.12"):
        (library,) = environment.glob(f"lib/python*/site-packages/nvidia_pytriton.libs/{name.split('.')[0]}-*")
        (libraries / name).symlink_to(library)
    command = [environment / "bin" / "perf_analyzer", "-m", "featurizer", "-i", "grpc", "-u", server]

    def run(*options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, [*command, f"--request-count={REQUESTS}", *options])],
            env=os.environ | {"LD_LIBRARY_PATH": str(libraries)},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def data(path: Path, sums: list[np.ndarray]) -> Path:
    """A file of perf_analyzer's with IMAGES, and the answers that it shall find."""
    content = {
        "data": [{"image": {"content": image.ravel().tolist(), "shape": image.shape}} for image in IMAGES],
        "validation_data": [{"feature_sums": {"content": s.tolist(), "shape": s.shape}} for s in sums],
    }
    path.write_text(json.dumps(content))
    return path


def measured(analyze: Analyzer, client: InferenceServerClient, folder: Path, batch: int, *options: object) -> None:
    """perf_analyzer ends without an error and reports a throughput; the service has counted its requests, all of them successes."""

    def counts() -> np.ndarray:
        (model,) = client.get_inference_statistics("featurizer").model_stats
        statistics = model.inference_stats
        return np.array([statistics.success.count, statistics.fail.count, model.inference_count])

    before = counts()
    done = analyze("-b", batch, "-f", folder / "report.csv", *options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with (folder / "report.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["Inferences/Second"]) > 0
    assert (counts() - before).tolist() == [REQUESTS, 0, REQUESTS * batch]


@pytest.mark.parametrize("mode", MODES)
def test_it_measures_and_finds_every_answer_right(
    analyze: Analyzer, client: InferenceServerClient, tmp_path: Path, mode: str
):
    measured(analyze, client, tmp_path, 1, *MODES[mode], "--input-data", data(tmp_path / "data.json", SUMS))


def test_it_would_find_a_wrong_answer(analyze: Analyzer, tmp_path: Path):
    done = analyze("--input-data", data(tmp_path / "data.json", [sums + 1 for sums in SUMS]))
    assert done.returncode != 0
    assert "Output doesn't match expected output" in done.stdout + done.stderr


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_it_measures_with_tensors_in_shared_memory(
    analyze: Analyzer, client: InferenceServerClient, tmp_path: Path, mode: str, batch: int
):
    measured(analyze, client, tmp_path, batch, *MODES[mode], "--shared-memory=system", "--concurrency-range=4")
    assert not client.get_system_shared_memory_status().regions, "regions left registered"
