"""ATLAS-like detector response: from stable particles to energy-flow objects.

A vectorised NumPy account of what the fast simulation Delphes (de Favereau et al., JHEP 02 (2014) 057) does with its
ATLAS card: charged particles bend in the solenoid, tracks are lost and smeared, calorimeter towers add up and smear
energies, and energy flow keeps each track plus whatever a tower holds in significant excess of its tracks.

What it leaves out: longitudinal shower shape, photon conversions, and the rescaling of tracks by a tower that measures
them better (rare in a jet).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SOLENOID_TESLA = 2.0
TRACKER_RADIUS_M = 1.15
TRACKER_HALF_LENGTH_M = 3.51
TRACKER_ETA = 2.5
ACCEPTANCE_ETA = 3.0  # jets reach |eta| < 2 + 0.8, so the forward calorimeters are never needed

NEUTRINOS = (12, 14, 16)
ELECTRON, MUON, PHOTON = 11, 13, 22
LONG_LIVED = (310, 3122)  # K0S and Lambda: they shower in both calorimeters


@dataclass(frozen=True)
class Particles:
    """Particles of many events, flat. Every field has shape [n]; energies and momenta in GeV."""

    event: Ints
    pdg: Ints
    charge: Floats
    px: Floats
    py: Floats
    pz: Floats
    energy: Floats

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Particles":
        return Particles(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    @property
    def pt(self) -> Floats:
        """Transverse momentum in GeV."""
        return np.hypot(self.px, self.py)

    @property
    def eta(self) -> Floats:
        """Pseudorapidity."""
        return np.arcsinh(self.pz / np.maximum(self.pt, 1e-12))

    @property
    def phi(self) -> Floats:
        """Azimuth in (-pi, pi]."""
        return np.arctan2(self.py, self.px)


@dataclass(frozen=True)
class FlowObjects:
    """Energy-flow objects (tracks, photons, neutral hadrons) of many events, flat, in GeV."""

    event: Ints
    px: Floats
    py: Floats
    pz: Floats
    energy: Floats


@dataclass(frozen=True)
class Calorimeter:
    """One calorimeter: its tower edges, its noise floor and its energy resolution."""

    eta_edges: Floats
    phi_towers: int
    minimum_energy: float  # GeV
    electromagnetic: bool

    def fraction(self, pdg: Ints) -> Floats:
        """Share of a particle's energy that it leaves here."""
        kind = np.abs(pdg)
        light = np.isin(kind, (ELECTRON, PHOTON))
        ecal = np.where(light, 1.0, np.where(np.isin(kind, LONG_LIVED), 0.3, 0.0))
        share = ecal if self.electromagnetic else 1.0 - ecal
        return np.where(np.isin(kind, (*NEUTRINOS, MUON)), 0.0, share)

    def resolution(self, eta: Floats, energy: Floats) -> Floats:
        """Standard deviation of a measured energy, GeV."""
        if self.electromagnetic:
            return np.sqrt((0.0017 * energy) ** 2 + 0.101**2 * energy)
        barrel = np.sqrt((0.0302 * energy) ** 2 + 0.5205**2 * energy + 1.59**2)
        endcap = np.sqrt((0.0500 * energy) ** 2 + 0.706**2 * energy)
        return np.where(np.abs(eta) <= 1.7, barrel, endcap)


ECAL = Calorimeter(np.arange(-173, 174) * 0.0174, 360, minimum_energy=0.5, electromagnetic=True)
HCAL = Calorimeter(
    np.concatenate([[-3.2], np.arange(-25, 27) / 10.0, [3.3]]), 36, minimum_energy=1.0, electromagnetic=False
)
SIGNIFICANCE = 2.0  # a tower, or its excess over its tracks, counts from this many standard deviations


def respond(particles: Particles, rng: np.random.Generator) -> FlowObjects:
    """Return what the detector sees of stable `particles`, as energy-flow objects."""
    visible = ~np.isin(np.abs(particles.pdg), NEUTRINOS) & (np.abs(particles.eta) < ACCEPTANCE_ETA)
    particles = particles[visible & (particles.pt > 0)]
    impact_phi, reaches = _bend(particles)
    tracked = _tracked(particles, rng)
    tracks = _smear_tracks(particles[tracked], rng)

    parts = [FlowObjects(tracks.event, tracks.px, tracks.py, tracks.pz, tracks.energy)]
    for calorimeter in (ECAL, HCAL):
        share = calorimeter.fraction(particles.pdg) * reaches
        # A track's energy is expected in the tower that its particle hit.
        track_energy = np.zeros(len(particles.pdg))
        track_energy[tracked] = tracks.energy * share[tracked]
        parts.append(_excess(calorimeter, particles, impact_phi, share, track_energy, rng))
    return FlowObjects(*(np.concatenate([getattr(p, f) for p in parts]) for f in FlowObjects.__dataclass_fields__))


def _bend(particles: Particles) -> tuple[Floats, Floats]:
    """Azimuth at the calorimeter face, and 1.0 where the particle gets there (0.0 for low-pT loopers)."""
    pt = particles.pt
    depth = np.minimum(TRACKER_RADIUS_M, TRACKER_HALF_LENGTH_M * pt / np.maximum(np.abs(particles.pz), 1e-12))
    # Half the chord over the radius of curvature: pT [GeV] = 0.3 B [T] R [m].
    sine = 0.3 * SOLENOID_TESLA * depth * particles.charge / (2 * pt)
    turn = np.arcsin(np.clip(sine, -1, 1))
    return particles.phi - turn, (np.abs(sine) < 1).astype(np.float64)


