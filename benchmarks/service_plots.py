"""The paper's Figs. 10 to 12 from our measurements: latency as violins and throughput, over the number of clients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from quantize.dataset import written_whole

COLOURS = ("#1f6fb2", "#e08214", "#5aae61")
MOST_POINTS = 5000
"""Latencies that a violin's density is estimated from; more cost minutes and change nothing that the eye sees."""


def draw(
    title: str, latencies: dict[str, dict[int, NDArray]], throughput: dict[str, dict[int, list[float]]], path: Path
) -> None:
    """Write a picture to ``path`` (PNG): violins above, throughput below.

    latencies: milliseconds, [calls], by server and number of clients. throughput: answers a second of every round, likewise.
    """
    figure = Figure(figsize=(9, 8), layout="constrained")
    above, below = figure.subplots(2, 1)
    clients = sorted({count for by_clients in latencies.values() for count in by_clients})
    places = np.arange(len(clients))
    width = 0.8 / len(latencies)
    for number, (server, by_clients) in enumerate(latencies.items()):
        colour = COLOURS[number % len(COLOURS)]
        shift = (number - (len(latencies) - 1) / 2) * width
        _violins(above, [by_clients.get(c) for c in clients], places + shift, width, colour)
        above.plot([], [], color=colour, linewidth=6, label=server)
        rounds = throughput[server]
        middle = [float(np.median(rounds[c])) for c in clients if c in rounds]
        spread = [[m - min(rounds[c]) for m, c in zip(middle, rounds, strict=True)]]
        spread += [[max(rounds[c]) - m for m, c in zip(middle, rounds, strict=True)]]
        at = [place for place, c in zip(places, clients, strict=True) if c in rounds]
        below.errorbar(at, middle, spread, color=colour, marker="o", capsize=4, label=server)
    above.set_ylabel("latency [ms]")
    above.set_yscale("log")
    above.set_title(title)
    below.set_ylabel("images per second")
    below.set_ylim(bottom=0)
    for axes in (above, below):
        axes.set_xticks(places, map(str, clients))
        axes.set_xlabel("clients, each with one request under way")
        axes.grid(axis="y", alpha=0.3)
        axes.legend()
    with written_whole(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def _violins(axes, samples: list[NDArray | None], places: NDArray, width: float, colour: str) -> None:
    """Densities of the logarithm of the latency (the axis is logarithmic), with the median and the 99th percentile marked."""
    rng = np.random.default_rng(0)
    for values, place in zip(samples, places, strict=True):
        if values is None or len(values) < 2:
            continue
        drawn = rng.choice(values, MOST_POINTS, replace=False) if len(values) > MOST_POINTS else values
        logs = np.log10(np.maximum(drawn, 1e-3).astype(np.float64))
        grid = np.linspace(logs.min(), logs.max(), 200)
        spread = max(1.06 * logs.std() * len(logs) ** -0.2, 1e-3)  # Scott's rule
        density = np.exp(-0.5 * ((grid[:, None] - logs[None]) / spread) ** 2).sum(axis=1)
        half = 0.45 * width * density / density.max()
        axes.fill_betweenx(10**grid, place - half, place + half, color=colour, alpha=0.6, linewidth=0)
        median, high = np.percentile(values, (50, 99))
        axes.plot([place - 0.3 * width, place + 0.3 * width], [median, median], color="black", linewidth=1.2)
        axes.plot([place], [high], color="black", marker="_", markersize=6)
