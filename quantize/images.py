"""Jet images: from constituents to the uint8 picture that the network sees. NumPy only, so a service can use it.

As in Duarte et al. (arXiv:1904.08986): the constituents' pT is summed on a square grid in (eta, phi) that reaches from
-1.2 to 1.2 around the jet axis, scaled to 0..255 and copied to three channels. The scale is the jet's own: its
brightest pixel becomes 255. That spends all eight bits on every jet; the jet's pT, which the selection holds within
550 to 650 GeV anyway, does not reach the network.
"""

import numpy as np
from numpy.typing import NDArray

HALF_WIDTH = 1.2  # of the window, in eta and in phi (radians)
CHANNELS = 3
_BATCH = 1024  # jets binned at once: bounds the memory at 224 x 224 to some 400 MB


def jet_axis(constituents: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eta and phi, each [n], of the summed four-momentum of constituents [n, m, 4] (E, px, py, pz)."""
    _, px, py, pz = np.moveaxis(constituents.sum(axis=1, dtype=np.float64), -1, 0)
    return np.arcsinh(pz / np.maximum(np.hypot(px, py), 1e-12)), np.arctan2(py, px)


def deposits(constituents: NDArray, size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the pixel of each constituent that is inside its jet's window.

    constituents: [n, m, 4], (E, px, py, pz) in GeV, zero-padded; any m.
    Returns the pixels int64 [k], counted through the grid [n, size, size] (rows are eta, columns are phi), and their pT float64 [k] in
    GeV, jet by jet.
    """
    constituents = _checked(constituents, size)
    _, px, py, pz = np.moveaxis(constituents.astype(np.float64), -1, 0)
    pt = np.hypot(px, py)
    axis_eta, axis_phi = jet_axis(constituents)
    eta = np.arcsinh(pz / np.maximum(pt, 1e-12)) - axis_eta[:, None]
    phi = np.arctan2(py, px) - axis_phi[:, None]
    phi = (phi + np.pi) % (2 * np.pi) - np.pi  # a jet may lie across the seam at phi = pi
    row, column = (np.floor((x + HALF_WIDTH) * (size / (2 * HALF_WIDTH))) for x in (eta, phi))
    inside = (pt > 0) & (row >= 0) & (row < size) & (column >= 0) & (column < size)
    jet = np.broadcast_to(np.arange(len(pt))[:, None], pt.shape)
    return (jet[inside] * size + row[inside].astype(np.int64)) * size + column[inside].astype(np.int64), pt[inside]


def pt_grid(constituents: NDArray, size: int) -> NDArray[np.float64]:
    """Sum transverse momentum on the grid around each jet's axis.

    constituents: [n, m, 4], (E, px, py, pz) in GeV, zero-padded; any m.
    Returns float64 [n, size, size] in GeV: rows are eta, columns are phi. Constituents outside the window are left out.
    """
    pixel, pt = deposits(constituents, size)
    grid = np.bincount(pixel, weights=pt, minlength=len(constituents) * size * size)
    return grid.astype(np.float64).reshape(len(constituents), size, size)


def jet_planes(constituents: NDArray, size: int) -> NDArray[np.uint8]:
    """Return one channel of the images of a batch of jets: uint8 [n, size, size] from constituents [n, m, 4]."""
    constituents = _checked(constituents, size)
    planes = np.zeros((len(constituents), size, size), np.uint8)
    for start in range(0, len(constituents), _BATCH):
        grid = pt_grid(constituents[start : start + _BATCH], size)
        brightest = grid.max(axis=(1, 2), keepdims=True)
        # A jet without any constituent in the window is black.
        planes[start : start + _BATCH] = np.rint(grid * (255.0 / np.where(brightest > 0, brightest, 1.0)))
    return planes


def jet_images(constituents: NDArray, size: int = 224) -> NDArray[np.uint8]:
    """Return the images of a batch of jets: uint8 [n, size, size, 3] from constituents [n, m, 4]."""
    return np.repeat(jet_planes(constituents, size)[..., None], CHANNELS, axis=-1)


def jet_image(constituents: NDArray, size: int = 224) -> NDArray[np.uint8]:
    """Return the image of one jet: uint8 [size, size, 3] from constituents [m, 4] (E, px, py, pz) in GeV."""
    constituents = np.asarray(constituents)
    if constituents.ndim != 2:
        raise ValueError(f"one jet has constituents [m, 4], not {list(constituents.shape)}: use jet_images for a batch")
    return jet_images(constituents[None], size)[0]


def _checked(constituents: NDArray, size: int) -> NDArray:
    constituents = np.asarray(constituents)
    if constituents.ndim != 3 or constituents.shape[-1] != 4:
        raise ValueError(f"constituents must be [jets, m, 4] (E, px, py, pz), not {list(constituents.shape)}")
    if size < 1:
        raise ValueError(f"an image cannot have {size} pixels a side")
    if not np.isfinite(constituents).all():
        raise ValueError("constituents hold a NaN or an infinity: every momentum must be a finite number of GeV")
    return constituents
