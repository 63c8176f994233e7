"""Jet images."""

import sys

import numpy as np
import pytest

from quantize.images import HALF_WIDTH, jet_axis, jet_image, jet_images, pt_grid

SEED = 20190418


def momenta(pt, eta, phi):
    """Massless (E, px, py, pz)."""
    return np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=-1)


def jets(count, phi=0.3, eta=0.5, spread=0.25, seed=SEED):
    rng = np.random.default_rng(seed)
    shape = (count, 60)
    constituents = momenta(
        rng.exponential(10, shape), eta + spread * rng.standard_normal(shape), phi + spread * rng.standard_normal(shape)
    )
    return np.pad(constituents, ((0, 0), (0, 140), (0, 0)))


@pytest.mark.parametrize("size", [1, 17, 64, 224])
def test_pt_inside_the_window_is_conserved_at_any_size(size):
    constituents = jets(5, spread=0.6)
    _, px, py, pz = np.moveaxis(constituents, -1, 0)
    axis_eta, axis_phi = (axis[:, None] for axis in jet_axis(constituents))
    pt = np.hypot(px, py)
    eta = np.arcsinh(pz / np.where(pt > 0, pt, 1)) - axis_eta
    phi = np.angle(np.exp(1j * (np.arctan2(py, px) - axis_phi)))
    inside = (pt > 0) & (np.abs(eta) < HALF_WIDTH) & (np.abs(phi) < HALF_WIDTH)
    assert 0 < inside.sum() < (pt > 0).sum()
    np.testing.assert_allclose(pt_grid(constituents, size).sum(axis=(1, 2)), (pt * inside).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("phi", [3.1, np.pi, -3.1, 1.5])
def test_a_jet_looks_the_same_wherever_it_points_in_phi(phi):
    # The constituents are held away from pixel borders, where rounding errors of the rotation would decide.
    centre = (np.arange(64) + 0.5) * (2 * HALF_WIDTH / 64) - HALF_WIDTH
    rng = np.random.default_rng(SEED)
    index = rng.integers(20, 44, (2, 30))
    pt = rng.exponential(10, 30)
    # Two mirror images of every constituent put the axis on the middle of the window exactly.
    eta = np.concatenate([centre[index[0]], -centre[index[0]]])
    dphi = np.concatenate([centre[index[1]], -centre[index[1]]])
    pt = np.concatenate([pt, pt])
    here, there = (jet_image(momenta(pt, eta, dphi + turn), 64) for turn in (0.0, phi))
    assert (here == there).all()
    assert (here > 0).sum() > 3 * 30


def test_a_coarse_image_is_the_sum_of_a_fine_one():
    constituents = jets(3)
    fine, coarse = pt_grid(constituents, 224), pt_grid(constituents, 56)
    np.testing.assert_allclose(fine.reshape(3, 56, 4, 56, 4).sum(axis=(2, 4)), coarse, rtol=1e-12, atol=1e-12)


def test_images_are_uint8_with_the_brightest_pixel_at_255_and_three_equal_channels():
    images = jet_images(jets(4), 64)
    assert images.dtype == np.uint8 and images.shape == (4, 64, 64, 3)
    assert (images.max(axis=(1, 2, 3)) == 255).all()
    assert (images[..., 0] == images[..., 1]).all() and (images[..., 0] == images[..., 2]).all()


def test_rows_are_eta_and_columns_are_phi():
    heavy, light = momenta(np.array([100.0, 1.0]), np.array([0.0, 0.6]), np.array([0.0, -0.9]))
    image = jet_image(np.stack([heavy, light]), 8)[..., 0]
    rows, columns = np.nonzero(image)
    assert (rows.max(), columns.min()) == (5, 1)  # eta + 0.6 is two pixels up, phi - 0.9 three to the left


def test_batch_and_single_images_agree_and_padding_changes_nothing():
    constituents = jets(3)
    batch = jet_images(constituents, 32)
    for index in range(3):
        assert (jet_image(constituents[index, :60], 32) == batch[index]).all()


def test_an_empty_jet_is_black():
    assert not jet_image(np.zeros((200, 4)), 16).any()


@pytest.mark.parametrize(
    ("constituents", "size", "complaint"),
    [
        (np.zeros((2, 3)), 64, "E, px, py, pz"),
        (np.zeros((3, 4, 4)), 64, "jet_images"),
        (np.full((2, 4), np.nan), 64, "finite"),
        (np.zeros((2, 4)), 0, "0 pixels"),
    ],
)
def test_bad_input_is_named(constituents, size, complaint):
    with pytest.raises(ValueError, match=complaint):
        jet_image(constituents, size)


def test_needs_numpy_alone():
    import subprocess

    check = (
        "import sys, quantize.images, quantize.classifier; print(sorted({'tensorflow', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "[]"
