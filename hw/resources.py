"""Multipliers and on-chip memory of an array, counted in the FPGA's own primitives and compared with what its device has.

Counted from the shapes of the RTL's memories by the vendors' aspect ratios (UG573, UG473, ECP5 data sheet FPGA-DS-02012), not synthesised.
Look-up tables and flip-flops are not counted here: synthesis does that (``python -m hw area``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw.board import Device, board_names, load_board
from hw.isa import LAYER_COUNTERS_MAX, POOL_KERNEL_MAX, ArrayConfig, ConfigurationError
from hw.synth.report import Utilisation

ULTRA_RAM = ((72, 4096),)
RAMB36 = ((72, 512), (36, 1024), (18, 2048), (9, 4096), (4, 8192), (2, 16384), (1, 32768))
DP16KD = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
"""Width and depth of one block in simple dual port mode."""
FIFO_BEATS = 512
POOL_VALUE_BITS = 13
"""FifoBeats of npu.sv and the width of value_t in pool.sv."""
COUNTED = {"dsp": "multipliers", "ultra_ram": "UltraRAM blocks", "block_ram": "block RAM blocks"}
"""Fields of Utilisation that are counted here."""


@dataclass(frozen=True)
class Memory:
    """``count`` memories of ``depth`` words of ``width`` bits, built of blocks of one of ``shapes`` (width, depth)."""

    name: str
    width: int
    depth: int
    count: int = 1
    shapes: tuple[tuple[int, int], ...] = RAMB36

    @property
    def primitives(self) -> int:
        """Blocks they take."""
        return self.count * min(math.ceil(self.width / w) * math.ceil(self.depth / d) for w, d in self.shapes)


def memories(c: ArrayConfig, device: Device | None) -> tuple[Memory, ...]:
    """The memories of one core on ``device``; small ones that become distributed RAM or registers are left out."""
    beat = 8 * c.port_bytes
    block = DP16KD if device and device.family == "ecp5" else RAMB36
    bank = ULTRA_RAM if c.ultra_ram else block
    return (
        Memory("activation banks", 8 * c.kp, c.bank_words, c.banks * c.lane_groups, bank),
        Memory("accumulators", 32 * c.kp, c.acc_depth, shapes=block),
        Memory("pooling line buffer", (POOL_KERNEL_MAX - 1) * POOL_VALUE_BITS * c.kp, c.pool_columns, shapes=block),
        Memory("weight FIFOs", beat, FIFO_BEATS, c.ports, block),
        Memory("image FIFO", beat, FIFO_BEATS, shapes=block),
        Memory("layer counters", 32, 8 * LAYER_COUNTERS_MAX, shapes=block),
    )


def load_device(name: str) -> Device | None:
    """The device of board ``name``, or None where hw/boards names none (an array for simulation, or of somebody else's board)."""
    return load_board(name).device if name in board_names() else None


def used(c: ArrayConfig, device: Device | None) -> Utilisation:
    """Multipliers and memory blocks that one core takes; without a device, of an UltraScale+ with UltraRAM."""
    per_multiplier = 2 if c.field_bits else 1  # MACs that share one: dot_pair.sv
    all_memories = memories(c, device)
    return Utilisation(
        dsp=c.macs // per_multiplier,
        block_ram=sum(m.primitives for m in all_memories if m.shapes is not ULTRA_RAM),
        ultra_ram=sum(m.primitives for m in all_memories if m.shapes is ULTRA_RAM),
    )


def check_fits(c: ArrayConfig, device: Device, cores: int = 1) -> None:
    """Raise ConfigurationError with what is short, and by how much, when ``cores`` of the array do not fit the device."""
    one = used(c, device)
    need = {name: cores * getattr(one, name) for name in COUNTED}
    short = [
        f"{need[name]:,} {what}, {getattr(device, name):,} are there: {need[name] - getattr(device, name):,} short"
        for name, what in COUNTED.items()
        if need[name] > getattr(device, name)
    ]
    if short:
        raise ConfigurationError(f"{c.name} does not fit {device.part}: it takes {'; '.join(short)}")


def report(c: ArrayConfig) -> str:
    """One line for people."""
    device = load_device(c.name)
    need = used(c, device)
    if device is None:
        return (
            ", ".join(f"{getattr(need, name):,} {what}" for name, what in COUNTED.items()) + f", if {c.name} were built"
        )
    parts = [
        f"{getattr(need, name):,} of {getattr(device, name):,} {what}"
        for name, what in COUNTED.items()
        if getattr(need, name) or getattr(device, name)
    ]
    return f"{', '.join(parts)} of {device.part}"
