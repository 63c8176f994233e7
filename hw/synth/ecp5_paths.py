"""The slowest path into each register, estimated from the netlist before anything is placed: where to look first, within a minute.

Cells have nextpnr's delays (speed grade 6), every net the same one. What placement makes of it, only nextpnr knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hw.synth.process import SynthesisError

NET_NS = 0.9
"""A typical net's delay; those inside a slice (carry, PFUMX, L6MUX21) cost nothing."""
LUT_NS = 0.24
CARRY_IN_NS, CARRY_NS, CARRY_OUT_NS = 0.45, 0.07, 0.44
MUX_NS = 0.2
FLIP_FLOP_NS = 0.52
MULTIPLIER_NS, MULTIPLIER_SETUP_NS, MULTIPLIER_OUTPUT_NS = 3.93, 3.49, 3.86
REGISTERED_NS = 0.8
"""Out of a register inside a multiplier or block RAM."""
BLOCK_RAM_NS = 5.7


@dataclass(frozen=True)
class Path:
    """The slowest path that ends in a register."""

    ns: float
    levels: int
    """LUTs, carry chains, multiplexers and multipliers on the way."""
    start: str
    end: str


@dataclass
class _Arrival:
    """When a net is valid, and where that time comes from."""

    ns: float
    levels: int
    start: str


def slowest_paths(module: dict[str, Any]) -> list[Path]:
    """The slowest path into each register of one module of yosys's JSON netlist, slowest first; those of a generate loop count as one.

    Raises SynthesisError for a combinational loop.
    """
    cells: dict[str, dict[str, Any]] = module["cells"]
    driver: dict[int, str] = {}
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "output":
                driver.update({bit: name for bit in bits if isinstance(bit, int)})
    arrivals: dict[int, _Arrival] = {}
    opened: set[int] = set()

    def arrival(bit: int | str) -> _Arrival:
        """Depth first, with a stack of its own: carry chains are longer than Python's."""
        stack = [bit]
        while stack:
            top = stack[-1]
            if top in arrivals or not isinstance(top, int):
                stack.pop()
                continue
            name = driver.get(top)
            start = _launch(name, cells) if name else 0.0
            if name is None or start is not None:
                arrivals[top] = _Arrival(start or 0.0, 0, rtl_name(name) if name else "a port")
                continue
            arcs = list(_arcs(cells[name], top))
            waiting = [source for source, _ in arcs if isinstance(source, int) and source not in arrivals]
            if waiting:
                if top in opened:
                    raise SynthesisError(f"a combinational loop goes through {name}")
                opened.add(top)
                stack += waiting
                continue
            ready = [(arrivals[source], delay) for source, delay in arcs if isinstance(source, int)]
            if not ready:
                arrivals[top] = _Arrival(0.0, 0, "a constant")
                continue
            before, delay = max(ready, key=lambda item: item[0].ns + item[1])
            step = int(delay > CARRY_NS)
            arrivals[top] = _Arrival(before.ns + delay, before.levels + step, before.start)
        return arrivals.get(bit, _Arrival(0.0, 0, "a constant")) if isinstance(bit, int) else _Arrival(0.0, 0, "")

    worst: dict[str, Path] = {}
    for name, cell in cells.items():
        for bit, setup in _captures(cell):
            at = arrival(bit)
            ns, end = at.ns + setup, rtl_name(name)
            register = re.sub(r"\[\d+\]", "[*]", end)
            if register not in worst or ns > worst[register].ns:
                worst[register] = Path(ns, at.levels, at.start, end)
    return sorted(worst.values(), key=lambda path: -path.ns)


def text(paths: list[Path], clock_mhz: float) -> str:
    """The paths that miss the clock, or the ten slowest; for people."""
    period = 1000 / clock_mhz
    missed = sum(path.ns > period for path in paths)
    lines = [
        f"estimated before placement: {missed} of {len(paths)} registers miss {period:.1f} ns",
        "    ns  levels  path",
    ]
    lines += [f"{path.ns:6.1f}  {path.levels:6}  {path.start} -> {path.end}" for path in paths[: max(missed, 10)]]
    return "\n".join(lines)


