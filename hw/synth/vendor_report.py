"""Reads the figures out of Vivado's reports: ``report_utilization`` and ``report_timing_summary`` (UG906)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hw.synth.process import SynthesisError
from hw.synth.report import Utilisation

SITES = {
    "CLB LUTs": "lut",
    "Slice LUTs": "lut",
    "CLB Registers": "ff",
    "Slice Registers": "ff",
    "DSPs": "dsp",
    "Block RAM Tile": "block_ram",
    "URAM": "ultra_ram",
    "LUT as Memory": "lut_ram",
}
"""Site types of UltraScale+ and 7 series, and the field each one fills."""
OPTIONAL = {"ultra_ram"}
"""7 series have none, and no line for it."""
SUMMARY_FIGURES = 12
PATH_LINES = ("Source", "Destination", "Path Group", "Requirement", "Data Path Delay", "Logic Levels")
"""Lines of a timing path that say where it runs and what it costs."""


class ReportError(SynthesisError):
    """A report lacks what it should hold."""


@dataclass(frozen=True)
class Timing:
    """The design timing summary, in nanoseconds."""

    setup_slack: float
    """WNS, worst negative slack: below zero, the design is too slow."""
    failing: int
    """Endpoints that miss setup."""
    hold_slack: float
    """WHS: below zero, the design works at no clock."""
    pulse_width_slack: float
    """WPWS: below zero, a cell cannot take the clock."""
    slowest_path: tuple[str, ...] = ()
    """The path with the worst setup slack."""

    def fmax(self, clock_mhz: float) -> float:
        """The clock, in MHz, that the slowest path allows, for a design that was constrained to ``clock_mhz``."""
        return clock_mhz / (1 - self.setup_slack * clock_mhz / 1000)

    def sentence(self) -> str:
        """For people."""
        return (
            f"WNS {self.setup_slack:+.3f} ns ({self.failing} endpoints fail), WHS {self.hold_slack:+.3f} ns, "
            f"WPWS {self.pulse_width_slack:+.3f} ns"
        )


def parse_utilisation(text: str) -> tuple[Utilisation, Utilisation]:
    """(used, available) of ``report_utilization``. Raises ReportError when a site type is missing."""
    used: dict[str, float] = {}
    available: dict[str, float] = {}
    column = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0] == "Site Type" and "Available" in cells:
            column = cells.index("Available")  # releases differ in the columns before it
        name = SITES.get(cells[0].rstrip("*"))
        if name and name not in used and column is not None and len(cells) > column:
            used[name], available[name] = float(cells[1]), float(cells[column])
    missing = sorted(title for title, name in SITES.items() if name not in used.keys() | OPTIONAL)
    if missing:
        raise ReportError(f"the utilisation report has no line for {', '.join(missing)}")
    return _utilisation(used), _utilisation(available)


def _utilisation(figures: dict[str, float]) -> Utilisation:
    counts = {name: int(value) for name, value in figures.items() if name != "block_ram"}
    return Utilisation(**counts, block_ram=figures["block_ram"])


def parse_timing(text: str) -> Timing:
    """The design timing summary. Raises ReportError when there is none, or when no clock reaches the design."""
    lines = text.splitlines()
    heads = [n for n, line in enumerate(lines) if line.split()[:2] == ["WNS(ns)", "TNS(ns)"] and "WPWS(ns)" in line]
    if not heads or heads[0] + 2 >= len(lines):
        raise ReportError("the report holds no design timing summary")
    values = lines[heads[0] + 2].split()
    if "NA" in values:
        raise ReportError("the timing summary says NA: no clock reaches the design")
    if len(values) != SUMMARY_FIGURES:
        raise ReportError(
            f"the timing summary has {len(values)} figures instead of {SUMMARY_FIGURES}: {' '.join(values)!r}"
        )
    return Timing(float(values[0]), int(values[2]), float(values[4]), float(values[8]), _slowest_path(lines))


def _slowest_path(lines: list[str]) -> tuple[str, ...]:
    """The lines PATH_LINES of the setup path with the least slack."""
    paths: list[tuple[float, tuple[str, ...]]] = []
    for number, line in enumerate(lines):
        match = re.match(r"Slack \((?:MET|VIOLATED)\) : +(-?[\d.]+)ns", line)
        if match and any("Path Type:" in follow and "Setup" in follow for follow in lines[number : number + 8]):
            block = [follow.strip() for follow in lines[number : number + 12]]
            found = [row for row in block if row.startswith(tuple(f"{name}:" for name in PATH_LINES))]
            paths.append((float(match[1]), tuple(re.sub(r":\s+", ": ", row, count=1) for row in found)))
    return min(paths)[1] if paths else ()
