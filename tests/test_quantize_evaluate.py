"""Metrics, against cases worked out by hand."""

import numpy as np
import pytest

from quantize.evaluate import Measured, auc, evaluate, rejection

TOPS = np.array([0.9, 0.8, 0.7, 0.2])
QCD = np.array([0.85, 0.6, 0.3, 0.1, 0.05])
LABELS = np.array([1] * 4 + [0] * 5)
SCORES = np.concatenate([TOPS, QCD])


def test_auc_is_the_share_of_pairs_in_the_right_order():
    # 0.9 beats all five, 0.8 and 0.7 beat four, 0.2 beats two.
    assert auc(LABELS, SCORES) == pytest.approx((5 + 4 + 4 + 2) / 20)


def test_accuracy_counts_at_one_half_with_a_binomial_error():
    accuracy = evaluate(LABELS, SCORES).accuracy  # wrong: top 0.2, QCD 0.85 and 0.6
    assert accuracy.value == pytest.approx(6 / 9)
    assert accuracy.error == pytest.approx(np.sqrt(6 / 9 * 3 / 9 / 9))


def test_rejection_counts_the_qcd_jets_above_the_cut():
    # 30 % of four tops is reached with two: the cut is 0.8, and one of five QCD jets passes.
    measured = rejection(LABELS, SCORES)
    assert measured is not None and measured.value == 5 and measured.error == 5


def test_rejection_without_survivors_is_not_made_up():
    assert rejection(np.array([1, 1, 0]), np.array([0.9, 0.8, 0.1])) is None


def test_the_error_of_the_auc_matches_its_spread_over_repeated_samples():
    rng = np.random.default_rng(37)
    labels = np.repeat([0, 1], 200)
    runs = [evaluate(labels, rng.normal(1.5 * labels)).auc for _ in range(300)]
    assert np.mean([run.error for run in runs]) == pytest.approx(np.std([run.value for run in runs]), rel=0.15)


def test_a_sample_of_one_class_is_refused():
    with pytest.raises(ValueError, match="some of both"):
        evaluate(np.ones(3, int), np.ones(3))


def test_a_number_is_printed_to_two_digits_of_its_error():
    assert str(Measured(0.96772, 0.00291)) == "0.9677 +- 0.0029"
    assert str(Measured(232.3, 77.4)) == "232 +- 77"
