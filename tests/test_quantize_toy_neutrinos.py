"""Toy neutrino events, and the transfer-learning example on them."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from quantize import checkpoint, resnet, toy_neutrinos
from quantize.classifier import load_classifier
from quantize.toy_neutrinos import CLASSES, generate, network_images

EXAMPLE = Path(__file__).parents[1] / "examples" / "neutrinos.py"
SEED = 83


def test_an_event_depends_on_the_seed_and_on_its_number_alone():
    few, many, other = generate(10, SEED), generate(20, SEED), generate(10, SEED + 1)
    assert (few.views == many.views[:10]).all() and (few.labels == np.arange(10) % len(CLASSES)).all()
    assert (few.views != other.views).any(axis=(1, 2, 3)).all()


def test_each_class_looks_like_what_its_name_says():
    events = generate(200, SEED)
    lit = events.views > 10  # [event, view, cell, plane]
    planes = lit.any(axis=2).sum(axis=2).max(axis=1)
    cells = lit[:, 1].any(axis=2).sum(axis=1)

    def typical(values, name):
        return np.median(values[events.labels == CLASSES.index(name)])

    assert typical(planes, "toy nu_mu CC") > 2 * typical(planes, "toy nu_tau CC")  # a long track, short prongs
    assert typical(cells, "toy cosmic") > 70  # from the top to the bottom
    width = lit.sum(axis=(1, 2, 3)) / np.maximum(planes, 1)
    assert typical(width, "toy nu_e CC") > typical(width, "toy nu_mu CC")  # a shower is wide, a track thin


def test_images_keep_what_lies_on_their_area():
    views = np.zeros((1, 2, 80, 100), np.uint8)
    views[0, 0, :40] = 200  # the lower half of the x view
    views[0, 1, :, 75:] = 200  # the last quarter of the y view
    image = network_images(views, 64)[0]
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    assert (image[:32, :, 0] == 255).all() and (image[32:, :, 0] == 0).all()
    assert (image[:, 48:, 1] == 255).all() and (image[:, :48, 1] == 0).all()
    assert (image[..., 2] == image[..., :2].max(axis=-1)).all()
    assert (network_images(np.zeros_like(views), 64) == 0).all()


def test_too_few_events_are_refused():
    with pytest.raises(ValueError, match="at least one of each of the 5 classes"):
        generate(4, SEED)


def test_the_example_fits_five_classes_to_the_features_of_a_device(tmp_path, capfd):
    network = checkpoint.random_quantised(resnet.ResNetConfig(stages=(1, 1), width=8, size=32), SEED)
    checkpoint.save(tmp_path / "net.npz", checkpoint.Checkpoint(network, None))
    spec = importlib.util.spec_from_file_location("neutrinos", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    sys.modules["neutrinos"] = example
    spec.loader.exec_module(example)
    command = ["--network", f"{tmp_path}/net.npz", "--events", "300", "--out", f"{tmp_path}/out", "--seed", str(SEED)]
    assert example.main(command) == 0, capfd.readouterr().err
    printed = capfd.readouterr().out
    reached = float(printed.split("toy events: accuracy ")[1].split()[0])
    assert reached > 0.35, printed  # a random featurizer, far above chance
    made = load_classifier(tmp_path / "out" / "toy-classifier.npz")
    assert made.classes == CLASSES and made.w2.shape[1] == len(CLASSES)
    assert {"toy-events.png", "toy-confusion.png"} <= {path.name for path in (tmp_path / "out").iterdir()}

    assert example.main([*command, "--device", "nothing"]) == 1
    assert "no device named 'nothing'" in capfd.readouterr().err


def test_everything_that_is_drawn_by_hand_is_called_a_toy():
    assert all(name.startswith("toy ") for name in CLASSES)
    assert toy_neutrinos.__doc__.startswith("A toy, not a simulation")
