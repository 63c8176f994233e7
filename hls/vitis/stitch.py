"""Put the synthesised sub-projects of a network together on a Zynq board: a chain behind an AXI DMA, by tcl/stitch.tcl in Vivado.

Nobody has run it with the real tool here. On an Alveo card a shell takes the processing system's place: there the chain needs a kernel's
control registers, which hls4ml's projects do not have.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from hls.vitis.csim import find_projects
from hls.vitis.csynth import ReportError, project_name
from hw.board import Board, VivadoBuild
from hw.files import write_if_changed
from hw.isa import ConfigurationError
from hw.synth import tool, vivado
from hw.synth.process import SynthesisError, run_tool

SCRIPT = Path(__file__).parent / "tcl" / "stitch.tcl"
ADAPTER = Path(__file__).parent / "rtl" / "features_to_beats.v"
PORTS = re.compile(r"#pragma HLS INTERFACE axis port=(\w+),(\w+)")
FOLDER = "board"
PHASES = {start: what for start, what in vivado.PHASES.items() if "package" not in start and "routed" not in start}


def stitch(out: Path, board: Board) -> Path:
    """The bitstream of the projects in ``out`` for ``board``: ``out``/board/network.bit, network.hwh beside it.

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
    return work / "network.bit"


def prepare(out: Path, board: Board) -> Path:
    """Write the parameters of stitch.tcl. Returns the file."""
    if not isinstance(board.build, VivadoBuild) or board.device is None:
        raise ConfigurationError(f"{board.name} has no processing system to put beside the network: take a Zynq board")
    facts = json.loads((out / "report.json").read_text())
    if facts["part"] != board.device.part:
        raise ConfigurationError(
            f"{out} was made for {facts['part']}, {board.name} has {board.device.part}: run `make hls PART={board.device.part}`"
        )
    projects = find_projects(out)
    parts = [(project_name(project), *ports(project)) for project in projects]
    values = {
        "part": board.device.part,
        "board_part": board.build.board_part,
        "family": board.device.family,
        "clock_mhz": f"{1e3 / facts['clock_ns']:g}",
        "data_bits": 64,
        "memory_port": board.build.memory_ports[0],
        "processing_system": vivado.SCRIPTS / "processing_system.tcl",
        "adapter": ADAPTER,
        "repositories": [
            (project / f"{name}_prj" / "solution1" / "impl" / "ip").resolve()
            for project, (name, _, _) in zip(projects, parts, strict=True)
        ],
        "parts": [list(part) for part in parts],
        "result_words": facts["result_words"],
    }
    work = (out / FOLDER).resolve()
    return write_if_changed(work / "parameters.tcl", f"set p {vivado.tcl(values)}\n")


def ports(project: Path) -> tuple[str, str]:
    """Names of the stream that a project reads and of the one that it writes."""
    source = project / "firmware" / f"{project_name(project)}.cpp"
    match = PORTS.search(source.read_text())
    if match is None:
        raise ReportError(f"{source} has no AXI4-Stream interfaces of one input and one output")
    return match[1], match[2]
