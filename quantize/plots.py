"""Pictures: jets with their tags, mean images, a page of observables, ROC curves. All write PNG files, whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from quantize.dataset import written_whole
from quantize.evaluate import Performance, auc, roc
from quantize.images import HALF_WIDTH

_NAMES = {0: "QCD", 1: "top"}
_COLOUR_MAP = "magma"
_PAGE = (
    ("mass", "jet mass (GeV)", 0, 300),
    ("pt", "jet pT (GeV)", 540, 660),
    ("multiplicity", "constituents", 0, 150),
    ("tau32", "tau32", 0, 1),
)
"""Observable, its name on the axis, and the range that is drawn; what lies outside is in the first and last bin."""


def draw_tagged_jets(images: NDArray[np.uint8], labels: NDArray, p_top: NDArray, path: Path, columns: int = 5) -> None:
    """Draw a grid of jets with their true label and P(top); a wrong tag is written in red.

    images: uint8 [n, size, size, 3]. labels: [n], 1 for top. p_top: [n].
    """
    count = len(images)
    if not count or len(labels) != count or len(p_top) != count:
        raise ValueError(f"{count} images, {len(labels)} labels and {len(p_top)} scores do not make a grid")
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.1 * columns, 2.4 * rows), layout="constrained")
    for index, axes in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
        if index >= count:
            axes.set_visible(False)
            continue
        _show(axes, images[index, ..., 0].astype(float))
        right = (p_top[index] > 0.5) == (labels[index] == 1)
        axes.set_title(
            f"{_NAMES[int(labels[index])]}: P(top) = {p_top[index]:.3f}",
            fontsize=9,
            color="black" if right else "red",
        )
        axes.set_xticks([])
        axes.set_yticks([])
    _save(figure, path)


def draw_mean_images(planes: NDArray[np.uint8], labels: NDArray, path: Path) -> None:
    """Draw the mean image of top and of QCD jets side by side. planes: uint8 [n, size, size]."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, label in zip(figure.subplots(1, 2), (1, 0), strict=True):
        chosen = planes[np.asarray(labels) == label]
        if not len(chosen):
            raise ValueError(f"no {_NAMES[label]} jets to average")
        shown = _show(axes, chosen.mean(axis=0))
        axes.set_title(f"mean of {len(chosen)} {_NAMES[label]} jets")
        axes.set_xlabel("phi from the jet axis")
        axes.set_ylabel("eta from the jet axis")
        figure.colorbar(shown, ax=axes, label="pixel value, 0 to 255")
    _save(figure, path)


