"""Observables of a jet's shape, from its constituents: what a physicist looks at first, and what a boosted tree tags with.

N-subjettiness (Thaler and Van Tilburg, JHEP 03 (2011) 015; beta = 1, exclusive kT axes) and kT subjets by FastJet.
"""

import itertools
import warnings

import numpy as np
from numpy.typing import NDArray

from quantize.images import jet_axis

RADIUS = 0.8  # of the jets
TAGGING = ("mass", "multiplicity", "girth", "ptd", "tau21", "tau32", "m12", "m13", "m23")
"""Observables for a tagger. The pT is not one: it is what the jets were selected by, and no image shows it."""
_BATCH = 5_000  # jets clustered at once


def observables(constituents: NDArray) -> dict[str, NDArray[np.float64]]:
    """Return the observables of jets with constituents [n, m, 4] (E, px, py, pz in GeV, zero-padded), each float64 [n].

    mass, pt: GeV. multiplicity: constituents. girth: pT-weighted mean distance from the axis. ptd: root of the summed
    squares of pT over its sum. tau21, tau32: ratios of N-subjettiness, 0 where there are too few constituents.
    m12 >= m13 >= m23: masses of the pairs of three kT subjets, GeV.
    """
    parts = [_observables(constituents[i : i + _BATCH]) for i in range(0, len(constituents), _BATCH)]
    if not parts:
        raise ValueError("no jets: there is nothing to compute observables of")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def table(constituents: NDArray) -> NDArray[np.float64]:
    """Return the tagging observables as the columns of one array, [n, len(TAGGING)]."""
    found = observables(constituents)
    return np.stack([found[name] for name in TAGGING], axis=1)


def _observables(constituents: NDArray) -> dict[str, NDArray[np.float64]]:
    constituents = np.asarray(constituents, np.float64)
    total = constituents.sum(axis=1)
    _, px, py, pz = np.moveaxis(constituents, -1, 0)
    pt = np.hypot(px, py)
    present = pt > 0
    if not present.any(axis=1).all():
        raise ValueError(f"jet {int(np.argmin(present.any(axis=1)))} has no constituent: remove it")
    axis_eta, axis_phi = jet_axis(constituents)
    eta = np.arcsinh(pz / np.maximum(pt, 1e-12)) - axis_eta[:, None]
    phi = (np.arctan2(py, px) - axis_phi[:, None] + np.pi) % (2 * np.pi) - np.pi
    summed = pt.sum(axis=1)
    tau, pair_masses = _cluster(constituents, present)
    return {
        "mass": _mass(total),
        "pt": np.hypot(total[:, 1], total[:, 2]),
        "multiplicity": present.sum(axis=1).astype(np.float64),
        "girth": (pt * np.hypot(eta, phi)).sum(axis=1) / summed,
        "ptd": np.sqrt((pt**2).sum(axis=1)) / summed,
        "tau21": _ratio(tau[:, 1], tau[:, 0]),
        "tau32": _ratio(tau[:, 2], tau[:, 1]),
        **{name: pair_masses[:, i] for i, name in enumerate(("m12", "m13", "m23"))},
    }


def _cluster(
    constituents: NDArray[np.float64], present: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return tau_1 to tau_3 and the falling masses of the pairs of three kT subjets, both [n, 3]."""
    import awkward as ak
    import fastjet

    counts = present.sum(axis=1)
    flat = constituents[present]
    fields = {name: ak.unflatten(flat[:, i], counts) for i, name in enumerate(("E", "px", "py", "pz"))}
    clusters = fastjet.ClusterSequence(ak.zip(fields), fastjet.JetDefinition(fastjet.kt_algorithm, 1.0))
    tau = ak.to_numpy(clusters.njettiness(axes_definition="KT_Axes", njets=[1, 2, 3], beta=1.0, R0=RADIUS))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "dcut and exclusive jets")  # meant for algorithms other than kT
        three = clusters.exclusive_jets_up_to(n_jets=3)
    found = ak.fill_none(ak.pad_none(three, 3), dict.fromkeys(fields, 0.0))
    subjets = np.stack([ak.to_numpy(found[name]) for name in fields], axis=-1)
    masses = [_mass(subjets[:, i] + subjets[:, j]) for i, j in itertools.combinations(range(3), 2)]
    return tau, np.sort(np.stack(masses, axis=1), axis=1)[:, ::-1]


def _mass(momentum: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mass of (E, px, py, pz) [n, 4]; 0 where rounding makes its square negative."""
    return np.sqrt(np.maximum(momentum[:, 0] ** 2 - (momentum[:, 1:] ** 2).sum(axis=1), 0))


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 1e-9)
