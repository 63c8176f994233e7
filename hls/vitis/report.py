"""A design for people (a table), for programs (JSON), and as a picture."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hls.vitis.design import FIRM, Design
from hls.vitis.estimate import multipliers
from hls.vitis.parts import LABELS, Resources
from hw.files import write_if_changed

HEADER = (
    "layer",
    "multiplications",
    "reuse",
    "multipliers",
    "cycles",
    "weight bits",
    "BRAM18",
    "DSP",
    "LUT",
    "FF",
    "FIFO",
)


def rows(design: Design) -> list[dict[str, Any]]:
    """What is known of each layer, in the order of the network. ``fifo_depths`` of the streams that it writes."""
    found = []
    for stage in design.network.stages:
        sizing, cost = design.sizing.layers.get(stage.name), design.stage_cost(stage.name)
        fifo = sum((design.fifo_cost(name) for name in stage.outputs), Resources())
        found.append(
            {
                "layer": stage.name,
                "kind": stage.kind,
                "multiplications": stage.multiplications,
                "strategy": sizing.strategy if sizing else None,
                "reuse_factor": sizing.reuse_factor if sizing else None,
                "parallelisation": sizing.parallelisation if sizing else None,
                "multipliers": multipliers(stage, sizing) if sizing else 0,
                "interval_cycles": design.steps[stage.name].interval,
                "weight_bits": stage.product.count * stage.product.weight_bits if stage.product else 0,
                "resources": asdict(cost),
                "fifo_depths": {
                    name: design.fifos.depths[name] for name in stage.outputs if name in design.fifos.depths
                },
                "fifo_resources": asdict(fifo),
            }
        )
    return found


def facts(design: Design) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "part": design.sizing.part,
        "clock_ns": design.sizing.clock_ns,
        "target_cycles": design.target_cycles,
        "interval_cycles": design.fifos.run.interval,
        "interval_ms": design.interval_ms,
        "images_per_second": 1e3 / design.interval_ms,
        "latency_cycles": design.fifos.run.latency,
        "latency_ms": design.latency_ms,
        "shortages": list(design.shortages),
        "doubts": list(design.doubts),
        "resources": asdict(design.total),
        "available": asdict(design.part),
        "fifo_bits": design.fifo_bits,
        "fifo_bits_of_hls4ml": design.default_fifo_bits,
        "skip_connections": {
            name: {"depth": design.fifos.depths[name], "least": least, "words": design.network.streams[name].words}
            for name, least in design.fifos.least.items()
        },
        "layers": rows(design),
    }


def text(design: Design) -> str:
    """The table, with what it comes to."""
    lines = [tuple(HEADER)]
    for row in rows(design):
        cost = row["resources"]
        lines.append(
            (
                row["layer"],
                _count(row["multiplications"]),
                str(row["reuse_factor"] or ""),
                _count(row["multipliers"]),
                f"{row['interval_cycles']:,}",
                _count(row["weight_bits"]),
                *(_count(cost[name]) for name in ("bram18", "dsp", "lut", "ff")),
                " ".join(str(depth) for depth in row["fifo_depths"].values()),
            )
        )
    widths = [max(len(line[n]) for line in lines) for n in range(len(HEADER))]
    table = [
        "  ".join(w.ljust(n) if i == 0 else w.rjust(n) for i, (w, n) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join([*(line.rstrip() for line in table), "", *summary(design)])


def summary(design: Design) -> list[str]:
    """The lines below the table."""
    total, part = design.total, design.part
    skips = (f"{name} {design.fifos.depths[name]} (least {least})" for name, least in design.fifos.least.items())
    shares = total.shares(part)
    said = [
        f"{design.sizing.part} at {1e3 / design.sizing.clock_ns:.0f} MHz; resources and cycles are estimates (docs/hls.md says how)",
        *(
            f"  {LABELS[f.name]:20} {getattr(total, f.name):>10,} of {getattr(part, f.name):>10,}  {_share(shares[f.name])}"
            for f in fields(total)
        ),
        f"FIFOs: {design.fifo_bits / 8e3:,.0f} kB, with hls4ml's depths {design.default_fifo_bits / 8e6:,.1f} MB; "
        f"skip connections: {', '.join(skips) or 'none'}",
        f"an image every {design.interval_ms:.3f} ms ({1e3 / design.interval_ms:,.0f} a second), "
        f"latency {design.latency_ms:.3f} ms; target {design.milliseconds(design.target_cycles):.3f} ms",
    ]
    if design.shortages:
        parts = math.ceil(max(shares[name] for name in FIRM))
        holds = (
            ""
            if design.solution.fits
            else f", and the part holds the network at no speed: it would take {parts} or more"
        )
        said.append(f"NOT MET{holds}")
        said += [f"  {reason}" for reason in design.shortages]
    else:
        said.append("The target is met, and the part has the DSP slices and the memory for it.")
    return [*said, *(f"  perhaps short: {doubt}" for doubt in design.doubts)]


def write(design: Design, folder: Path) -> None:
    """Write report.txt, report.json and report.png into ``folder``."""
    write_if_changed(folder / "report.txt", text(design) + "\n")
    write_if_changed(folder / "report.json", json.dumps(facts(design), indent=2) + "\n")
    draw(design, folder / "report.png")


def draw(design: Design, path: Path) -> None:
    """Cycles of every layer against the target, its multipliers, and the shares of the part."""
    import matplotlib.pyplot as plt

    layers = [row for row in rows(design) if row["multipliers"]]
    names = [row["layer"] for row in layers]
    figure, (time, size, whole) = plt.subplots(3, 1, figsize=(12, 9), height_ratios=(3, 3, 2), layout="constrained")
    time.bar(names, [row["interval_cycles"] for row in layers])
    time.axhline(design.target_cycles, color="black", linewidth=0.8, label="target")
    time.set(
        ylabel="cycles an image", title=f"{design.sizing.part}, an image every {design.interval_ms:.3f} ms (estimate)"
    )
    time.legend(loc="lower right")
    size.bar(names, [row["multipliers"] for row in layers], label="multipliers")
    size.bar(names, [-row["resources"]["bram18"] for row in layers], label="block RAM of weights (downwards)")
    size.set(ylabel="DSP, block RAM (18 kbit)")
    size.legend()
    for axes in (time, size):
        axes.tick_params(axis="x", rotation=90, labelsize=7)
        axes.margins(x=0.01)
    shares = design.total.shares(design.part)
    known = {name: share for name, share in shares.items() if share != float("inf")}
    whole.barh([LABELS[name] for name in known], [100 * share for share in known.values()])
    whole.axvline(100, color="black", linewidth=0.8)
    whole.set(xlabel="% of the part (estimate)")
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(part, format="png", dpi=100)
    plt.close(figure)
    part.replace(path)


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _share(share: float) -> str:
    return "none there" if share == float("inf") else f"{100 * share:5.1f} %"