def draw_validation(
    values: dict[str, NDArray[np.float64]], is_top: NDArray[np.int64], means: NDArray[np.float64], path: Path
) -> None:
    """Draw a page: mass, pT, multiplicity and tau32 of both classes, and their mean images.

    values: substructure.observables, each [n]. is_top: [n]. means: [2, size, size], of QCD and of top.
    """
    figure = Figure(figsize=(13, 8), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    for axes, (name, label, low, high) in zip(panels, _PAGE, strict=False):
        for kind, colour in ((1, "tab:red"), (0, "tab:blue")):
            chosen = np.clip(values[name][is_top == kind], low, high)
            if len(chosen):
                axes.hist(
                    chosen,
                    np.linspace(low, high, 61),
                    density=True,
                    histtype="step",
                    color=colour,
                    label=f"{_NAMES[kind]}: {len(chosen)} jets, median {np.median(values[name][is_top == kind]):.4g}",
                )
        axes.set(xlabel=label, ylabel="share per bin width")
        axes.legend()
    for axes, kind in zip(panels[len(_PAGE) :], (1, 0), strict=True):
        shown = _show(axes, means[kind])
        axes.set(title=f"mean image of {_NAMES[kind]} jets", xlabel="phi from the jet axis", ylabel="eta from the axis")
        figure.colorbar(shown, ax=axes, label="pixel value, 0 to 255")
    _save(figure, path)


def draw_roc(curves: dict[str, tuple[NDArray, NDArray]], path: Path) -> None:
    """Draw background rejection against top efficiency. curves: name to (labels, P(top))."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for name, (labels, p_top) in curves.items():
        top, qcd = roc(labels, p_top)
        surviving = qcd > 0  # without any QCD jet left the rejection is unknown
        axes.plot(top[surviving], 1 / qcd[surviving], label=f"{name} (AUC {auc(labels, p_top):.4f})")
    axes.set(xlabel="top efficiency", ylabel="1 / QCD efficiency", yscale="log", xlim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def draw_learning_curve(stages: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw the AUC against the images seen, stage after stage. stages: name to records of torch_train.Progress.curve."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    start = 0.0
    for index, (name, curve) in enumerate(stages.items()):
        colour = f"C{index}"
        for key, style, what in (
            ("auc", "-", "training jets, before learning from them"),
            ("val_auc", "o", "validation jets"),
        ):
            points = [(start + record["images"], record[key]) for record in curve if key in record]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, label=f"{name}: {what}")
        start += curve[-1]["images"]
        axes.axvline(start, color="grey", linewidth=0.5)
    axes.set(xlabel="images seen", ylabel="AUC")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


def draw_performance(
    rows: dict[str, Performance], published: dict[str, tuple[float, float, float]], title: str, path: Path
) -> None:
    """Draw accuracy, AUC and 1/eB of each row with its statistical error, and beside it what was published for the row.

    published: accuracy, AUC and 1/eB by the same names; rows may be missing.
    """
    figure = Figure(figsize=(12, 1.2 + 0.6 * len(rows)), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 3, sharey=True)
    for column, (axes, label) in enumerate(zip(panels, ("accuracy", "AUC", "1/eB at eS = 30 %"), strict=True)):
        for place, (name, row) in enumerate(rows.items()):
            measured = (row.accuracy, row.auc, row.rejection)[column]
            if measured is not None:
                axes.errorbar(measured.value, place, xerr=measured.error, fmt="o", color="tab:red", capsize=3)
            if name in published:
                axes.plot(published[name][column], place, "s", markerfacecolor="none", color="tab:gray")
        axes.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5))
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(rows)), list(rows))
    handles = [
        Line2D([], [], color="tab:red", marker="o", linestyle="", label="here, with statistical error"),
        Line2D(
            [], [], color="tab:gray", marker="s", linestyle="", markerfacecolor="none", label="the paper, its own jets"
        ),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    _save(figure, path)


def draw_confusion(table: NDArray[np.int64], classes: Sequence[str], title: str, path: Path) -> None:
    """Draw a confusion matrix [classes, classes]: each row is a true class, its shares sum to 1."""
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(1.6 + 1.1 * len(classes), 1.2 + 0.9 * len(classes)), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for (row, column), share in np.ndenumerate(shares):
        axes.text(
            column,
            row,
            f"{share:.3f}\n({table[row, column]})",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if share > 0.6 else "black",
        )
    axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="taken for", ylabel="truth", title=title)
    figure.colorbar(shown, ax=axes, label="share of the true class")
    _save(figure, path)


def draw_two_views(views: NDArray[np.uint8], names: Sequence[str], path: Path) -> None:
    """Draw event displays, a row an event: views uint8 [n, 2, cells, planes], of x and of y against the planes."""
    figure = Figure(figsize=(9, 2.6 * len(views)), layout="constrained")
    for row, event, name in zip(figure.subplots(len(views), 2, squeeze=False), views, names, strict=True):
        for axes, view, across in zip(row, event, "xy", strict=True):
            axes.imshow(view, origin="lower", cmap=_COLOUR_MAP, norm=PowerNorm(0.5, vmin=0, vmax=255), aspect="auto")
            axes.set(title=f"{name}: {across} view", xlabel="plane", ylabel=f"{across} cell")
    _save(figure, path)


def _show(axes: Axes, picture: NDArray):  # type: ignore[no-untyped-def]  # an AxesImage
    edges = (-HALF_WIDTH, HALF_WIDTH, -HALF_WIDTH, HALF_WIDTH)
    # Logarithmic: most of a jet's pixels are far below its brightest.
    norm = LogNorm(vmin=max(picture.max() / 1000, 1e-6), vmax=max(picture.max(), 1e-3), clip=True)
    return axes.imshow(picture, origin="lower", extent=edges, cmap=_COLOUR_MAP, norm=norm)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with written_whole(Path(path)) as temporary:
        figure.savefig(temporary, dpi=120)
