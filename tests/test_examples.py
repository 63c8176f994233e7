"""The examples for experiments' software, against a service: ExternalWork, Dask, coffea, and what the CMSSW files name."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from own_environment import installed
from random_networks import CHANNELS, SIZE, feature_sums, featurizer, featurizer_layers
from running_service import random_classifier
from service_servers import Server, serving
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from examples.dask_dataset import BATCH, tag
from examples.external_work import MODEL, JetTagger, process
from hw.sources import ROOT
from quantize import dataset
from quantize.images import jet_image

SEED, JETS = 111, 70
PROGRAM = featurizer(SEED)
COFFEA = ["coffea==2026.9.0", "tritonclient[grpc,http]==2.73.0", "tables==3.11.1"]
"""For the coffea example, in an environment of its own: numpy, gRPC and protobuf are newer there than ours."""


def random_jets(seed: int, count: int) -> dataset.Jets:
    """Massless particles round a direction, falling in pT, zero-padded."""
    rng = np.random.default_rng(seed)
    constituents = np.zeros((count, dataset.CONSTITUENTS, 4), np.float32)
    for jet in constituents:
        n = rng.integers(3, 120)
        pt, eta, phi = np.sort(rng.exponential(20, n))[::-1], rng.normal(0.5, 0.3, n), rng.normal(1, 0.3, n)
        jet[:n] = np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=1)
    return dataset.Jets(constituents, rng.integers(0, 2, count), np.zeros((count, 4), np.float32))


SAMPLE = random_jets(SEED, JETS)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """P(top) of the sample, computed without a service."""
    layers, classifier = featurizer_layers(SEED), random_classifier(SEED, CHANNELS)
    sums = [feature_sums(layers, jet_image(jet, SIZE)) for jet in SAMPLE.constituents]
    return np.concatenate([classifier.probabilities(PROGRAM.features(s)[None])[:, 1] for s in sums])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network's files and the sample's."""
    folder = tmp_path_factory.mktemp("examples")
    PROGRAM.save(folder / "net.npu")
    arrays = vars(random_classifier(SEED, CHANNELS))
    np.savez(folder / "net.npz", **{f"classifier/{name}": value for name, value in arrays.items()})
    dataset.write(folder / "test.h5", SAMPLE, "test")
    return folder


def start(stack: ExitStack, folder: Path, name: str) -> Server:
    arguments = ["--program", folder / "net.npu", "--classifier", folder / "net.npz"]
    return stack.enter_context(serving(arguments, folder / f"{name}.log"))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with ExitStack() as stack:
        yield start(stack, folder, "service").address


def test_external_work_tags_every_event(server: str, expected: np.ndarray):
    async def run() -> np.ndarray:
        tagger = JetTagger([server])
        p_top = await process(tagger, SAMPLE.constituents, streams=4, work=0.0)
        await tagger.close()
        return p_top

    assert np.array_equal(asyncio.run(run()), expected)


def test_external_work_goes_on_with_the_next_server_when_one_dies(folder: Path, server: str, expected: np.ndarray):
    with ExitStack() as stack:
        doomed = start(stack, folder, "doomed")

        async def run() -> tuple[np.ndarray, int]:
            tagger = JetTagger([doomed.address, server])
            first = await process(tagger, SAMPLE.constituents[:20], streams=4, work=0.0)
            under_way = [tagger.acquire(jet) for jet in SAMPLE.constituents[20:40]]
            os.kill(doomed.pid, signal.SIGKILL)
            then = [await tagger.produce(pending) for pending in under_way]
            last = await process(tagger, SAMPLE.constituents[40:], streams=4, work=0.0)
            await tagger.close()
            return np.concatenate([first, then, last]), tagger.failovers

        p_top, failovers = asyncio.run(run())
    assert np.array_equal(p_top, expected)
    assert failovers == 1


def test_external_work_without_any_server_is_an_error_in_produce():
    async def run() -> None:
        tagger = JetTagger(["127.0.0.1:1"])
        pending = tagger.acquire(SAMPLE.constituents[0])
        try:
            await tagger.produce(pending)
        finally:
            await tagger.close()

    with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
        asyncio.run(run())


def example(name: str, *arguments: object, python: str | Path = sys.executable) -> str:
    command = [python, f"examples/{name}.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_external_work_as_a_command(folder: Path, server: str):
    text = example("external_work", "--servers", server, "--jets", folder / "test.h5", "--work", 1)
    assert f"{JETS} events, 4 streams" in text


def test_dask_tags_a_whole_file_in_its_order(folder: Path, server: str, expected: np.ndarray):
    out = folder / "tags.npz"
    example(
        "dask_dataset", "--server", server, "--jets", folder / "test.h5", "--out", out, "--part", 20, "--workers", 1
    )
    with np.load(out) as found:
        assert np.array_equal(found["p_top"], expected)


def test_coffea_tags_every_jet_as_a_direct_call_does(folder: Path, server: str, expected: np.ndarray):
    environment = installed("coffea", COFFEA)
    out = folder / "coffea.npz"
    python = environment / "bin" / "python"
    example("coffea_tagger", "--server", server, "--jets", folder / "test.h5", "--out", out, python=python)
    with InferenceServerClient(server) as client:
        direct = np.concatenate([tag(client, SAMPLE.constituents[i : i + BATCH]) for i in range(0, JETS, BATCH)])
    with np.load(out) as found:
        assert np.array_equal(found["p_top"], direct)
    assert np.array_equal(direct, expected)


def test_the_cmssw_files_name_what_the_service_offers(server: str):
    configuration = (ROOT / "examples" / "cmssw" / "quarkwave_cfg.py").read_text()
    producer = (ROOT / "examples" / "cmssw" / "JetImageProducer.cc").read_text()
    compile(configuration, "quarkwave_cfg.py", "exec")
    assert re.findall(r'modelName=cms.string\("(.*?)"\)', configuration) == [MODEL]
    with InferenceServerClient(server) as client:
        metadata = client.get_model_metadata(MODEL)
    assert re.findall(r'input\.at\("(.*?)"\)', producer) == [tensor.name for tensor in metadata.inputs]
    outputs = [tensor.name for tensor in metadata.outputs]
    assert re.findall(r'output\.at\("(.*?)"\)', producer) == ["probabilities"]
    assert re.findall(r'outputs=cms.untracked.vstring\("(.*?)"\)', configuration) == ["probabilities"]
    assert "probabilities" in outputs