def _tracked(particles: Particles, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw which particles leave a track."""
    pt, central, kind = particles.pt, np.abs(particles.eta) <= 1.5, np.abs(particles.pdg)

    def by_region(barrel: float, endcap: float) -> Floats:
        return np.where(central, barrel, endcap)

    hadron = np.where(pt <= 1, by_region(0.70, 0.60), by_region(0.95, 0.85))
    muon = np.where(pt <= 1, by_region(0.75, 0.70), by_region(0.99, 0.98))
    electron = np.where(
        pt <= 1, by_region(0.73, 0.50), np.where(pt <= 100, by_region(0.95, 0.83), by_region(0.99, 0.90))
    )
    efficiency = np.where(kind == MUON, muon, np.where(kind == ELECTRON, electron, hadron))
    seen = (particles.charge != 0) & (pt > 0.1) & (np.abs(particles.eta) <= TRACKER_ETA)
    return seen & (rng.random(len(pt)) < efficiency)


def _smear_tracks(tracks: Particles, rng: np.random.Generator) -> Particles:
    """Scale each track's momentum by a log-normal factor of the tracker's relative resolution."""
    region = np.digitize(np.abs(tracks.eta), (0.5, 1.5))
    kind = np.abs(tracks.pdg)
    hadron = np.array([[0.06, 1.3e-3], [0.10, 1.7e-3], [0.25, 3.1e-3]])
    electron = np.array([[0.03, 1.3e-3], [0.05, 1.7e-3], [0.15, 3.1e-3]])
    muon = np.array([[0.01, 1.0e-4], [0.015, 1.5e-4], [0.025, 3.5e-4]])
    constant, slope = np.where(
        (kind == MUON)[:, None],
        muon[region],
        np.where((kind == ELECTRON)[:, None], electron[region], hadron[region]),
    ).T
    factor = _log_normal(np.ones(len(kind)), np.hypot(constant, slope * tracks.pt), rng)
    px, py, pz = tracks.px * factor, tracks.py * factor, tracks.pz * factor
    mass2 = np.maximum(tracks.energy**2 - tracks.px**2 - tracks.py**2 - tracks.pz**2, 0)
    energy = np.sqrt(px**2 + py**2 + pz**2 + mass2)
    return Particles(tracks.event, tracks.pdg, tracks.charge, px, py, pz, energy)


def _excess(
    calorimeter: Calorimeter,
    particles: Particles,
    impact_phi: Floats,
    share: Floats,
    track_energy: Floats,
    rng: np.random.Generator,
) -> FlowObjects:
    """Return one massless object per tower whose energy significantly exceeds that of its tracks."""
    eta_row = np.digitize(particles.eta, calorimeter.eta_edges) - 1
    hit = (share > 0) & (eta_row >= 0) & (eta_row < len(calorimeter.eta_edges) - 1)
    phi_width = 2 * np.pi / calorimeter.phi_towers
    phi_column = np.floor(impact_phi / phi_width).astype(np.int64) % calorimeter.phi_towers
    rows = len(calorimeter.eta_edges) - 1
    address = (particles.event * rows + eta_row) * calorimeter.phi_towers + phi_column
    towers, member = np.unique(address[hit], return_inverse=True)
    deposited = np.bincount(member, (particles.energy * share)[hit], len(towers)).astype(np.float64)
    expected = np.bincount(member, track_energy[hit], len(towers)).astype(np.float64)

    row = towers // calorimeter.phi_towers % rows
    column = towers % calorimeter.phi_towers
    low, high = calorimeter.eta_edges[row], calorimeter.eta_edges[row + 1]
    centre = (low + high) / 2
    sigma = calorimeter.resolution(centre, deposited)
    measured = _log_normal(deposited, sigma / np.maximum(deposited, 1e-12), rng)
    sigma = calorimeter.resolution(centre, measured)
    measured[(measured < calorimeter.minimum_energy) | (measured < SIGNIFICANCE * sigma)] = 0.0

    excess = measured - expected
    noise = np.hypot(sigma, calorimeter.resolution(centre, expected) * (expected > 0))
    # Positions inside a tower are unknown: spread them so that no grid shows in the images.
    eta = low + (high - low) * rng.random(len(towers))
    phi = (column + rng.random(len(towers))) * phi_width
    kept = (excess > calorimeter.minimum_energy) & (excess > SIGNIFICANCE * noise)
    energy, eta, phi = excess[kept], eta[kept], phi[kept]
    pt = energy / np.cosh(eta)
    event = towers[kept] // (rows * calorimeter.phi_towers)
    return FlowObjects(event, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), energy)


def _log_normal(mean: Floats, relative_sigma: Floats, rng: np.random.Generator) -> Floats:
    """Draw positive numbers of the given mean and relative standard deviation."""
    variance = np.log1p(relative_sigma**2)
    return mean * np.exp(np.sqrt(variance) * rng.standard_normal(len(mean)) - variance / 2)
