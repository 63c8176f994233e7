"""What must hold of a synthesised NPU's area, whatever its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from hw.board import Board, Device
from hw.resources import memories
from hw.synth.area import BlockArea
from hw.synth.area_table import part
from hw.synth.report import Utilisation, figure, total

DISTRIBUTED_RAM = frozenset({"param_buffer", "sync_fifo u_words"})
"""Blocks whose memories are meant to be look-up tables: few words each."""


def broken(areas: Sequence[BlockArea], board: Board) -> list[str]:
    """One sentence for each rule that a board's NPU breaks."""
    assert board.device
    return [sentence for rule in RULES for sentence in rule(areas, board, board.device)]


def two_macs_share_a_multiplier(areas: Sequence[BlockArea], board: Board, device: Device) -> list[str]:
    """The array takes half a DSP slice for each MAC."""
    used, wanted = _all(areas, "dot_pair").dsp, board.array.macs // 2
    return [] if used == wanted else [f"the array takes {used} DSP for {board.array.macs} MACs, not {wanted}"]


def banks_are_in_their_memory(areas: Sequence[BlockArea], board: Board, device: Device) -> list[str]:
    """The activation banks take exactly the UltraRAM that they are counted to take, or the block RAM where the array has none."""
    counted = next(m.primitives for m in memories(board.array, device) if m.name == "activation banks")
    wanted = Utilisation(ultra_ram=counted) if board.array.ultra_ram else Utilisation(block_ram=counted)
    banks = _all(areas, "act_bank")
    return [
        f"the activation banks take {figure(used)} {what}, not {figure(expected)}"
        for what, used, expected in (
            ("UltraRAM", banks.ultra_ram, wanted.ultra_ram),
            ("block RAM", banks.block_ram, wanted.block_ram),
            ("LUT of RAM", banks.lut_ram, 0),
        )
        if used != expected
    ]


def no_accidental_distributed_ram(areas: Sequence[BlockArea], board: Board, device: Device) -> list[str]:
    """Look-up tables are memory only where that was meant."""
    return [
        f"{area.label}: a memory became {area.all.lut_ram} LUT of distributed RAM"
        for area in areas
        if area.each.lut_ram and area.label not in DISTRIBUTED_RAM
    ]


def it_fits(areas: Sequence[BlockArea], board: Board, device: Device) -> list[str]:
    """The sum of all blocks is no more than the device has."""
    needed = replace(total(area.all for area in areas), lut_ram=0)  # lut counts these, too
    return needed.over(part(device))


Rule = Callable[[Sequence[BlockArea], Board, Device], list[str]]
RULES: tuple[Rule, ...] = (
    two_macs_share_a_multiplier,
    banks_are_in_their_memory,
    no_accidental_distributed_ram,
    it_fits,
)


def _all(areas: Sequence[BlockArea], module: str) -> Utilisation:
    """Every form of an RTL module together."""
    return total(area.all for area in areas if area.label.partition(" ")[0] == module)