def _launch(name: str, cells: dict[str, dict[str, Any]]) -> float | None:
    """Clock to output of a cell whose outputs are registered; None for logic."""
    cell = cells[name]
    parameters = cell["parameters"]
    if cell["type"] == "TRELLIS_FF":
        return FLIP_FLOP_NS
    if cell["type"] == "DP16KD":
        return REGISTERED_NS if "OUTREG" in (parameters["REGMODE_A"], parameters["REGMODE_B"]) else BLOCK_RAM_NS
    if cell["type"] == "MULT18X18D":
        if "REG_OUTPUT_CLK" in parameters:
            return REGISTERED_NS
        if "REG_INPUTA_CLK" in parameters:
            return MULTIPLIER_OUTPUT_NS
    return None


def _captures(cell: dict[str, Any]) -> Iterator[tuple[int | str, float]]:
    """Each net that a register of the cell takes, with the delay of that net and the setup time."""
    kind, pins = cell["type"], cell["connections"]
    if kind == "TRELLIS_FF":
        yield pins["DI"][0], 0.0  # in the slice of the logic before it
        for port in ("CE", "LSR"):
            if port in pins:
                yield pins[port][0], NET_NS
    elif kind == "MULT18X18D" and {"REG_INPUTA_CLK", "REG_OUTPUT_CLK"} & cell["parameters"].keys():
        setup = 0.0 if "REG_INPUTA_CLK" in cell["parameters"] else MULTIPLIER_SETUP_NS
        for port, bits in pins.items():
            if re.fullmatch(r"[AB]\d+", port):
                yield bits[0], NET_NS + setup
    elif kind in ("DP16KD", "TRELLIS_DPR16X4"):
        for port, bits in pins.items():
            if cell["port_directions"][port] == "input" and not port.startswith(("CLK", "WCK", "RAD")):
                for bit in bits:
                    yield bit, NET_NS


def _arcs(cell: dict[str, Any], output: int) -> Iterator[tuple[int | str, float]]:
    """Each net that the cell's ``output`` depends on, with the delay from there: its own net and the cell."""
    kind, pins = cell["type"], cell["connections"]
    for port, bits in pins.items():
        if cell["port_directions"][port] != "input":
            continue
        for bit in bits:
            if kind == "LUT4":
                yield bit, NET_NS + LUT_NS
            elif kind == "CCU2C":
                to_carry = output in pins.get("COUT", ())
                if port == "CIN":
                    yield bit, CARRY_NS if to_carry else CARRY_OUT_NS
                else:
                    yield bit, NET_NS + (CARRY_IN_NS if to_carry else CARRY_OUT_NS)
            elif kind in ("PFUMX", "L6MUX21"):
                yield bit, MUX_NS if port in ("ALUT", "BLUT", "D0", "D1") else NET_NS + MUX_NS
            elif kind == "MULT18X18D":
                if re.fullmatch(r"[AB]\d+", port):
                    yield bit, NET_NS + MULTIPLIER_NS
            elif kind == "TRELLIS_DPR16X4":
                if port == "RAD":
                    yield bit, NET_NS + LUT_NS
            else:
                yield bit, NET_NS


def rtl_name(cell: str) -> str:
    """The RTL's name of the register or net that yosys named a cell after."""
    return re.sub(
        r"(\.\d+\.\d+)?(_(TRELLIS_FF|TRELLIS_DPR16X4|DP16KD|MULT18X18D|LUT4|CCU2C|PFUMX|L6MUX21|(DO|DI|AD|WE|CE)[AB]\d*)(_.*)?)?$",
        "",
        cell.partition("$")[0],
    )
