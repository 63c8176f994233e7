"""The timeline of one image: what the array, the weight port and the activation banks did, layer by layer over the cycles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hw.isa import LayerDescriptor, Pool
from hw.program import Program
from quantize.dataset import written_whole

ARRAY = {
    "mac_busy": ("multiplying", "tab:green"),
    "drain": ("only draining", "tab:blue"),
    "weight_stall": ("waits for weights", "tab:red"),
    "image_stall": ("waits for the image", "tab:orange"),
    "overhead": ("between layers", "tab:gray"),
}
"""What a cycle is spent on: legend and colour."""


def draw(facts: dict[str, Any], program: Program, path: Path) -> None:
    """Draw the ``facts`` of a run of ``program`` (a report of resnet50_rtl) to ``path``, a PNG."""
    rows = facts["layers"]
    cycles = np.array([max(row["cycles"], 1) for row in rows], np.float64)
    edges = np.concatenate([[0.0], np.cumsum(cycles)]) / 1e6
    figure = Figure(figsize=(15, 8), layout="constrained")
    array, port, banks = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 3))

    base = np.zeros(len(rows))
    for name, (label, colour) in ARRAY.items():
        share = np.array([row[name] for row in rows]) / cycles
        array.stairs(base + share, edges, baseline=base, fill=True, color=colour, label=label)
        base += share
    array.set(ylabel="array\nshare of cycles", ylim=(0, 1))
    array.legend(loc="lower left", ncols=len(ARRAY), fontsize=8)
    title = (
        f"ResNet-50 {facts['version']} on {facts['config']}: {facts['cycles']:,} cycles, {facts['utilisation']:.1%} of "
    )
    array.set_title(title + f"{facts['cp']} x {facts['kp']} MACs")

    moved = np.array([row["stream_bytes"] for row in rows]) / cycles
    port.stairs(moved, edges, fill=True, color="tab:purple")
    granted = facts["weight_bytes_per_cycle"] * facts["grant"]
    port.axhline(granted, color="black", linestyle="--", label=f"granted: {granted:g} bytes/cycle")
    port.set(ylabel="weight port\nbytes/cycle", ylim=(0, 1.15 * granted))
    port.legend(loc="upper left", fontsize=8)

    shares = bank_accesses(program) / cycles[: len(program.layer_names), None]
    shares = np.concatenate([shares, np.zeros((len(rows) - len(shares), shares.shape[1]))])
    mesh = banks.pcolormesh(edges, np.arange(shares.shape[1] + 1), shares.T, cmap="viridis", vmin=0)
    banks.set(ylabel="activation bank", xlabel="million cycles", yticks=np.arange(shares.shape[1]) + 0.5)
    banks.set_yticklabels([str(bank) for bank in range(shares.shape[1])])
    figure.colorbar(mesh, ax=banks, label="accesses/cycle", pad=0.01)
    for row, left, right in zip(rows, edges[:-1], edges[1:], strict=True):
        if right - left > 0.01 * edges[-1]:  # narrower, and names would overlap
            port.text(
                (left + right) / 2, 0.03 * granted, row["name"], rotation=90, fontsize=6, ha="center", va="bottom"
            )
    banks.set_xlim(0, edges[-1])
    FigureCanvasAgg(figure)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)


def bank_accesses(program: Program) -> NDArray[np.float64]:
    """Reads and writes of each bank by each layer, [layers, banks]; a tensor's are spread evenly over its words."""
    config = program.config
    table = np.zeros((len(program.layer_names), config.banks))
    for number, d in enumerate(program.descriptors()):
        for base, words, accesses in tensor_accesses(d, program):
            first = np.arange(config.banks) * config.bank_words
            inside = np.clip(base + words - first, 0, config.bank_words) - np.clip(base - first, 0, config.bank_words)
            table[number] += accesses * inside / words
    return table


def tensor_accesses(d: LayerDescriptor, program: Program) -> list[tuple[int, int, float]]:
    """(first word, words, accesses) of a layer's input, output and residual."""
    config = program.config
    rows = _taps_inside(d.out_height, d.kernel_h, d.stride, d.pad_top, d.in_height)
    columns = _taps_inside(d.out_width, d.kernel_w, d.stride, d.pad_left, d.in_width)
    source = d.in_origin + d.pad_top * d.in_width + d.pad_left
    found = [(source, d.in_blocks * d.in_plane, float(d.out_blocks * d.in_blocks * rows * columns))]
    pixels = d.out_height * d.out_width
    blocks = config.blocks_in(d.out_blocks * config.kp)
    if d.res_enable:
        found.append((d.res_base, blocks * pixels, float(d.out_blocks * pixels)))
    if d.pool_mode == Pool.GLOBAL_SUM:
        words = program.header.feature_words
        found.append((d.out_base, words, float(words)))
    else:
        written = pixels if d.pool_mode == Pool.NONE else d.pooled_height * d.pooled_width
        found.append((d.out_base, blocks * written, float(d.out_blocks * written)))
    return found


def _taps_inside(outputs: int, kernel: int, stride: int, pad: int, size: int) -> int:
    """Pairs of output position and tap along one axis that do not fall into the padding, which is not read."""
    positions = np.arange(outputs)[:, None] * stride + np.arange(kernel) - pad
    return int(np.count_nonzero((positions >= 0) & (positions < size)))
