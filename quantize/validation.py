"""Are these jets what they should be? One page of pictures of a folder of jets, and its figures in words."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from quantize import dataset, substructure
from quantize.dataset import SPLITS
from quantize.images import jet_planes

IMAGE_SIZE = 64
MASS_WINDOW = (145.0, 205.0)  # GeV, around the top quark's


def validate(folder: Path, picture: Path, limit: int = 20_000) -> list[str]:
    """Draw the first `limit` jets of each file of `folder` into `picture`; returns a line of figures for each class.

    The page shows mass, pT, multiplicity, tau32 and, as Fig. 3 of Duarte et al. does, the mean images. Raises
    FileNotFoundError or ValueError when the folder has no jets, or a file does not hold what it should.
    """
    from quantize import plots

    files = [folder / f"{name}.h5" for name in SPLITS if (folder / f"{name}.h5").is_file()]
    if not files:
        raise FileNotFoundError(f"no train.h5, val.h5 or test.h5 in {folder}: make some with `make jets`")
    found: list[dict[str, NDArray[np.float64]]] = []
    labels: list[NDArray[np.int64]] = []
    sums = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE))
    for path in tqdm(files, desc="validation", unit="file"):
        for block in dataset.read_blocks(path, limit):
            found.append(substructure.observables(block.constituents))
            labels.append(block.is_top)
            planes = jet_planes(block.constituents, IMAGE_SIZE)
            for label in range(2):
                sums[label] += planes[block.is_top == label].sum(axis=0, dtype=np.float64)
    if not found:
        raise ValueError(f"the files in {folder} hold no jets")
    is_top = np.concatenate(labels)
    values = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    counts = np.bincount(is_top, minlength=2)
    means = sums / np.maximum(counts, 1)[:, None, None]
    plots.draw_validation(values, is_top, means, picture)
    return [summary(values, is_top, label) for label in (1, 0) if counts[label]]


def summary(values: dict[str, NDArray[np.float64]], is_top: NDArray[np.int64], label: int) -> str:
    """The figures of one class in words."""
    chosen = {name: value[is_top == label] for name, value in values.items()}
    mass = chosen["mass"]
    low, high = MASS_WINDOW
    return (
        f"{len(mass)} {('QCD', 'top')[label]} jets: median mass {np.median(mass):.0f} GeV, "
        f"{((mass > low) & (mass < high)).mean():.1%} within {low:.0f} to {high:.0f} GeV; "
        f"pT {chosen['pt'].min():.0f} to {chosen['pt'].max():.0f} GeV; "
        f"{chosen['multiplicity'].mean():.1f} constituents; median tau32 {np.median(chosen['tau32']):.2f}"
    )
