"""What each block of an NPU takes of an AMD FPGA, and how slow it is, by yosys: without Vivado, and far sooner.

Blocks are synthesised one by one (a whole array would take hours) and added up, so figures are a little high: nothing is optimised across
blocks, yosys keeps the registers around a DSP48E2 outside of it, and no two small look-up tables share a site. Delays are abc9's, without
nets. Both serve to compare: one block with another, and today's with yesterday's.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from hw.board import Board
from hw.isa import ConfigurationError
from hw.sources import BUILD, rtl_sources
from hw.synth.blocks import Block, elaborate
from hw.synth.process import SynthesisError
from hw.synth.report import Utilisation, total
from hw.synth.yosys import run_yosys

YOSYS_FAMILY = {"ultrascale+": "xcup", "7series": "xc7"}

_LUTS_OF_A_MEMORY = {
    "RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "RAM512X1S": 8,
    "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8,
    "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM32X16DR8": 8, "RAM64X8SW": 8,
}  # fmt: skip
SHIFT_REGISTERS = frozenset({"SRL16E", "SRLC32E"})
PRIMITIVES: dict[str, Utilisation] = {
    **dict.fromkeys(("LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "INV", *SHIFT_REGISTERS), Utilisation(lut=1)),
    **{name: Utilisation(lut=luts, lut_ram=luts) for name, luts in _LUTS_OF_A_MEMORY.items()},
    **dict.fromkeys(("FDRE", "FDSE", "FDCE", "FDPE"), Utilisation(ff=1)),
    **dict.fromkeys(("DSP48E1", "DSP48E2"), Utilisation(dsp=1)),
    **dict.fromkeys(("RAMB18E1", "RAMB18E2"), Utilisation(block_ram=0.5)),
    **dict.fromkeys(("RAMB36E1", "RAMB36E2"), Utilisation(block_ram=1)),
    "URAM288": Utilisation(ultra_ram=1),
    # They come with the look-up tables.
    **dict.fromkeys(("CARRY4", "CARRY8", "MUXF7", "MUXF8", "MUXF9"), Utilisation()),
}
"""Cells that yosys maps to (UG974, UG953). ``Utilisation.lut`` counts shift registers, ``lut_ram`` does not."""


@dataclass(frozen=True)
class BlockArea:
    """A block after synthesis, without the blocks in it."""

    label: str
    count: int
    """Instances in the NPU."""
    each: Utilisation
    """What one takes."""
    shift_lut: int
    """Look-up tables of one that are shift registers."""
    delay_ps: int
    """The slowest path between registers, by abc9: cells without nets."""

    @property
    def all(self) -> Utilisation:
        """What all instances take."""
        return self.each * self.count


def measure(
    board: Board,
    *,
    only: Collection[str] | None = None,
    sources: Sequence[Path] | None = None,
    work: Path | None = None,
    jobs: int | None = None,
) -> list[BlockArea]:
    """Synthesise each block of the board's NPU, ``jobs`` at a time.

    ``only`` names RTL modules, ``sources`` is other RTL than hw/rtl. Scripts, logs and figures go to ``work``, or build/area/<board>.
    Raises ConfigurationError, SynthesisError.
    """
    if board.device is None or board.device.family not in YOSYS_FAMILY:
        raise ConfigurationError(
            f"{board.name}: blocks are measured for boards with a device of family {' or '.join(YOSYS_FAMILY)}"
        )
    work = work or BUILD / "area" / board.name
    netlist, blocks = elaborate(board.array, sources or rtl_sources("npu"), work)
    unknown = sorted(set(only or ()) - {block.module for block in blocks})
    if unknown:
        raise ConfigurationError(f"the NPU has no module {unknown[0]!r}")
    chosen = [block for block in blocks if only is None or block.module in only]
    synthesise = f"synth_xilinx -family {YOSYS_FAMILY[board.device.family]} -top block -noiopad -noclkbuf"
    if board.array.ultra_ram:
        synthesise += " -uram"
    with (
        ThreadPoolExecutor(jobs or os.cpu_count()) as workers,
        tqdm(total=len(chosen), desc=f"area of {board.name}", unit="block") as bar,
    ):

        def one(block: Block) -> BlockArea:
            area = _measure_block(block, netlist, synthesise, work / re.sub(r"\W", "_", block.label))
            bar.update()
            return area

        return list(workers.map(one, chosen))


def _measure_block(block: Block, netlist: Path, synthesise: str, work: Path) -> BlockArea:
    figures = work / "cells.json"
    run_yosys(
        block.label,
        dict.fromkeys(
            [
                f"read_rtlil {netlist}",
                f"rename \\{block.first} block",
                "blackbox * block %d",
                synthesise,
                f"tee -q -o {figures} stat -json",
            ],
            "",
        ),
        work,
        quiet=True,
    )
    cells = json.loads(figures.read_text())["modules"]["\\block"]["num_cells_by_type"]
    log = (work / "yosys.log").read_text(errors="replace")
    delays = re.findall(r"^ABC: .*\bDel = +([\d.]+)\.", log, re.MULTILINE)
    return count(block, cells, delay_ps=round(float(delays[-1])) if delays else 0)


def count(block: Block, cells: dict[str, int], delay_ps: int) -> BlockArea:
    """A block's figures from its cells; a type with a dollar sign is another block. Raises SynthesisError for an unknown cell."""
    own = {kind: number for kind, number in cells.items() if "$" not in kind.lstrip("\\")}
    unknown = sorted(own.keys() - PRIMITIVES.keys())
    if unknown:
        raise SynthesisError(f"{block.label}: yosys used {', '.join(unknown)}, which hw/synth/area.py does not count")
    return BlockArea(
        label=block.label,
        count=block.count,
        each=total(PRIMITIVES[kind] * number for kind, number in own.items()),
        shift_lut=sum(number for kind, number in own.items() if kind in SHIFT_REGISTERS),
        delay_ps=delay_ps,
    )
