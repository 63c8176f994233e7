"""Put the synthesised sub-projects of a network together on a Zynq board: a chain behind an AXI DMA, by tcl/stitch.tcl in Vivado.

Nobody has run it with the real tool here. For Alveo cards see hls/vitis/link.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hls.vitis.csim import find_projects
from hls.vitis.csynth import project_name
from hls.vitis.ports import NETWORK, port_names, top_source
from hw.board import Board, VivadoBuild
from hw.files import write_if_changed
from hw.isa import ConfigurationError
from hw.synth import tool, vivado
from hw.synth.process import SynthesisError, run_tool

SCRIPT = Path(__file__).parent / "tcl" / "stitch.tcl"
FOLDER = "board"
PHASES = {start: what for start, what in vivado.PHASES.items() if "package" not in start and "routed" not in start}


def stitch(out: Path, board: Board) -> Path:
    """The bitstream of the projects in ``out`` for ``board``: ``out``/board/network.bit, network.hwh and network.json beside it.

    Raises SynthesisError, ConfigurationError for a board without a processing system.
    """
    parameters = prepare(out, board)
    executable = tool.find(tool.VIVADO)
    work = parameters.parent
    command = vivado.vivado_command(executable, SCRIPT, parameters)
    run_tool(f"vivado {board.name}", command, work / "vivado.log", PHASES, vivado.ERROR_LINE, folder=work)
    handoffs = sorted(work.glob("network/network.gen/sources_1/bd/*/hw_handoff/*.hwh"))
    if len(handoffs) != 1 or not (work / "network.bit").is_file():
        raise SynthesisError(
            f"vivado ended without an error but left no network.bit with one hardware handoff in {work}"
        )
    handoffs[0].replace(work / "network.hwh")
    write_if_changed(work / NETWORK, (out / NETWORK).read_text())
    return work / "network.bit"


def prepare(out: Path, board: Board) -> Path:
    """Write the parameters of stitch.tcl. Returns the file."""
    if not isinstance(board.build, VivadoBuild) or board.device is None:
        raise ConfigurationError(f"{board.name} has no processing system to put beside the network: take a Zynq board")
    facts = made_for(out, board.name, board.device.part)
    projects = find_projects(out)
    values = {
        "part": board.device.part,
        "board_part": board.build.board_part,
        "family": board.device.family,
        "clock_mhz": f"{1e3 / facts['clock_ns']:g}",
        "data_bits": 64,
        "memory_port": board.build.memory_ports[0],
        "processing_system": vivado.SCRIPTS / "processing_system.tcl",
        "repositories": [
            (project / f"{project_name(project)}_prj" / "solution1" / "impl" / "ip").resolve() for project in projects
        ],
        "parts": [[top_source(project).stem, *port_names(project)] for project in projects],
    }
    work = (out / FOLDER).resolve()
    return write_if_changed(work / "parameters.tcl", f"set p {vivado.tcl(values)}\n")


def made_for(out: Path, board: str, part: str) -> dict[str, Any]:
    """The report of the projects in ``out``. Raises ConfigurationError unless they were made for ``part``."""
    facts: dict[str, Any] = json.loads((out / "report.json").read_text())
    if facts["part"] != part:
        raise ConfigurationError(f"{out} was made for {facts['part']}, {board} has {part}: run `make hls PART={part}`")
    return facts
