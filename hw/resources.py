"""On-chip memory of an array, counted in the FPGA's own primitives and compared with what its device has.

Counted from the shapes of the RTL's memories by the vendor's aspect ratios (UG573), not synthesised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw.isa import BOARDS, LAYER_COUNTERS_MAX, POOL_KERNEL_MAX, ArrayConfig, ConfigurationError, tomllib

ULTRA_RAM = (72, 4096)
BLOCK_RAM = ((72, 512), (36, 1024), (18, 2048), (9, 4096))
"""Width and depth of one RAMB36 in simple dual port mode."""
FIFO_BEATS = 512
POOL_VALUE_BITS = 13
"""FifoBeats of npu.sv and the width of value_t in pool.sv."""


@dataclass(frozen=True)
class Device:
    """What one core may use of an FPGA."""

    part: str
    ultra_ram: int
    block_ram: int
    """RAMB36."""


@dataclass(frozen=True)
class Memory:
    """``count`` memories of ``depth`` words of ``width`` bits."""

    name: str
    width: int
    depth: int
    count: int = 1
    ultra: bool = False

    @property
    def primitives(self) -> int:
        """UltraRAM or RAMB36 blocks they take."""
        shapes = (ULTRA_RAM,) if self.ultra else BLOCK_RAM
        return self.count * min(math.ceil(self.width / w) * math.ceil(self.depth / d) for w, d in shapes)


def memories(c: ArrayConfig) -> tuple[Memory, ...]:
    """The memories of one core; small ones that become distributed RAM or registers are left out."""
    beat = 8 * c.port_bytes
    return (
        Memory("activation banks", 8 * c.kp, c.bank_words, c.banks * c.lane_groups, ultra=True),
        Memory("accumulators", 32 * c.kp, c.acc_depth),
        Memory("pooling line buffer", (POOL_KERNEL_MAX - 1) * POOL_VALUE_BITS * c.kp, c.pool_columns),
        Memory("weight FIFOs", beat, FIFO_BEATS, c.ports),
        Memory("image FIFO", beat, FIFO_BEATS),
        Memory("layer counters", 32, 8 * LAYER_COUNTERS_MAX),
    )


def load_device(name: str) -> Device | None:
    """The device of board ``name``, or None where hw/boards names none (an array for simulation only)."""
    path = BOARDS / f"{name}.toml"
    table = tomllib.loads(path.read_text()).get("device") if path.is_file() else None
    return Device(**table) if table else None


def used(c: ArrayConfig) -> tuple[int, int]:
    """UltraRAM and RAMB36 blocks that one core takes."""
    return (
        sum(m.primitives for m in memories(c) if m.ultra),
        sum(m.primitives for m in memories(c) if not m.ultra),
    )


def check_fits(c: ArrayConfig, device: Device) -> None:
    """Raise ConfigurationError with what is short, and by how much, when the array does not fit the device."""
    pairs = zip(("UltraRAM", "block RAM"), used(c), (device.ultra_ram, device.block_ram), strict=True)
    short = [
        f"{need} {kind} blocks, {have} are there: {need - have} short" for kind, need, have in pairs if need > have
    ]
    if short:
        raise ConfigurationError(f"{c.name} does not fit {device.part}: it takes {'; '.join(short)}")


def report(c: ArrayConfig) -> str:
    """One line for people."""
    ultra, block = used(c)
    device = load_device(c.name)
    if device is None:
        return f"{ultra} UltraRAM and {block} block RAM blocks, if {c.name} were built"
    return f"{ultra} of {device.ultra_ram} UltraRAM and {block} of {device.block_ram} block RAM blocks of {device.part}"
