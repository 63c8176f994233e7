"""The table of a board's blocks: for people, on a page, and as the committed reference that today's figures are compared with.

The references are hw/synth/area_figures/<board>.json; docs/area.md is written from them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from hw.board import Board, Device, load_board
from hw.files import write_if_changed
from hw.isa import ConfigurationError
from hw.sources import ROOT
from hw.synth.area import BlockArea
from hw.synth.report import FIELDS, TITLES, Utilisation, aligned, figure, markdown, percentage, total

REFERENCES = Path(__file__).with_name("area_figures")
PAGE = ROOT / "docs" / "area.md"
UPDATE = "make area BOARD={} ARGS=--update"

GROWTH = 1.05
"""More than this, times the reference, is too much."""
SLACK = {"lut": 8, "ff": 8, "dsp": 0, "block_ram": 0, "ultra_ram": 0, "lut_ram": 0, "delay": 100}
"""What all instances of a block may grow beside that, since 5 % of a tiny one is less than one look-up table; the delay in ps (a look-up
table has about 150)."""

COLUMNS = ("instances", "LUT", "of them RAM", "shift registers", "FF", "DSP", "Block RAM", "UltraRAM", "delay [ns]")


def part(device: Device) -> Utilisation:
    """What there is of each primitive that a board file names."""
    return Utilisation(device.lut, device.ff, device.dsp, device.block_ram, device.ultra_ram)


def cells(areas: Sequence[BlockArea], device: Device) -> list[list[str]]:
    """Head, a row for each block (all its instances together), the sum, and its share of the device."""
    all_of_it = total(area.all for area in areas)
    shift = sum(area.shift_lut * area.count for area in areas)
    share = all_of_it.percent(part(device))
    rows = [["block", *COLUMNS]]
    rows += [
        [
            area.label,
            figure(area.count),
            *_figures(area.all, area.shift_lut * area.count),
            f"{area.delay_ps / 1000:.2f}",
        ]
        for area in areas
    ]
    rows.append(["sum", "", *_figures(all_of_it, shift), f"{max(area.delay_ps for area in areas) / 1000:.2f}"])
    rows.append(
        [f"of {device.part}", "", percentage(share["lut"]), "", ""]
        + [percentage(share[name]) for name in ("ff", "dsp", "block_ram", "ultra_ram")]
        + [""]
    )
    return rows


def text(areas: Sequence[BlockArea], device: Device) -> str:
    """For a terminal."""
    return aligned(cells(areas, device))


# ---------------------------------------------------------------------------------------------------------------------
# The committed reference
# ---------------------------------------------------------------------------------------------------------------------


def write_reference(name: str, areas: Sequence[BlockArea]) -> list[Path]:
    """Make ``areas`` the committed figures of board ``name``, and write the page again. The files that it wrote or left as they were."""
    record = {
        "pyosys": version("pyosys"),
        "blocks": {area.label: {k: v for k, v in asdict(area).items() if k != "label"} for area in areas},
    }
    reference = write_if_changed(REFERENCES / f"{name}.json", json.dumps(record, indent=1) + "\n")
    return [reference, write_if_changed(PAGE, page_text())]


def referenced() -> list[str]:
    """The boards that have committed figures."""
    return sorted(path.stem for path in REFERENCES.glob("*.json"))


def read_reference(name: str) -> list[BlockArea]:
    """The committed figures of board ``name``. Raises ConfigurationError when there are none, or another yosys made them."""
    path = REFERENCES / f"{name}.json"
    if not path.is_file():
        raise ConfigurationError(
            f"{name} has no committed figures in hw/synth/area_figures; make them: {UPDATE.format(name)}"
        )
    record = json.loads(path.read_text())
    if record["pyosys"] != version("pyosys"):
        raise ConfigurationError(
            f"pyosys {record['pyosys']} made the committed figures of {name}, this is {version('pyosys')}: install that one "
            f"(pip install 'quarkwave[synth]'), or make them again: {UPDATE.format(name)}"
        )
    return [
        BlockArea(label, **{**figures, "each": Utilisation(**figures["each"])})
        for label, figures in record["blocks"].items()
    ]


def grown(areas: Sequence[BlockArea], reference: Sequence[BlockArea]) -> list[str]:
    """One sentence for each figure of a block that has grown too much against the reference, and for each block that only one has."""
    now, then = ({area.label: area for area in some} for some in (areas, reference))
    sentences = [f"{label}: has no committed figures" for label in now if label not in then]
    sentences += [f"{label}: has committed figures, but is no longer there" for label in then if label not in now]
    for label in now.keys() & then.keys():
        figures = {
            TITLES[name]: (name, getattr(now[label].all, name), getattr(then[label].all, name)) for name in FIELDS
        }
        figures["delay in ps"] = ("delay", now[label].delay_ps, then[label].delay_ps)
        sentences += [
            f"{label}: {title} {figure(is_now)}, was {figure(was)}"
            for title, (name, is_now, was) in figures.items()
            if is_now > was * GROWTH + SLACK[name]
        ]
    return sorted(sentences)


def page_text() -> str:
    """docs/area.md, from the committed figures of all boards."""
    sections = []
    for name in referenced():
        board = load_board(name)
        assert board.device
        sections.append(_section(board, board.device))
    return "\n\n".join(["# Area, block by block", INTRODUCTION, *sections]) + "\n"


def _section(board: Board, device: Device) -> str:
    array = board.array
    head = f"## {board.name}: {array.cp} x {array.kp} in {device.part}"
    return f"{head}\n\n{markdown(cells(read_reference(board.name), device))}"


def _figures(used: Utilisation, shift: int) -> list[str]:
    counts = (used.lut, used.lut_ram, shift, used.ff, used.dsp, used.block_ram, used.ultra_ram)
    return [figure(value) for value in counts]


INTRODUCTION = (
    "Written by `make area ARGS=--update` from hw/synth/area_figures; [synthesis.md](synthesis.md) says how it is measured. Each row\n"
    "is an RTL module with one set of parameters, all its instances together, without the blocks in it. Delays are of cells alone,\n"
    "without nets, on no particular speed grade: they serve to compare one block with another."
)
