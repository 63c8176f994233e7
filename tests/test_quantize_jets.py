"""Jets from Pythia and FastJet."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from quantize import dataset, jets
from quantize.collisions import PROCESSES, Recipe, generate_chunk
from quantize.jets import generate, verify
from quantize.validation import validate

SMALL = Recipe(seed=5, events_per_batch=40, batches_per_chunk=1)


@pytest.fixture(scope="module")
def chunks():
    return {process: generate_chunk(SMALL, process, 0) for process in PROCESSES}


def axis(jets):
    _, px, py, pz = np.moveaxis(jets.constituents.sum(axis=1, dtype=np.float64), -1, 0)
    return np.hypot(px, py), np.arcsinh(pz / np.hypot(px, py)), np.arctan2(py, px)


@pytest.mark.parametrize("process", PROCESSES)
def test_jets_pass_the_selection(chunks, process):
    jets = chunks[process].jets
    pt, eta, _ = axis(jets)
    assert len(jets) >= 5
    assert (np.abs(eta) < 2).all() and (pt > 550).all() and (pt < 650).all()
    assert (jets.is_top == PROCESSES[process]).all()


def test_constituents_fall_in_pt_and_are_padded_with_zeros(chunks):
    constituents = chunks["top"].jets.constituents
    pt = np.hypot(constituents[..., 1], constituents[..., 2])
    assert (np.diff(pt, axis=1) <= 1e-5 * pt[:, :1]).all()
    assert (constituents[pt == 0] == 0).all() and (pt[:, 0] > 0).all() and (pt[:, -1] == 0).all()


def test_a_top_jet_lies_on_its_top_quark_and_has_about_its_mass(chunks):
    jets = chunks["top"].jets
    _, eta, phi = axis(jets)
    e, px, py, pz = jets.truth.astype(np.float64).T
    distance = np.hypot(np.arcsinh(pz / np.hypot(px, py)) - eta, np.angle(np.exp(1j * (np.arctan2(py, px) - phi))))
    assert (distance < 0.8).all()
    np.testing.assert_allclose(np.sqrt(e**2 - px**2 - py**2 - pz**2), 172, atol=15)  # Pythia's top has a width
    total = jets.constituents.sum(axis=1, dtype=np.float64)
    mass = np.sqrt(total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(axis=1))
    assert 150 < np.median(mass) < 200
    assert not chunks["qcd"].jets.truth.any()


def test_the_recipe_decides_every_bit(chunks):
    again = generate_chunk(SMALL, "qcd", 0)
    assert (again.jets.constituents == chunks["qcd"].jets.constituents).all()
    other = generate_chunk(replace(SMALL, seed=6), "qcd", 0)
    assert other.jets.constituents[0, 0, 0] != again.jets.constituents[0, 0, 0]


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jets")
    split = {"train": 0.5, "val": 0.0, "test": 0.5}
    return [(folder / str(jobs), generate(folder / str(jobs), SMALL, 10, split, jobs)) for jobs in (1, 2)]


def test_files_do_not_depend_on_the_number_of_jobs(generated):
    (one, manifest), (two, other) = generated
    assert manifest == other == json.loads((one / "manifest.json").read_text())
    assert sorted(path.name for path in one.iterdir()) == ["manifest.json", "test.h5", "train.h5"]
    for name, counts in manifest["counts"].items():
        first, second = (dataset.read(folder / f"{name}.h5") for folder in (one, two))
        assert (first.constituents == second.constituents).all()
        assert (int(first.is_top.sum()), len(first)) == (counts["top"], counts["top"] + counts["qcd"])
    assert sum(counts["top"] for counts in manifest["counts"].values()) == 10


def test_a_finished_run_is_not_repeated_and_not_overwritten(generated):
    folder, manifest = generated[0]
    before = (folder / "test.h5").stat().st_mtime_ns
    assert generate(folder, SMALL, 10, {"train": 0.5, "val": 0.0, "test": 0.5}) == manifest
    with pytest.raises(ValueError, match="holds jets of another recipe"):
        generate(folder, SMALL, 11, {"train": 0.5, "val": 0.0, "test": 0.5})
    assert (folder / "test.h5").stat().st_mtime_ns == before


def test_files_of_others_are_not_overwritten(tmp_path):
    (tmp_path / "train.h5").write_text("the public dataset")
    with pytest.raises(ValueError, match=r"holds train\.h5 that were not made here"):
        generate(tmp_path, SMALL, 10, {"train": 1.0})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the public dataset"]


def test_an_interrupted_run_goes_on_with_the_chunks_that_are_there(generated, tmp_path, monkeypatch):
    calls = []

    def interrupted(recipe, process, chunk):
        calls.append((process, chunk))
        if process == "top":
            raise KeyboardInterrupt
        return generate_chunk(recipe, process, chunk)

    split = {"train": 0.5, "val": 0.0, "test": 0.5}
    monkeypatch.setattr(jets, "generate_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, SMALL, 10, split)
    assert [path.name for path in tmp_path.iterdir()] == ["parts"], "something half-written lies about"
    first = [chunk for process, chunk in calls if process == "qcd"]
    calls.clear()
    monkeypatch.setattr(jets, "generate_chunk", lambda *which: calls.append(which[1]) or generate_chunk(*which))
    assert generate(tmp_path, SMALL, 10, split) == generated[0][1]
    assert first and set(calls) == {"top"}


def test_files_in_blocks_hold_the_same_jets(tmp_path, monkeypatch):
    monkeypatch.setattr(jets, "_JETS_PER_BLOCK", 8)
    split = {"train": 0.5, "val": 0.0, "test": 0.5}
    recipe = replace(SMALL, events_per_batch=20)
    in_blocks = generate(tmp_path / "blocks", recipe, 10, split)
    monkeypatch.setattr(jets, "_JETS_PER_BLOCK", 1000)
    at_once = generate(tmp_path / "once", recipe, 10, split)
    assert in_blocks["counts"] == at_once["counts"]
    for name in in_blocks["counts"]:
        one, two = (dataset.read(tmp_path / run / f"{name}.h5").constituents for run in ("blocks", "once"))
        assert (one != two).any(), "there was only one block"
        assert sorted(one[:, 0, 0]) == sorted(two[:, 0, 0])


def test_the_manifest_tells_when_a_file_holds_other_jets(generated, tmp_path):
    folder, manifest = generated[0]
    assert verify(folder) == {name: sum(counts.values()) for name, counts in manifest["counts"].items()}
    shutil.copytree(folder, tmp_path / "copy")
    found = dataset.read(folder / "test.h5")
    found.constituents[0, 0, 1] *= np.float32(1.000001)
    dataset.write(tmp_path / "copy" / "test.h5", found, "test")
    with pytest.raises(ValueError, match=r"test\.h5 does not hold the jets of its manifest"):
        verify(tmp_path / "copy")


def test_the_validation_page_shows_a_folder_of_jets(generated, tmp_path):
    tops, qcd = validate(generated[0][0], tmp_path / "page.png")
    assert tops.startswith("10 top jets: median mass 1") and qcd.startswith("10 QCD jets")
    assert imread(tmp_path / "page.png").std() > 0.05
    with pytest.raises(FileNotFoundError, match=r"no train\.h5, val\.h5 or test\.h5"):
        validate(tmp_path, tmp_path / "none.png")


def test_jets_of_one_event_stay_in_one_split(generated, chunks):
    folder, _ = generated[0]
    leading = {name: dataset.read(folder / f"{name}.h5").constituents[:, 0, 0] for name in ("train", "test")}
    chunk, homes = chunks["qcd"], {}
    for event, energy in zip(chunk.event[:10], chunk.jets.constituents[:10, 0, 0], strict=True):
        homes.setdefault(event, []).append([name for name in leading if energy in leading[name]])
    assert max(map(len, homes.values())) == 2, "the sample holds no event with two jets"
    assert all(len(home) == 1 and home == places[0] for places in homes.values() for home in places)


@pytest.mark.parametrize(
    ("seed", "jets", "split", "complaint"),
    [
        (1, 0, {"test": 1.0}, "at least one jet"),
        (1, 5, {"test": 0.5}, "sum to 1"),
        (1, 5, {"exam": 1.0}, "train, test, val"),
        (0, 5, {"test": 1.0}, "choose 1 to 8000"),
    ],
)
def test_bad_requests_are_named(tmp_path, seed, jets, split, complaint):
    with pytest.raises(ValueError, match=complaint):
        generate(tmp_path, Recipe(seed=seed), jets, split)


def test_an_unfinished_run_of_another_recipe_is_kept(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "recipe.json").write_text("{}")
    with pytest.raises(ValueError, match="another recipe"):
        generate(tmp_path, SMALL, 5, {"test": 1.0})
    assert (parts / "recipe.json").read_text() == "{}"
