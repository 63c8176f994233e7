"""From a board's name to its bitstream, with the flow that its board file names."""

from __future__ import annotations

import json

from hw.board import load_board
from hw.isa import ConfigurationError
from hw.sources import BUILD
from hw.synth import ecp5, ecp5_paths, vitis, vivado
from hw.synth.report import Implementation, text_table

DEFAULT_BOARD = "ecp5-85f"
"""The board of the flow that runs everywhere."""


def synthesise(name: str, *, seed: int | None = None) -> Implementation:
    """Build the bitstream of board ``name`` into build/synth/<name>. Raises ConfigurationError or SynthesisError.

    ``seed`` stands in for that of the board file; only the open flow has one.
    """
    board = load_board(name)
    out = BUILD / "synth" / name
    if board.build is None:
        raise ConfigurationError(f"{name} is an array for simulation: its board file has no [build]")
    if board.build.tool == "ecp5":
        return ecp5.build(board, out, seed=seed)
    if board.build.tool == "vivado":
        return vivado.build(board, out)
    return vitis.build(board, out)


def estimate(name: str) -> str:
    """The slowest paths of the NPU, one for each register, from the ECP5's netlist before placement. Raises like synthesise()."""
    board = load_board(name)
    if board.build is None or board.build.tool != "ecp5":
        raise ConfigurationError(f"{name}: paths are estimated for boards of the open flow, such as {DEFAULT_BOARD}")
    netlist = ecp5.synthesise(board, BUILD / "synth" / name / "work")
    module = json.loads(netlist.read_text())["modules"][ecp5.TOP]
    return ecp5_paths.text(ecp5_paths.slowest_paths(module), board.array.clock_mhz)


def summary(name: str, result: Implementation) -> str:
    """The utilisation table, the clock and the slowest path, for people."""
    verdict = "met" if result.met else "MISSED"
    return "\n".join(
        [
            text_table({name: result.utilisation}, result.part),
            "",
            f"{result.fmax_mhz:.1f} MHz routed, {result.target_mhz:.0f} MHz wanted: {verdict}",
            "slowest path:",
            *result.critical_path,
            f"bitstream: {result.bitstream}",
        ]
    )
