"""Zynq boards: from the board file to ``npu.bit`` and ``npu.hwh`` by Vivado.

The work is done by the Tcl scripts beside this file; here are their parameters, the run, and what its reports say.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hw.board import Board, VivadoBuild
from hw.files import write_if_changed
from hw.isa import REGISTER_BITS, ConfigurationError
from hw.resources import check_fits
from hw.sources import rtl_sources
from hw.synth import tool, wrapper
from hw.synth.hwh import CONTROLLER, LINES, REGISTER_STRIDE, npu_names
from hw.synth.kernel import CONTROL_PROTOCOL, IP_VERSION, LIBRARY, NAME, VENDOR, VLNV, register_list
from hw.synth.process import SynthesisError, run_tool
from hw.synth.report import Implementation
from hw.synth.vendor_report import parse_timing, parse_utilisation

SCRIPTS = Path(__file__).parent / "tcl"
ERROR_LINE = r"\s*ERROR: "
STEP = "quarkwave step: "
"""What zynq.tcl and alveo.tcl print when a step begins."""
PHASES = {
    f"{STEP}package": "packaging the NPU",
    f"{STEP}block design": "block design",
    f"{STEP}synthesis": "synthesis",
    "Start RTL Component Statistics": "synthesis: RTL components",
    "Start Cross Boundary and Area Optimization": "synthesis: area",
    "Start Timing Optimization": "synthesis: timing",
    "Start Technology Mapping": "synthesis: technology mapping",
    f"{STEP}logic optimisation": "logic optimisation",
    f"{STEP}placement": "placement",
    "Phase 2 Global Placement": "global placement",
    "Phase 3 Detail Placement": "detail placement",
    "Phase 4 Post Placement": "placement: optimisation",
    f"{STEP}physical optimisation": "physical optimisation",
    f"{STEP}routing": "routing",
    "Phase 4 Initial Routing": "initial routing",
    "Phase 5 Rip-up And Reroute": "rip-up and reroute",
    f"{STEP}routed optimisation": "optimisation of the routed design",
    f"{STEP}reports": "reports",
    f"{STEP}bitstream": "bitstream",
}
"""Starts of lines in Vivado's log, in order, and what each means; a line that a release words differently is passed over."""


class Reports(NamedTuple):
    """The two reports that are read."""

    utilisation: Path
    timing: Path


def build(board: Board, out: Path) -> Implementation:
    """Build ``board`` into ``out``: npu.bit, npu.hwh, utilisation.rpt, timing.rpt.

    ``out/work`` holds the projects and the log of the last attempt. Only a design that reaches its clock leaves it; until then
    ``out`` keeps what an earlier build delivered. Raises ConfigurationError when the array does not fit, SynthesisError when
    Vivado is missing or fails.
    """
    if not isinstance(board.build, VivadoBuild) or board.device is None:
        raise ConfigurationError(f"{board.name} is not built by Vivado")
    check_fits(board.array, board.device, board.build.npus)
    vivado = tool.find(tool.VIVADO)
    work = prepare(board, out)
    command = vivado_command(vivado, SCRIPTS / "zynq.tcl", work / "parameters.tcl")
    run_tool(f"vivado {board.name}", command, work / "vivado.log", PHASES, ERROR_LINE, folder=work)
    handoffs = sorted(work.glob("npu/npu.gen/sources_1/bd/*/hw_handoff/*.hwh"))
    if len(handoffs) != 1:
        raise SynthesisError(f"vivado wrote {len(handoffs)} hardware handoffs (.hwh) under {work}, one was expected")
    return deliver(
        board,
        out,
        Reports(work / "utilisation.rpt", work / "timing.rpt"),
        results={"npu.bit": work / "npu.bit", "npu.hwh": handoffs[0]},
    )


def prepare(board: Board, out: Path) -> Path:
    """An empty working folder ``out/work`` with the wrapper and parameters.tcl. Returns it."""
    work = out.resolve() / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write_if_changed(work / f"{wrapper.TOP}.v", wrapper.wrapper_text(board.array))
    write_if_changed(work / "parameters.tcl", f"set p {tcl(parameters(board, work))}\n")
    return work


