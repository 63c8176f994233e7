"""What a design takes of an FPGA: one record and one table, whichever tool counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Utilisation:
    """Primitives of a block, of a whole design, or of a part (then: what there is of each)."""

    lut: int = 0
    """Look-up tables, those used as memory included."""
    ff: int = 0
    """Flip-flops."""
    dsp: int = 0
    """DSP48E1/E2 slices; MULT18X18D on an ECP5."""
    block_ram: float = 0.0
    """RAMB36, a RAMB18 counts one half; DP16KD on an ECP5."""
    ultra_ram: int = 0
    """URAM288."""
    lut_ram: int = 0
    """Look-up tables used as memory."""

    def __add__(self, other: Utilisation) -> Utilisation:
        """Both designs together."""
        return Utilisation(**{name: getattr(self, name) + getattr(other, name) for name in FIELDS})

    def __mul__(self, count: int) -> Utilisation:
        """``count`` copies."""
        return Utilisation(**{name: getattr(self, name) * count for name in FIELDS})

    def percent(self, part: Utilisation) -> dict[str, float | None]:
        """Each figure as a percentage of the part's; None where the part has none of it and none is used."""
        return {name: _percent(getattr(self, name), getattr(part, name)) for name in FIELDS}

    def over(self, part: Utilisation) -> list[str]:
        """One sentence for each figure that exceeds the part's; empty when the design fits."""
        return [
            f"{TITLES[name]}: {figure(getattr(self, name))} used, {figure(getattr(part, name))} are there"
            for name in FIELDS
            if getattr(self, name) > getattr(part, name)
        ]


@dataclass(frozen=True)
class Implementation:
    """A placed and routed design."""

    utilisation: Utilisation
    part: Utilisation
    target_mhz: float
    fmax_mhz: float
    """The clock at which the slowest path just meets timing."""
    bitstream: Path
    critical_path: tuple[str, ...] = ()
    """The slowest path, one line a step, for people."""

    @property
    def met(self) -> bool:
        """The design runs at the clock it was built for."""
        return self.fmax_mhz >= self.target_mhz


FIELDS: tuple[str, ...] = tuple(f.name for f in fields(Utilisation))
TITLES: Mapping[str, str] = {
    "lut": "LUT",
    "ff": "FF",
    "dsp": "DSP",
    "block_ram": "Block RAM",
    "ultra_ram": "UltraRAM",
    "lut_ram": "LUT RAM",
}

NO_UTILISATION = Utilisation()


def total(parts: Iterable[Utilisation]) -> Utilisation:
    """Sum of many."""
    return sum(parts, NO_UTILISATION)


def text_table(rows: Mapping[str, Utilisation], part: Utilisation | None = None) -> str:
    """Aligned columns for a terminal: one row a name; with ``part``, the last row in percent and what the part has below."""
    return aligned(_cells(rows, part))


def markdown_table(rows: Mapping[str, Utilisation], part: Utilisation | None = None) -> str:
    """The same table for a page in docs/."""
    return markdown(_cells(rows, part))


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Head and rows for a terminal: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """Head and rows for a page in docs/."""
    head, *body = cells
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def figure(value: float) -> str:
    """1,024 or 12.5."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def percentage(value: float | None) -> str:
    """12.5 %, or - for nothing of nothing."""
    return "-" if value is None else f"{value:.1f} %"


def _cells(rows: Mapping[str, Utilisation], part: Utilisation | None) -> list[list[str]]:
    """Head, rows and, with ``part``, its two rows."""
    cells = [["", *(TITLES[name] for name in FIELDS)]]
    cells += [[label, *(figure(getattr(u, name)) for name in FIELDS)] for label, u in rows.items()]
    if part is not None and rows:
        share = list(rows.values())[-1].percent(part)
        cells.append(["of the part", *(percentage(v) for v in share.values())])
        cells.append(["the part has", *(figure(getattr(part, name)) for name in FIELDS)])
    return cells


def _percent(used: float, there: float) -> float | None:
    """None for nothing of nothing, infinity for something of nothing."""
    if there:
        return 100.0 * used / there
    return float("inf") if used else None
