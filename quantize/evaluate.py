"""How good a tagger is: accuracy, AUC and background rejection, each with its statistical error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve


@dataclass(frozen=True)
class Measured:
    """A number and its one-sigma statistical error."""

    value: float
    error: float

    def __str__(self) -> str:
        # Two significant digits of the error decide how many of the value mean anything.
        digits = max(0, 1 - int(np.floor(np.log10(self.error)))) if self.error > 0 else 4
        return f"{self.value:.{digits}f} +- {self.error:.{digits}f}"


@dataclass(frozen=True)
class Performance:
    """A tagger on a labelled sample. rejection: 1 / (QCD efficiency) at 30 % top efficiency; None without survivors."""

    accuracy: Measured
    auc: Measured
    rejection: Measured | None
    tops: int
    qcd: int

    def __str__(self) -> str:
        rejection = "too few QCD jets left to say" if self.rejection is None else str(self.rejection)
        return (
            f"accuracy {self.accuracy}, AUC {self.auc}, 1/eB at eS = 30 %: {rejection} "
            f"({self.tops} top and {self.qcd} QCD jets)"
        )


def share(hits: NDArray[np.bool_]) -> Measured:
    """Return the share of hits [n], with its binomial error."""
    value = float(np.asarray(hits).mean())
    return Measured(value, float(np.sqrt(value * (1 - value) / len(hits))))


def confusion(labels: NDArray[np.int64], guesses: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return how often each class (row) was taken for each (column), [classes, classes]."""
    return np.bincount(np.asarray(labels) * classes + np.asarray(guesses), minlength=classes**2).reshape(classes, -1)


def auc(is_top: NDArray[np.int64], p_top: NDArray) -> float:
    """Return the area under the ROC curve."""
    return float(roc_auc_score(is_top, p_top))


def auc_difference(
    is_top: NDArray[np.int64], one: NDArray, other: NDArray, rounds: int = 200, seed: int = 1
) -> Measured:
    """Return AUC(one) - AUC(other) of two taggers of the same jets.

    Its error is that of the difference: the spread over bootstrap samples (tops and QCD jets drawn apart), in which what both share
    cancels.
    """
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(is_top == kind) for kind in (0, 1)]

    def difference(chosen: NDArray[np.int64]) -> float:
        return auc(is_top[chosen], one[chosen]) - auc(is_top[chosen], other[chosen])

    drawn = [difference(np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])) for _ in range(rounds)]
    return Measured(difference(np.concatenate(kinds)), float(np.std(drawn)))


def rejection(is_top: NDArray[np.int64], p_top: NDArray, signal_efficiency: float = 0.3) -> Measured | None:
    """Return 1 / (QCD efficiency) at the tightest cut that keeps `signal_efficiency` of the tops.

    The error is the Poisson error of the surviving QCD jets; None if none survives.
    """
    tops, qcd = np.sort(p_top[is_top == 1])[::-1], p_top[is_top == 0]
    cut = tops[int(np.ceil(signal_efficiency * len(tops))) - 1]
    survivors = int((qcd >= cut).sum())
    if not survivors:
        return None
    value = len(qcd) / survivors
    return Measured(value, value / np.sqrt(survivors))


def evaluate(is_top: NDArray[np.int64], p_top: NDArray) -> Performance:
    """Measure a tagger from labels (1 top, 0 QCD) and P(top), both [n].

    Errors: binomial for the accuracy, Hanley and McNeil (Radiology 143, 1982) for the AUC, Poisson for 1/eB.
    """
    is_top, p_top = np.asarray(is_top), np.asarray(p_top)
    tops, qcd = int((is_top == 1).sum()), int((is_top == 0).sum())
    if not tops or not qcd:
        raise ValueError(f"{tops} top and {qcd} QCD jets: evaluation needs some of both")
    area = auc(is_top, p_top)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (tops - 1) * (q1 - area**2) + (qcd - 1) * (q2 - area**2)
    return Performance(
        share((p_top > 0.5) == (is_top == 1)),
        Measured(area, float(np.sqrt(variance / (tops * qcd)))),
        rejection(is_top, p_top),
        tops,
        qcd,
    )


def roc(is_top: NDArray[np.int64], p_top: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ROC curve as (top efficiency, QCD efficiency), both rising."""
    qcd_efficiency, top_efficiency, _ = roc_curve(is_top, p_top)
    return top_efficiency, qcd_efficiency