def parameters(board: Board, work: Path) -> dict[str, object]:
    """What the scripts know of the board, the array and the RTL."""
    assert board.device
    config = board.array
    common: dict[str, object] = {
        "part": board.device.part,
        "family": board.device.family,
        "clock_mhz": f"{config.clock_mhz:g}",
        "data_bits": 8 * config.port_bytes,
        "sources": [*rtl_sources("npu"), work / f"{wrapper.TOP}.v"],
        "top": wrapper.TOP,
        "vendor": VENDOR,
        "library": LIBRARY,
        "ip_name": NAME,
        "ip_version": IP_VERSION,
        "vlnv": VLNV,
        "clock": wrapper.CLOCK,
        "reset": wrapper.RESET,
        "interrupt": wrapper.INTERRUPT,
        "interfaces": [i.name for i in wrapper.interfaces(config)],
        "register_interface": wrapper.REGISTER_INTERFACE,
        "register_range": 1 << REGISTER_BITS,
        "registers": register_list(config),
        "control_protocol": CONTROL_PROTOCOL,
    }
    if not isinstance(board.build, VivadoBuild):
        return common
    return {
        **common,
        "board_part": board.build.board_part,
        "masters": [i.name for i in wrapper.masters(config)],
        "memory_ports": list(board.build.memory_ports),
        "npus": npu_names(board),
        "controller": CONTROLLER,
        "interrupt_lines": LINES,
        "register_stride": REGISTER_STRIDE,
        "constraints": board.constraints,
    }


def tcl(value: object) -> str:
    """``value`` as one Tcl word: dictionaries and lists in braces, everything else quoted so that nothing is substituted."""
    if isinstance(value, Mapping):
        rows = "\n".join(f"  {tcl(key)} {tcl(item)}" for key, item in value.items())
        return f"{{\n{rows}\n}}"
    if isinstance(value, list | tuple):
        return f"{{{' '.join(tcl(item) for item in value)}}}"
    text = str(value)
    if any(c in text for c in "{}\\\n"):
        raise SynthesisError(f"{text!r} holds a brace, a backslash or a line end: Vivado cannot be given such a path")
    return f"{{{text}}}"


def vivado_command(vivado: Path, script: Path, parameter_file: Path) -> list[str]:
    """Vivado's command line for a script. The log is ours, so Vivado writes none."""
    options = ("-mode", "batch", "-nojournal", "-nolog", "-notrace")
    return [str(vivado), *options, "-source", str(script), "-tclargs", str(parameter_file)]


def deliver(board: Board, out: Path, reports: Reports, results: Mapping[str, Path]) -> Implementation:
    """Read the reports; when the clock is reached, copy them and the results, first of all the one to load, to ``out``.

    Raises SynthesisError when a file is missing, or when hold or pulse widths fail: no slower clock would help.
    """
    missing = [str(path) for path in (*reports, *results.values()) if not path.is_file()]
    if missing:
        raise SynthesisError(f"the tool ended without an error but did not write {', '.join(missing)}")
    used, part = parse_utilisation(reports.utilisation.read_text())
    timing = parse_timing(reports.timing.read_text())
    if min(timing.hold_slack, timing.pulse_width_slack) < 0:
        raise SynthesisError(f"{board.name}: timing not met: {timing.sentence()}; the paths are in {reports.timing}")
    if timing.setup_slack >= 0:
        for name, path in reports._asdict().items():
            _copy(path, out / f"{name}.rpt")
        results = {name: _copy(path, out / name) for name, path in results.items()}
    return Implementation(
        utilisation=used,
        part=part,
        target_mhz=board.array.clock_mhz,
        fmax_mhz=timing.fmax(board.array.clock_mhz),
        bitstream=next(iter(results.values())),
        critical_path=(timing.sentence(), *timing.slowest_path),
    )


def _copy(source: Path, target: Path) -> Path:
    part = target.with_name(f"{target.name}.part")
    shutil.copyfile(source, part)
    os.replace(part, target)
    return target
