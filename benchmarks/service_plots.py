"""The paper's Figs. 10 to 12 from our measurements: latency as violins and throughput, over the number of clients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from quantize.dataset import written_whole

COLOURS = ("#1f6fb2", "#e08214", "#5aae61", "#9970ab", "#c51b7d")
MOST_POINTS = 5000
"""Latencies that a violin's density is estimated from; more cost minutes and change nothing that the eye sees."""


def draw(
    title: str, latencies: dict[str, dict[int, NDArray]], throughput: dict[str, dict[int, list[float]]], path: Path
) -> None:
    """Write a picture to ``path`` (PNG): a panel of violins for each number of clients above, throughput below.

    latencies: milliseconds, [calls], by server and number of clients. throughput: answers a second of every round, likewise.
    """
    figure = Figure(figsize=(11, 8), layout="constrained")
    figure.suptitle(title)
    clients = sorted({count for by_clients in latencies.values() for count in by_clients})
    grid = figure.add_gridspec(2, len(clients))
    below = figure.add_subplot(grid[1, :])
    for panel, count in enumerate(clients):
        axes = figure.add_subplot(grid[0, panel])
        for number, by_clients in enumerate(latencies.values()):
            if count in by_clients:
                _violin(axes, by_clients[count], number, COLOURS[number % len(COLOURS)])
        axes.set_title(f"{count} client{'s' * (count != 1)}", fontsize="medium")
        axes.set_xticks([])
        axes.grid(axis="y", alpha=0.3)
        if panel == 0:
            axes.set_ylabel("latency [ms], a scale for each")
    for number, (server, rounds) in enumerate(throughput.items()):
        counts = sorted(rounds)
        middle = [float(np.median(rounds[c])) for c in counts]
        spread = [[m - min(rounds[c]) for m, c in zip(middle, counts, strict=True)]]
        spread += [[max(rounds[c]) - m for m, c in zip(middle, counts, strict=True)]]
        places = [clients.index(c) for c in counts]
        below.errorbar(
            places, middle, spread, color=COLOURS[number % len(COLOURS)], marker="o", capsize=4, label=server
        )
    below.set_ylabel("images per second")
    below.set_ylim(bottom=0)
    below.set_xticks(range(len(clients)), map(str, clients))
    below.set_xlabel("clients, each with one request under way")
    below.grid(axis="y", alpha=0.3)
    below.legend()
    with written_whole(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def _violin(axes: Axes, values: NDArray, place: int, colour: str) -> None:
    """The density of ``values`` but for the outermost thousandth at either end, with the median and the 99th percentile marked."""
    if len(values) < 2:
        return
    low, median, high, most = np.percentile(values, (0.1, 50, 99, 99.9))
    rng = np.random.default_rng(0)
    drawn = rng.choice(values, MOST_POINTS, replace=False) if len(values) > MOST_POINTS else values
    grid = np.linspace(low, most, 200)
    quartiles = np.subtract(*np.percentile(drawn, (75, 25)))
    spread = 0.9 * max(min(drawn.std(), quartiles / 1.34), 1e-3 * median) * len(drawn) ** -0.2  # Silverman's rule
    density = np.exp(-0.5 * ((grid[:, None] - drawn[None]) / spread) ** 2).sum(axis=1)
    half = 0.4 * density / density.max()
    axes.fill_betweenx(grid, place - half, place + half, color=colour, alpha=0.6, linewidth=0)
    axes.plot([place - 0.3, place + 0.3], [median, median], color="black", linewidth=1.2)
    axes.plot([place], [high], color="black", marker="_", markersize=10)
