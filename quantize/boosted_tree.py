"""The honest yardstick of a tagger of images: gradient-boosted trees on a handful of substructure observables.

A network that does not beat it on the same split has not been trained.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from quantize.dataset import Jets
from quantize.substructure import table


def tag(training: Jets, test: Jets, seed: int = 1) -> NDArray[np.float64]:
    """Return P(top), float64 [n], of the test jets, from trees that were fitted to the training jets.

    A tenth of the training jets decides when to stop.
    """
    if len(np.unique(training.is_top)) < 2:
        raise ValueError(f"{len(training)} training jets of one class: a boosted tree needs both")
    trees = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=500, early_stopping=True, n_iter_no_change=20, random_state=seed
    )
    trees.fit(table(training.constituents), training.is_top)
    return trees.predict_proba(table(test.constituents))[:, 1]
