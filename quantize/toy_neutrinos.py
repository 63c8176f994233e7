"""A toy, not a simulation: pictures that look a little like neutrino interactions in a fine-grained scintillator detector.

They are drawn from tracks, showers and stubs with noise, without any neutrino physics behind them, and say nothing about what an
experiment would reach. They are here to show the transfer learning of Duarte et al. (arXiv:1904.08986, section 3.3): a
featurizer that was trained on something else, and a new classifier of five classes on its features.

As in the experiment of the paper there are two views of each event: cells against planes, of the two coordinates across the beam.
The beam comes along the planes. Lengths are in cells, energies in the energy that a track leaves in one cell. NumPy only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELLS, PLANES, VIEWS = 80, 100, 2
CLASSES = ("toy nu_mu CC", "toy nu_e CC", "toy nu_tau CC", "toy NC", "toy cosmic")
_FULL_SCALE = 6.0  # energy in a cell that is drawn as 255
_STEP = 0.5  # between the deposits of a track
_UP = np.array([0.0, 1.0, 0.0])
_BEAM = np.array([0.0, 0.0, 1.0])

Points = NDArray[np.float64]
"""Deposits of energy, [n, 4]: x, y, z and energy."""


@dataclass(frozen=True)
class ToyEvents:
    """views: uint8 [n, 2, cells, planes], the x and the y view. labels: int64 [n], places in CLASSES."""

    views: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def generate(count: int, seed: int) -> ToyEvents:
    """Return `count` toy events, the classes in turns; the same ones for the same seed."""
    if count < len(CLASSES):
        raise ValueError(f"{count} toy events: ask for at least one of each of the {len(CLASSES)} classes")
    labels = np.arange(count) % len(CLASSES)
    # An event depends on the seed and on its number alone.
    events = [_draw(_event(int(label), np.random.default_rng((seed, i))), seed, i) for i, label in enumerate(labels)]
    return ToyEvents(np.stack(events), labels)


def network_images(views: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return what a featurizer of jets takes: uint8 [n, size, size, 3] of views [n, 2, cells, planes].

    The channels are the x view, the y view and the brighter of both, each averaged over the area of its pixels; as in jet images, the
    brightest pixel of an event becomes 255.
    """
    rows, columns = _area_weights(views.shape[2], size), _area_weights(views.shape[3], size)
    small = np.einsum("rc,nvcp,sp->nrsv", rows, views.astype(np.float64), columns, optimize=True)
    channels = np.concatenate([small, small.max(axis=-1, keepdims=True)], axis=-1)
    brightest = channels.max(axis=(1, 2, 3), keepdims=True)
    return np.rint(channels * (255 / np.where(brightest > 0, brightest, 1))).astype(np.uint8)


def _area_weights(cells: int, pixels: int) -> NDArray[np.float64]:
    """The share of each pixel that each cell covers, [pixels, cells]: rows sum to 1."""
    edges = np.arange(pixels + 1) * (cells / pixels)
    low, high = np.maximum.outer(edges[:-1], np.arange(cells)), np.minimum.outer(edges[1:], np.arange(1, cells + 1))
    return np.maximum(high - low, 0) * (pixels / cells)


def _event(label: int, rng: np.random.Generator) -> Points:
    """The deposits of one event."""
    if CLASSES[label] == "toy cosmic":
        return _cosmic(rng)
    vertex = np.array([rng.uniform(20, 60), rng.uniform(20, 60), rng.uniform(5, 35)])
    parts = [_stub(vertex, rng) for _ in range(rng.integers(1, 4))]
    if CLASSES[label] == "toy nu_mu CC":
        parts.append(_track(vertex, _around(_BEAM, 0.35, rng), rng.uniform(35, 90), rng))
    elif CLASSES[label] == "toy nu_e CC":
        parts.append(_shower(vertex, _around(_BEAM, 0.35, rng), rng.uniform(60, 200), rng))
    elif CLASSES[label] == "toy nu_tau CC":
        parts += [_track(vertex, _around(_BEAM, 0.6, rng), rng.uniform(8, 22), rng) for _ in range(rng.integers(2, 5))]
    else:  # neutral current: photons of a pi0 that shower after a gap
        for _ in range(2):
            direction = _around(_BEAM, 0.5, rng)
            parts.append(_shower(vertex + direction * (4 + rng.exponential(6)), direction, rng.uniform(20, 90), rng))
    return np.concatenate(parts)


def _cosmic(rng: np.random.Generator) -> Points:
    """A steep track from above that goes through."""
    direction = _around(-_UP, 0.5, rng)
    start = np.array([rng.uniform(0, CELLS), CELLS - 0.01, rng.uniform(0, PLANES)])
    return _track(start, direction, 2.0 * CELLS, rng, stops=False)


def _track(
    start: NDArray[np.float64],
    direction: NDArray[np.float64],
    length: float,
    rng: np.random.Generator,
    stops: bool = True,
) -> Points:
    """A particle that loses energy evenly and scatters a little; more where it stops."""
    steps = max(2, int(length / _STEP))
    wobble = np.cumsum(rng.normal(0, 0.004, (steps, 3)), axis=0)
    path = start + np.cumsum((direction + wobble) * _STEP, axis=0)
    energy = _STEP * rng.gamma(6, 1 / 6, steps)
    if stops:
        left = _STEP * np.arange(steps, 0, -1)
        energy *= 1 + 2 * np.exp(-left / 2)
    return np.column_stack([path, energy])


def _stub(vertex: NDArray[np.float64], rng: np.random.Generator) -> Points:
    """A short, heavily ionising hadron in any forward direction."""
    points = _track(vertex, _around(_BEAM, 0.9, rng), rng.uniform(2, 8), rng)
    points[:, 3] *= rng.uniform(1.5, 3)
    return points


def _shower(
    start: NDArray[np.float64], direction: NDArray[np.float64], energy: float, rng: np.random.Generator
) -> Points:
    """An electromagnetic shower: a gamma profile along its axis, widening across."""
    deposits = rng.poisson(2 * energy) + 1
    depth = rng.gamma(2.5, 5.0, deposits)
    spread = rng.standard_normal((deposits, 3)) * (0.3 + 0.06 * depth)[:, None]
    spread -= np.outer(spread @ direction, direction)
    return np.column_stack([start + depth[:, None] * direction + spread, np.full(deposits, 0.5)])


def _around(axis: NDArray[np.float64], spread: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A unit vector near `axis`; `spread`: of the tangent of the angle in each coordinate."""
    vector = axis + spread * rng.standard_normal(3) * (axis == 0)
    return vector / np.linalg.norm(vector)


def _draw(points: Points, seed: int, number: int) -> NDArray[np.uint8]:
    """The two views of an event with noise, uint8 [2, cells, planes]."""
    rng = np.random.default_rng((seed, number, 1))
    x, y, z = np.floor(points[:, :3]).astype(np.int64).T
    views = np.zeros((VIEWS, CELLS, PLANES))
    for view, across in zip(views, (x, y), strict=True):
        inside = (across >= 0) & (across < CELLS) & (z >= 0) & (z < PLANES)
        np.add.at(view, (across[inside], z[inside]), points[inside, 3])
        noisy = rng.poisson(8)
        np.add.at(view, (rng.integers(0, CELLS, noisy), rng.integers(0, PLANES, noisy)), rng.exponential(0.5, noisy))
    return np.rint(np.clip(views / _FULL_SCALE, 0, 1) * 255).astype(np.uint8)
