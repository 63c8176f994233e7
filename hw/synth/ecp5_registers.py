"""Moves flip-flops into the registers that an ECP5's multipliers and block RAMs have, on the netlist between yosys and nextpnr.

Yosys maps a multiplication to a MULT18X18D and a memory to a DP16KD, but leaves the registers around them in the fabric, where an
unregistered multiplier (3.9 ns) or block RAM (5.7 ns) makes the slowest path. The function of the netlist does not change.
It moves only plain flip-flops (no clock enable, no reset), and all bits of a port or none. A block RAM whose reads have an enable keeps its
output register outside: the memory's own register might stop with the read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Bit = int | str
"""A net's number, or a constant: "0", "1" or "x"."""
Cell = dict[str, Any]


@dataclass
class Moved:
    """How many cells took registers in."""

    multiplier_inputs: int = 0
    multiplier_outputs: int = 0
    memory_outputs: int = 0


class _Netlist:
    """Who drives a net, and how many read it."""

    def __init__(self, module: dict[str, Any]):
        self.cells: dict[str, Cell] = module["cells"]
        self.readers: dict[Bit, int] = {}
        self.reader_ff: dict[Bit, str] = {}
        self.driver_ff: dict[Bit, str] = {}
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] == "input":
                    for bit in bits:
                        self.readers[bit] = self.readers.get(bit, 0) + 1
            if cell["type"] == "TRELLIS_FF":
                self.reader_ff[cell["connections"]["DI"][0]] = name
                self.driver_ff[cell["connections"]["Q"][0]] = name
        for port in module["ports"].values():
            if port["direction"] == "output":
                for bit in port["bits"]:
                    self.readers[bit] = self.readers.get(bit, 0) + 1

    def inputs(self, bits: Iterable[Bit]) -> dict[Bit, str] | None:
        """The flip-flop behind each net, or None when one net has none that can move. Constants need none."""
        found: dict[Bit, str] = {bit: self.driver_ff.get(bit, "") for bit in bits if isinstance(bit, int)}
        return found if found and self._movable(found.values()) else None

    def outputs(self, bits: Iterable[Bit]) -> dict[Bit, str] | None:
        """The flip-flop that each net goes to and nowhere else, or None. Unread nets need none."""
        found: dict[Bit, str] = {
            bit: self.reader_ff.get(bit, "") for bit in bits if isinstance(bit, int) and self.readers.get(bit)
        }
        alone = all(self.readers[bit] == 1 for bit in found)
        return found if found and alone and self._movable(found.values()) else None

    def clock(self, flip_flops: dict[Bit, str]) -> Bit:
        """The clock they share."""
        bit: Bit = self.cells[next(iter(flip_flops.values()))]["connections"]["CLK"][0]
        return bit

    def drop_unread(self, flip_flops: Iterable[str]) -> None:
        """Delete those of the flip-flops that nothing reads any more."""
        for name in set(flip_flops):
            pins = self.cells[name]["connections"]
            if not self.readers.get(pins["Q"][0]):
                for port, bits in pins.items():
                    if port != "Q":
                        self.readers[bits[0]] -= 1
                del self.cells[name]

    def _movable(self, names: Iterable[str]) -> bool:
        """All are plain flip-flops that start at 0, on one clock."""
        clocks = set()
        for name in names:
            cell = self.cells.get(name)
            if cell is None:
                return False
            pins, parameters = cell["connections"], cell["parameters"]
            if pins.get("LSR", ["0"]) != ["0"] or parameters["REGSET"] != "RESET" or parameters["CLKMUX"] != "CLK":
                return False
            if parameters["CEMUX"].strip() != "1":
                return False
            clocks.add(pins["CLK"][0])
        return len(clocks) == 1


def move_registers(module: dict[str, Any]) -> Moved:
    """Change one module of yosys's JSON netlist in place; what was moved."""
    netlist, moved = _Netlist(module), Moved()
    for cell in list(netlist.cells.values()):
        if cell["type"] == "MULT18X18D":
            moved.multiplier_inputs += _multiplier_inputs(netlist, cell)
            moved.multiplier_outputs += _multiplier_outputs(netlist, cell)
        elif cell["type"] == "DP16KD":
            moved.memory_outputs += _memory_outputs(netlist, cell)
    return moved


def _multiplier_inputs(netlist: _Netlist, cell: Cell) -> bool:
    """Both operands or none: nextpnr has no timing for one."""
    pins = cell["connections"]
    operands = {port: _bus(cell, port) for port in "AB"}
    found = {port: netlist.inputs(pins[pin][0] for pin in bus) for port, bus in operands.items()}
    a, b = found["A"], found["B"]
    if a is None or b is None or netlist.clock(a) != netlist.clock(b):
        return False
    for port, flip_flops in (("A", a), ("B", b)):
        for pin in operands[port]:
            bit = pins[pin][0]
            if isinstance(bit, int):
                before = netlist.cells[flip_flops[bit]]["connections"]["DI"][0]
                pins[pin] = [before]
                netlist.readers[before] = netlist.readers.get(before, 0) + 1
                netlist.readers[bit] -= 1
        cell["parameters"][f"REG_INPUT{port}_CLK"] = "CLK0"
    _connect_clock(cell, netlist.clock(a))
    netlist.drop_unread([*a.values(), *b.values()])
    return True


def _multiplier_outputs(netlist: _Netlist, cell: Cell) -> bool:
    clock = _take_outputs(netlist, cell, _bus(cell, "P"), cell["connections"].get("CLK0"))
    if clock is None:
        return False
    cell["parameters"]["REG_OUTPUT_CLK"] = "CLK0"
    _connect_clock(cell, clock)
    return True


def _memory_outputs(netlist: _Netlist, cell: Cell) -> bool:
    pins = cell["connections"]
    wide = int(cell["parameters"]["DATA_WIDTH_A"], 2) == 36  # both halves of the output belong to port B
    done = False
    for ports, control in ((("A", "B"), "B"),) if wide else ((("A",), "A"), (("B",), "B")):
        always = pins.get(f"CE{control}") == ["1"] and pins.get(f"RST{control}") == ["0"]
        bus = [pin for port in ports for pin in _bus(cell, f"DO{port}")]
        if always and _take_outputs(netlist, cell, bus, pins.get(f"CLK{control}")) is not None:
            for port in ports:
                cell["parameters"][f"REGMODE_{port}"] = "OUTREG"
                pins[f"OCE{port}"] = ["1"]
            done = True
    return done


def _take_outputs(netlist: _Netlist, cell: Cell, bus: list[str], clock_pin: list[Bit] | None = None) -> Bit | None:
    """Let the cell drive what its flip-flops drove; their clock, or None when they cannot move or the cell has another clock."""
    pins = cell["connections"]
    flip_flops = netlist.outputs(pins[pin][0] for pin in bus)
    if flip_flops is None:
        return None
    clock = netlist.clock(flip_flops)
    if clock_pin not in (None, [clock]):
        return None
    for pin in bus:
        bit = pins[pin][0]
        if bit in flip_flops:
            pins[pin] = netlist.cells.pop(flip_flops[bit])["connections"]["Q"]
    return clock


def _connect_clock(cell: Cell, clock: Bit) -> None:
    for port, bit in (("CLK0", clock), ("CE0", "1"), ("RST0", "0")):
        cell["connections"][port] = [bit]
        cell["port_directions"][port] = "input"


def _bus(cell: Cell, port: str) -> list[str]:
    """The pins of a port: P0, P1, ..."""
    return [pin for pin in cell["connections"] if re.fullmatch(rf"{port}\d+", pin)]
