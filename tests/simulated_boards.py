"""A simulated board with our overlay on it, for the tests of the driver through pynq."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from random_networks import SIM_SMALL

from driver.board import NpuOverlay
from sim.board import SimulatedBoard, on_zynq


@contextmanager
def overlay_on_board(
    folder: Path, zynq: str = "zcu104", npus: int = 1, **options: Any
) -> Iterator[tuple[SimulatedBoard, NpuOverlay]]:
    """``npus`` arrays sim-small on the processing system of a board; ``options`` are NpuOverlay's. Ends with a check for leaks."""
    simulation = {key: options.pop(key) for key in ("latency", "bandwidth", "seed", "memory_bytes") if key in options}
    with SimulatedBoard(on_zynq(SIM_SMALL, zynq, npus), **simulation) as board:
        with NpuOverlay(board.bitstream(folder), **options) as overlay:
            yield board, overlay
        assert board.memory_used == 0, f"{board.memory_used} bytes of contiguous memory leaked"
