"""Alveo cards: from the board file to ``npu.xclbin``.

Vivado packages the kernel object, v++ links one core for each SLR to the card's platform.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hw.board import Board, VitisBuild
from hw.files import write_if_changed
from hw.isa import ConfigurationError
from hw.resources import check_fits
from hw.synth import tool
from hw.synth.kernel import kernel_xml, link_configuration
from hw.synth.process import SynthesisError, run_tool
from hw.synth.report import Implementation
from hw.synth.vivado import ERROR_LINE, SCRIPTS, STEP, Reports, deliver, parameters, prepare, tcl, vivado_command

PACKAGE_PHASES = {f"{STEP}package": "packaging the NPU", f"{STEP}kernel object": "kernel object"}
LINK_STEPS = ("create_project", "create_bd", "update_bd", "generate_target", "config_hw_runs", "synth", "impl")
LINK_PHASES = {f"Run vpl: Step {step}: Started": f"linking: {step}" for step in LINK_STEPS}


def build(board: Board, out: Path) -> Implementation:
    """Build ``board`` into ``out``: npu.xclbin, npu.xo and the reports of the whole device.

    Raises ConfigurationError when the array does not fit, SynthesisError when a tool is missing or fails.
    """
    if not isinstance(board.build, VitisBuild) or board.device is None:
        raise ConfigurationError(f"{board.name} is not built by Vitis")
    check_fits(board.array, board.device)
    vpp, vivado = tool.find(tool.VPP), tool.find(tool.VIVADO)
    work = prepare(board, out)
    kernel = write_if_changed(work / "kernel.xml", kernel_xml(board.array))
    link = write_if_changed(work / "link.cfg", link_configuration(board))
    write_if_changed(work / "parameters.tcl", f"set p {tcl({**parameters(board, work), 'kernel_xml': kernel})}\n")
    package = vivado_command(vivado, SCRIPTS / "alveo.tcl", work / "parameters.tcl")
    run_tool(f"vivado {board.name}", package, work / "vivado.log", PACKAGE_PHASES, ERROR_LINE, folder=work)
    run_tool(
        f"v++ {board.name}", link_command(vpp, board, link), work / "v++.log", LINK_PHASES, ERROR_LINE, folder=work
    )
    return deliver(
        board,
        out,
        Reports(_newest(work, "impl_1*full_util*rout*.rpt"), _newest(work, "impl_1*timing_summary*rout*.rpt")),
        results={"npu.xclbin": work / "npu.xclbin", "npu.xo": work / "npu.xo"},
    )


def link_command(
    vpp: Path,
    board: Board,
    link: Path,
    output: str = "npu.xclbin",
    objects: Sequence[Path | str] = ("npu.xo",),
    clock_mhz: float | None = None,
) -> list[str]:
    """v++'s command line (UG1702, v++ general options); the clock is the NPU's unless another is given."""
    assert isinstance(board.build, VitisBuild)
    return [
        *(str(vpp), "--link", "--target", "hw", "--platform", board.build.platform, "--config", str(link)),
        *("--kernel_frequency", f"{clock_mhz or board.array.clock_mhz:g}", "--report_level", "2", "--save-temps"),
        *("--temp_dir", "link", "--log_dir", "link/logs", "--report_dir", "link/reports"),
        *("--output", output, *(str(path) for path in objects)),
    ]


def _newest(work: Path, pattern: str) -> Path:
    """The newest report of that name; v++ files them by step, and the last step counts."""
    found = sorted((work / "link").rglob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SynthesisError(f"v++ wrote no report {pattern} under {work / 'link'}")
    return found[-1]
