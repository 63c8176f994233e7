"""From a board's name to its bitstream, with the flow that its board file names."""

from __future__ import annotations

from hw.board import load_board
from hw.isa import ConfigurationError
from hw.sources import BUILD
from hw.synth import ecp5
from hw.synth.report import Implementation, text_table

DEFAULT_BOARD = "ecp5-85f"
"""The board of the flow that runs everywhere."""


def synthesise(name: str, *, seed: int = 1) -> Implementation:
    """Build the bitstream of board ``name`` into build/synth/<name>. Raises ConfigurationError or SynthesisError."""
    board = load_board(name)
    out = BUILD / "synth" / name
    if board.build is None:
        raise ConfigurationError(f"{name} is an array for simulation: its board file has no [build]")
    if board.build.tool == "ecp5":
        return ecp5.build(board, out, seed=seed)
    raise ConfigurationError(f"{name}: no flow for tool {board.build.tool!r} yet")


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
