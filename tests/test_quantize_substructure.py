"""Jet observables, against cases worked out by hand."""

import numpy as np
import pytest

from quantize.substructure import TAGGING, observables, table

SEED = 61


def jet(*prongs):
    """Massless constituents (pT, eta, phi) as [1, 200, 4]."""
    pt, eta, phi = np.array(prongs, float).T
    momenta = np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=1)
    return np.pad(momenta, ((0, 200 - len(pt)), (0, 0)))[None]


def pair_mass(pt1, pt2, eta, phi):
    """Of two massless particles that are eta and phi apart."""
    return np.sqrt(2 * pt1 * pt2 * (np.cosh(eta) - np.cos(phi)))


def test_two_prongs_have_their_pair_mass_and_no_tau2():
    found = observables(jet((300, 0.2, 0), (300, -0.2, 0)))
    assert found["mass"][0] == pytest.approx(pair_mass(300, 300, 0.4, 0))
    assert found["m12"][0] == pytest.approx(found["mass"][0]) and found["m23"][0] == pytest.approx(0, abs=1e-5)
    assert (found["multiplicity"][0], found["pt"][0]) == (2, pytest.approx(600))
    assert found["girth"][0] == pytest.approx(0.2)
    assert found["ptd"][0] == pytest.approx(np.sqrt(0.5))
    assert found["tau21"][0] == pytest.approx(0, abs=1e-6)


def test_three_prongs_have_three_pair_masses_and_no_tau3():
    prongs = (250, 0.0, 0.3), (200, 0.3, -0.2), (150, -0.3, -0.2)
    found = observables(jet(*prongs))
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = [
        pair_mass(prongs[i][0], prongs[j][0], prongs[i][1] - prongs[j][1], prongs[i][2] - prongs[j][2])
        for i, j in pairs
    ]
    assert [found[name][0] for name in ("m12", "m13", "m23")] == pytest.approx(sorted(expected, reverse=True))
    assert found["tau32"][0] == pytest.approx(0, abs=1e-6) and found["tau21"][0] > 0.3


def test_a_jet_of_one_constituent_has_no_substructure_and_no_nan():
    found = table(
        np.concatenate([jet((600, 0.1, 3.1)), jet((300, 0.2, 0), (300, -0.2, 0), (9, 0, 0.5), (8, 0.3, 0.3))])
    )
    assert found.shape == (2, len(TAGGING)) and np.isfinite(found).all()
    assert found[0, TAGGING.index("tau21")] == 0 and found[0, TAGGING.index("mass")] < 1e-3


def test_neither_rotation_around_the_beam_nor_the_seam_at_pi_matters():
    rng = np.random.default_rng(SEED)
    prongs = np.stack([rng.exponential(20, 30), rng.normal(0, 0.3, 30), rng.normal(0, 0.3, 30)], axis=1)
    turned = np.add(prongs, (0, 0, np.pi))
    one, two = table(jet(*prongs)), table(jet(*turned))
    np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-6, err_msg=f"seed {SEED}")


def test_an_empty_jet_is_named():
    with pytest.raises(ValueError, match="jet 1 has no constituent"):
        observables(np.concatenate([jet((600, 0, 0)), np.zeros((1, 200, 4))]))
