"""Pictures."""

import numpy as np
import pytest
from matplotlib.image import imread

from quantize import plots

SEED = 43


def sample(count=7):
    rng = np.random.default_rng(SEED)
    labels = np.arange(count) % 2
    return rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8), labels, rng.random(count)


def test_every_picture_is_a_png_with_something_on_it(tmp_path):
    images, labels, p_top = sample()
    plots.draw_tagged_jets(images, labels, p_top, tmp_path / "jets.png")
    plots.draw_mean_images(images[..., 0], labels, tmp_path / "mean.png")
    plots.draw_roc({"test": (labels, p_top)}, tmp_path / "roc.png")
    for name in ("jets", "mean", "roc"):
        assert imread(tmp_path / f"{name}.png").std() > 0.05


def test_a_wrong_tag_is_red_and_a_right_one_is_not(tmp_path):
    images, labels, _ = sample(1)
    for name, p_top in (("right", 0.1), ("wrong", 0.9)):
        plots.draw_tagged_jets(0 * images, labels, np.array([p_top]), tmp_path / f"{name}.png")

    def reddest(name):
        picture = imread(tmp_path / f"{name}.png")  # the jets are black, so that any colour is the title's
        return (picture[..., 0] - picture[..., 1]).max()

    assert reddest("wrong") > 0.9 and reddest("right") < 0.1


def test_scores_that_do_not_match_the_images_are_refused(tmp_path):
    images, labels, p_top = sample()
    with pytest.raises(ValueError, match="7 images, 7 labels and 6 scores"):
        plots.draw_tagged_jets(images, labels, p_top[:6], tmp_path / "jets.png")
    assert not list(tmp_path.iterdir())


def test_a_mean_of_no_jets_is_refused(tmp_path):
    images, _, _ = sample()
    with pytest.raises(ValueError, match="no QCD jets"):
        plots.draw_mean_images(images[..., 0], np.ones(7), tmp_path / "mean.png")
