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
            f"{TITLES[name]}: {_figure(getattr(self, name))} used, {_figure(getattr(part, name))} are there"
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
    cells = _cells(rows, part)
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [_aligned(row, widths) for row in cells]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def markdown_table(rows: Mapping[str, Utilisation], part: Utilisation | None = None) -> str:
    """The same table for a page in docs/."""
    head, *body = _cells(rows, part)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def _cells(rows: Mapping[str, Utilisation], part: Utilisation | None) -> list[list[str]]:
    """Head, rows and, with ``part``, its two rows."""
    cells = [["", *(TITLES[name] for name in FIELDS)]]
    cells += [[label, *(_figure(getattr(u, name)) for name in FIELDS)] for label, u in rows.items()]
    if part is not None and rows:
        share = list(rows.values())[-1].percent(part)
        cells.append(["of the part", *("-" if v is None else f"{v:.1f} %" for v in share.values())])
        cells.append(["the part has", *(_figure(getattr(part, name)) for name in FIELDS)])
    return cells


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """Name to the left, figures to the right."""
    return "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])


def _figure(value: float) -> str:
    """1,024 or 12.5."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _percent(used: float, there: float) -> float | None:
    """None for nothing of nothing, infinity for something of nothing."""
    if there:
        return 100.0 * used / there
    return float("inf") if used else None
