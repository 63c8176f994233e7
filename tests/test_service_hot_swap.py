"""A new classifier for a running service: fitted on the service's own features, put beside the old one, loaded under load."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from random_networks import SIZE, feature_sums, featurizer, featurizer_layers, random_image
from running_service import WAIT, Running, random_classifier, running_configuration, until
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from quantize.__main__ import main as quantize
from quantize.classifier import load_classifier

SEED = 67
PROGRAM = featurizer(SEED)
RNG = np.random.default_rng(SEED)
IMAGES = np.stack([random_image(RNG, PROGRAM) for _ in range(24)])
SUMS = np.stack([feature_sums(featurizer_layers(SEED), image) for image in IMAGES])
FEATURES = np.stack([PROGRAM.features(sums) for sums in SUMS])
CLIENTS = 4


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A model repository with version 1 of a tagger."""
    first = tmp_path / "models" / "tagger" / "1"
    PROGRAM.save(first / "program.npu")
    old = random_classifier(SEED, FEATURES.shape[1])
    np.savez(first / "classifier.npz", **{f"classifier/{k}": v for k, v in vars(old).items()})
    with running_configuration(tmp_path, models={"repository": "models"}) as running:
        yield running


def infer(client: InferenceServerClient, number: int, output: str) -> tuple[np.ndarray, str]:
    """One image's output, and the version that gave it."""
    tensor = InferInput("image", [1, SIZE, SIZE, 3], "UINT8")
    tensor.set_data_from_numpy(IMAGES[number][None])
    result = client.infer("tagger", [tensor], outputs=[InferRequestedOutput(output)], client_timeout=WAIT)
    return result.as_numpy(output)[0], result.get_response().model_version


def fit_new(address: str, folder: Path) -> Path:
    """Fit three classes on features that the service itself computed, as ``python -m quantize head`` does for a user."""
    with InferenceServerClient(address) as client:
        features = np.stack([infer(client, number, "features")[0] for number in range(len(IMAGES))])
    np.save(folder / "features.npy", features)
    np.save(folder / "labels.npy", np.arange(len(IMAGES)) % 3)
    files = ["--features", f"{folder}/features.npy", "--labels", f"{folder}/labels.npy", "--out", f"{folder}/new.npz"]
    assert quantize(["head", *files, "--hidden", "8", "--epochs", "2"]) == 0
    return folder / "new.npz"


def add_version(repository: Path, classifier: Path) -> None:
    """Version 2: the same network, the new classifier; it appears whole."""
    draft = repository / "tagger" / ".2"
    draft.mkdir()
    shutil.copy2(repository / "tagger" / "1" / "program.npu", draft)
    shutil.copy2(classifier, draft / "classifier.npz")
    os.replace(draft, repository / "tagger" / "2")


def test_a_new_classifier_takes_over_under_load_and_no_call_fails(running: Running, tmp_path: Path):
    repository = tmp_path / "models"
    new_file = fit_new(running.address, tmp_path)
    classifiers = {
        "1": load_classifier(repository / "tagger" / "1" / "classifier.npz"),
        "2": load_classifier(new_file),
    }
    seen: list[list[tuple[int, np.ndarray, str]]] = [[] for _ in range(CLIENTS)]
    failures: list[Exception] = []
    stop = threading.Event()

    def client_under_load(number: int) -> None:
        with InferenceServerClient(running.address) as client:
            while not stop.is_set():
                image = (number + len(seen[number])) % len(IMAGES)
                try:
                    seen[number].append((image, *infer(client, image, "probabilities")))
                except InferenceServerException as error:
                    failures.append(error)
                    return

    threads = [threading.Thread(target=client_under_load, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: failures or all(len(answers) >= 10 for answers in seen), "the load is on")
        add_version(repository, new_file)
        with InferenceServerClient(running.address) as operator:
            operator.load_model("tagger")
        counts = [len(answers) for answers in seen]
        until(lambda: failures or all(len(a) >= n + 10 for a, n in zip(seen, counts, strict=True)), "it goes on")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    for answers, before in zip(seen, counts, strict=True):
        versions = [version for _, _, version in answers]
        assert versions == sorted(versions), "no client sees the old one after the new one"
        assert versions[0] == "1" and set(versions[before + 1 :]) == {"2"}
        for image, probabilities, version in answers:
            expected = classifiers[version].probabilities(FEATURES[image][None])[0]
            assert np.array_equal(probabilities, expected), f"image {image}, version {version}, seed {SEED}"


def test_a_bad_new_version_leaves_the_old_one_in_place(running: Running, tmp_path: Path):
    bad = tmp_path / "bad.npz"
    other = random_classifier(SEED, FEATURES.shape[1] + 1)
    np.savez(bad, **{f"classifier/{k}": v for k, v in vars(other).items()})
    add_version(tmp_path / "models", bad)
    with InferenceServerClient(running.address) as client:
        with pytest.raises(InferenceServerException, match="use the classifier that was trained with this network"):
            client.load_model("tagger")
        probabilities, version = infer(client, 0, "probabilities")
    expected = load_classifier(tmp_path / "models" / "tagger" / "1" / "classifier.npz").probabilities(FEATURES[:1])[0]
    assert version == "1"
    assert np.array_equal(probabilities, expected)
