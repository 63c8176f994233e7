"""How many clock cycles the iterations of a stage take: an estimate from the loops in hls4ml's headers and from reports of Vitis HLS.

The figures are those of a public csynth report of Vitis HLS 2024.2 on an hls4ml project with io_stream and the Resource strategy
(tsopeter/753-FPGA on GitHub: three convolutions, reuse factor 50, 30 ns), to which a fast clock adds the DSP slice's own registers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hls.vitis.sizing import LayerSizing
from hls.vitis.stages import Stage

CYCLES_WITHOUT_WINDOW = 4
"""Of an iteration of a Resource convolution that completes no window (the report's least iteration latency: the loop is no pipeline)."""
CYCLES_BESIDE_REUSE = 5 + 3
"""Of one that does, beside the reuse factor: 5 in the report, and 3 for the registers A, M and P of a DSP slice (UG579) at a fast clock."""
CYCLES_UNROLLED = 2
"""With reuse factor 1 the loop is a pipeline; 2 is the interval in a report of Vitis HLS 2023.1 (Alezander9/ML_FPGAonPixel on GitHub)."""
PIPELINE_DEPTH = 3
"""Cycles from an iteration's read to its write in a pipelined loop, one iteration a cycle: read, compute, write."""
FRAME_CYCLES = 2
"""Between the end of a loop nest and its next start."""


@dataclass(frozen=True)
class Steps:
    """A stage's reads and writes in the order in which the hardware does them, for one image.

    ``cycles``: least time from a step to the next one. A step happens when all it reads is there and all it writes has room.
    """

    reads: NDArray[np.bool_]
    writes: NDArray[np.bool_]
    cycles: NDArray[np.int64]

    @property
    def interval(self) -> int:
        """Cycles from an image to the next one if nothing ever waits."""
        return int(self.cycles.sum()) + FRAME_CYCLES


def steps(stage: Stage, sizing: LayerSizing | None = None, depth: int = PIPELINE_DEPTH) -> Steps:
    """The steps of ``stage`` in the given size; ``sizing`` is needed for a stage with multiplications.

    With ``depth`` 1 no word stays inside a pipeline, as in the C simulation. In hardware a pipeline that finds no word to read keeps
    what is in it (Vitis HLS: "stalled pipeline", stp), so the FIFOs around it must hold that much more.
    """
    if stage.product is None:
        return _pipeline(stage, 1, depth)
    if sizing is None:
        raise ValueError(f"{stage.name} has multiplications: its sizing is needed")
    if sizing.strategy == "Latency":
        return _pipeline(stage, sizing.reuse_factor, depth)
    if sizing.reuse_factor == 1:
        return _pipeline(stage, CYCLES_UNROLLED, depth)
    return _one_by_one(stage, sizing.reuse_factor)


def interval(stage: Stage, sizing: LayerSizing | None = None) -> int:
    """Cycles that ``stage`` takes for an image."""
    return steps(stage, sizing).interval


def _pipeline(stage: Stage, initiation: int, depth: int) -> Steps:
    """The write of an iteration happens ``in_flight`` iterations later; at the end the pipeline runs empty."""
    in_flight = -(-depth // initiation) - 1
    nothing = np.zeros(in_flight, bool)
    reads, writes = np.concatenate([stage.reads, nothing]), np.concatenate([nothing, stage.writes])
    return Steps(reads, writes, np.full(len(reads), initiation))


def _one_by_one(stage: Stage, reuse_factor: int) -> Steps:
    """An iteration reads at its start and writes in its last cycle; the next one begins when it is over."""
    active = CYCLES_BESIDE_REUSE + reuse_factor
    count = np.where(stage.writes, 2, 1)
    ends = np.cumsum(count) - 1
    reads, writes = np.zeros(ends[-1] + 1, bool), np.zeros(ends[-1] + 1, bool)
    cycles = np.ones(ends[-1] + 1, np.int64)
    reads[ends - count + 1] = stage.reads
    writes[ends] = stage.writes
    cycles[ends - count + 1] = np.where(stage.writes, active - 1, CYCLES_WITHOUT_WINDOW)
    return Steps(reads, writes, cycles)
