"""The detector response."""

import numpy as np
import pytest

from quantize.detector import Particles, respond

PION, PHOTON, MUON, NEUTRINO, NEUTRON = 211, 22, 13, 12, 2112


def gun(pdg, charge, energy, count=4000, eta=0.4):
    """Identical massless particles, each in an event of its own."""
    pt = np.full(count, energy / np.cosh(eta))
    phi = np.linspace(-3, 3, count)
    return Particles(
        np.arange(count),
        np.full(count, pdg),
        np.full(count, float(charge)),
        pt * np.cos(phi),
        pt * np.sin(phi),
        pt * np.sinh(eta),
        np.full(count, energy),
    )


def energy_by_event(particles, seed=11):
    seen = respond(particles, np.random.default_rng(seed))
    return np.bincount(seen.event, seen.energy, minlength=len(particles.event))


@pytest.mark.parametrize(
    ("pdg", "energy", "resolution"),
    [
        (PHOTON, 50.0, np.hypot(0.0017, 0.101 / np.sqrt(50))),
        (NEUTRON, 100.0, np.sqrt(0.0302**2 + 0.5205**2 / 100 + (1.59 / 100) ** 2)),
    ],
)
def test_calorimeters_measure_neutral_energy_with_their_resolution(pdg, energy, resolution):
    seen = energy_by_event(gun(pdg, 0, energy)) / energy
    assert abs(seen.mean() - 1) < 4 * resolution / np.sqrt(len(seen))
    assert abs(seen.std() / resolution - 1) < 0.1


def test_a_charged_hadron_is_counted_once_not_in_tracker_and_calorimeter():
    seen = energy_by_event(gun(PION, 1, 30.0)) / 30
    assert abs(seen.mean() - 1) < 0.03


def test_muons_leave_a_track_or_nothing():
    seen = energy_by_event(gun(MUON, -1, 40.0))
    assert abs((seen == 0).mean() - 0.01) < 0.01
    assert abs(np.median(seen) / 40 - 1) < 0.01


def test_neutrinos_are_not_seen():
    assert not energy_by_event(gun(NEUTRINO, 0, 100.0)).any()


def test_slow_charged_particles_never_reach_the_calorimeter():
    seen = respond(gun(PION, 1, 0.09, eta=0.0), np.random.default_rng(2))
    assert len(seen.energy) == 0  # no track below 0.1 GeV, and the solenoid curls it up


def test_directions_are_kept():
    particles = gun(PHOTON, 0, 200.0)
    seen = respond(particles, np.random.default_rng(3))
    phi = np.arctan2(particles.py, particles.px)[seen.event]
    off = np.angle(np.exp(1j * (np.arctan2(seen.py, seen.px) - phi)))
    assert np.abs(off).max() < np.pi / 180  # one tower
