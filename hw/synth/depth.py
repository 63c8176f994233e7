"""Logic depth of the NPU on UltraScale+: the look-up tables and carry chains between one register and the next, for the whole pipeline.

Counted in yosys's netlist of a narrow array (depths do not depend on its width), before placement. A carry chain counts as one level,
however long; multiplexers inside a slice (MUXF7 to MUXF9) and the insides of a DSP48E2 count as none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hw.isa import ArrayConfig, load_config
from hw.sources import BUILD, npu_parameters, rtl_sources
from hw.synth.process import SynthesisError
from hw.synth.yosys import read_commands, run_yosys

LIMIT = 7
"""Levels that fit the 3.3 ns of 300 MHz in a -2 UltraScale+ by rule of thumb: 0.1 ns for a table, 0.3 ns for the net to it, 0.2 ns each
for clock to output and setup."""

_FLIP_FLOPS = {"FDRE", "FDSE", "FDCE", "FDPE"}
_ENDS = {"RAMB18E2", "RAMB36E2", "URAM288", "SRL16E", "SRLC32E", "DSP48E2"}
_DISTRIBUTED = re.compile(r"RAM\d+[XM]")


@dataclass(frozen=True)
class Depth:
    """The deepest logic in front of one register."""

    levels: int
    start: str
    """Where that path begins: a register, a memory or a port."""
    end: str


def narrow(config: ArrayConfig) -> ArrayConfig:
    """``config`` with the smallest array that keeps its blocks: everything but the number of lanes stays."""
    return replace(config, name=f"{config.name}, 8 x 8", cp=8, kp=8, port_bytes=8)


def measure(name: str = "zcu104") -> list[Depth]:
    """Depth in front of each register of board ``name``'s NPU, deepest first; the bits and lanes of a register as one."""
    work = BUILD / "depth" / name
    netlist = work / "npu.json"
    commands = read_commands(rtl_sources("npu"), "npu", npu_parameters(narrow(load_config(name))))
    synthesis = "synth_xilinx -family xcup -top npu -flatten -uram -noiopad -noclkbuf"
    run_yosys("yosys", {commands[0]: "reading", synthesis: "mapping", f"write_json {netlist}": "writing"}, work)
    return depths(json.loads(netlist.read_text())["modules"]["npu"])


def depths(module: dict[str, Any]) -> list[Depth]:
    """Of one flat module of yosys's JSON netlist. Raises SynthesisError for a combinational loop."""
    cells: dict[str, dict[str, Any]] = module["cells"]
    names = _net_names(module)
    driver = {
        bit: cell
        for cell in cells.values()
        for port, bits in cell["connections"].items()
        if cell["port_directions"][port] == "output"
        for bit in bits
    }
    known: dict[int | str, tuple[int, str]] = {}

    def settle(bit: int | str) -> tuple[int, str]:
        """Levels in front of a net, and where they begin. Depth first, with a stack of its own: carry chains are long."""
        stack, opened = [bit], set()
        while stack:
            top = stack[-1]
            cell = driver.get(top)
            if top in known or cell is None or cell["type"] in _FLIP_FLOPS | _ENDS:
                known.setdefault(top, (0, names.get(top, "a constant")))
                stack.pop()
                continue
            arcs = list(_arcs(cell, top, driver))
            waiting = [source for source, _ in arcs if source not in known]
            if waiting and top in opened:
                raise SynthesisError(f"a combinational loop goes through {names.get(top, top)}")
            if waiting:
                opened.add(top)
                stack += waiting
                continue
            known[top] = max((known[source][0] + step, known[source][1]) for source, step in arcs)
        return known[bit]

    worst: dict[str, Depth] = {}
    for cell in cells.values():
        end = _register_name(cell, names)
        for bit in _captured(cell):
            levels, start = settle(bit)
            if end not in worst or levels > worst[end].levels:
                worst[end] = Depth(levels, start, end)
    return sorted(worst.values(), key=lambda d: (-d.levels, d.end))


def _net_names(module: dict[str, Any]) -> dict[int | str, str]:
    """Each net's name in the RTL, bits and lanes as one; of several the shortest."""
    names: dict[int | str, str] = {}
    for name, net in module["netnames"].items():
        plain = re.sub(r"\[\d+\]", "[]", name)
        for bit in net["bits"]:
            if net.get("hide_name") != 1 and (bit not in names or len(plain) < len(names[bit])):
                names[bit] = plain
    return names


def _arcs(
    cell: dict[str, Any], output: int | str, driver: dict[int | str, dict[str, Any]]
) -> Iterator[tuple[int | str, int]]:
    """Each net that the cell's ``output`` depends on, and the levels from there."""
    kind = cell["type"]
    for port, bits in cell["connections"].items():
        if cell["port_directions"][port] != "input":
            continue
        for bit in bits:
            if kind.startswith("CARRY") and port == "CI":
                yield bit, int(bit not in driver or not driver[bit]["type"].startswith("CARRY"))
            else:
                yield bit, int(not kind.startswith("MUXF"))


def _captured(cell: dict[str, Any]) -> Iterator[int | str]:
    """The nets that a register, memory or multiplier takes with the clock."""
    kind = cell["type"]
    if kind in _FLIP_FLOPS | _ENDS or _DISTRIBUTED.match(kind):
        for port, bits in cell["connections"].items():
            reads = _DISTRIBUTED.match(kind) and re.match(r"A(DDR)?[A-G]?$|DPRA|RA", port)
            if cell["port_directions"][port] == "input" and not re.match(r"(W?CLK|C)$|CLK", port) and not reads:
                yield from bits


def _register_name(cell: dict[str, Any], names: dict[int | str, str]) -> str:
    """What the cell's outputs are called in the RTL."""
    for port, bits in cell["connections"].items():
        if cell["port_directions"][port] == "output":
            for bit in bits:
                if bit in names:
                    return names[bit]
    return cell["type"]
