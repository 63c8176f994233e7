"""What a program must cost on its array: cycles from the descriptors alone, and the bound that memory bandwidth sets.

An independent account of the loop nest that hw/rtl/pass_sequencer.sv walks: for each output block and tile of pixels, one pass over the
tile for each input block and tap. It knows nothing of pipelines, FIFOs or memory latency, so what the RTL takes beyond it was lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hw.isa import DESCRIPTOR_BYTES, LayerDescriptor
from hw.program import Program
from hw.stream import payload_bytes


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs where nothing is ever waited for."""

    name: str
    descriptor: LayerDescriptor
    busy: int
    """Cycles in which the array takes an activation word."""
    drain: int
    """Cycles in which accumulators are only read out: a layer's last tile, and what a tile has more pixels than the next."""
    stream_bytes: int
    """Bytes of the weight stream, descriptor and padding included."""

    @property
    def ideal(self) -> int:
        """Cycles of an array that never waits."""
        return self.busy + self.drain

    def bound(self, bytes_per_cycle: float) -> float:
        """Cycles it takes at the least when the weight stream arrives at ``bytes_per_cycle``."""
        return max(self.ideal, self.stream_bytes / bytes_per_cycle)


def layer_costs(program: Program) -> list[LayerCost]:
    """The cost of every layer of ``program``."""
    config = program.config
    record = config.padded(DESCRIPTOR_BYTES)
    return [
        LayerCost(name, d, busy_cycles(d), drain_cycles(d), record + payload_bytes(d, config))
        for name, d in zip(program.layer_names, program.descriptors(), strict=True)
    ]


def busy_cycles(d: LayerDescriptor) -> int:
    """One cycle for each output block, tap, input block and pixel."""
    return d.out_blocks * d.passes_per_tile * d.out_height * d.out_width


def drain_cycles(d: LayerDescriptor) -> int:
    """Cycles that only drain. A tile is drained by the first pass of the next one, as far as that is long enough."""
    if d.exclusive_drain:
        return d.out_blocks * d.out_height * d.out_width
    last_rows = d.out_height - (d.tiles - 1) * d.tile_rows
    uneven = (d.tile_rows - last_rows) * d.out_width  # 0 where there is one tile
    return d.out_blocks * uneven + last_rows * d.out_width


def bandwidth_bound(costs: Iterable[LayerCost], bytes_per_cycle: float) -> float:
    """Cycles below which the network cannot run: each layer's array time or its weights' transfer, whichever is longer.

    The roofline (Williams et al., CACM 52(4), 2009) layer by layer. Weights that wait in FIFOs when a layer begins could beat it by at most
    those FIFOs' contents.
    """
    return sum(cost.bound(bytes_per_cycle) for cost in costs)
