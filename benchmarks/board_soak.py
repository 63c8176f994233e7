"""Many images through pynq on the simulated board, with faults at random: every answer right or a clear error, every fault recovered.

``make board-soak`` runs 1,000 images of the demo's network. Memory latency and grants are random, and about one image in eight meets a
fault: a bus error, a memory that stops answering, lost interrupts, a restart of the overlay during the run. At the end no contiguous
memory may be left. The seed is printed, and repeats the faults (how host and NPU interleave differs from run to run).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from driver.board import NpuOverlay
from driver.device import DeviceError, open_device
from driver.runtime import Npu
from hw.isa import Register
from hw.program import Program
from sim.board import SimulatedBoard, on_zynq

WATCHDOG_CYCLES = 20_000
FAULT_SHARE = 1 / 8
IMAGES = 25
"""Different images; each has its answer computed once, by the emulator."""


class SoakError(AssertionError):
    """A wrong answer, an unclear error, a fault that was not recovered, or a leak."""


@dataclass
class Tally:
    """What happened."""

    right: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """Seeded, by kind."""
    errors: Counter[str] = field(default_factory=Counter)
    """Reported, by the first words."""


class Soak:
    """``program`` on a simulated board with the faults of ``seed``."""

    def __init__(self, program: Program, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._program = program
        shape = (IMAGES, program.image.height, program.image.width, program.image.channels)
        self._images: NDArray[np.uint8] = self._rng.integers(0, 256, shape, np.uint8)
        with Npu(open_device("emulator", program.config)) as reference:
            reference.load(program)
            self._answers = [r.result for r in reference.run_many(self._images)]
        latency = int(self._rng.integers(1, 200))
        self._board = SimulatedBoard(
            on_zynq(program.config),
            latency=(latency, latency + int(self._rng.integers(200))),
            bandwidth=float(self._rng.uniform(0.5, 1.0)),
            seed=seed + 1,
        )
        self.tally = Tally()
        self._faults: dict[str, Callable[[], None]] = {
            "bus error": self._bus_error,
            "frozen memory": lambda: self._board.inject(frozen=True),
            "lost interrupts": lambda: self._board.lose_interrupts(int(self._rng.integers(1, 6))),
            "restart": lambda: None,
        }

    def run(self, count: int) -> Tally:
        """``count`` images. Raises SoakError."""
        with tempfile.TemporaryDirectory() as folder, self._board:
            with NpuOverlay(
                self._board.bitstream(Path(folder)), watchdog=WATCHDOG_CYCLES, timeout=120.0
            ) as self._overlay:
                self._overlay.load(self._program)
                used = self._board.memory_used
                for number in tqdm(range(count), desc="soak", unit="image"):
                    if self._rng.random() < FAULT_SHARE:
                        self._with_fault(str(self._rng.choice(list(self._faults))), number)
                    else:
                        self._must_be_right(number)
                    if self._board.memory_used != used:
                        raise SoakError(
                            f"image {number}: {self._board.memory_used} bytes are allocated, {used} were before"
                        )
            if self._board.memory_used:
                raise SoakError(f"{self._board.memory_used} bytes of contiguous memory leaked")
        return self.tally

    def _must_be_right(self, number: int) -> None:
        which = number % IMAGES
        if not np.array_equal(self._overlay.run(self._images[which]).result, self._answers[which]):
            raise SoakError(f"image {number} has a wrong answer")
        self.tally.right += 1

    def _with_fault(self, kind: str, number: int) -> None:
        """The image with a fault: right, or a clear error; then the same image without it."""
        self.tally.faults[kind] += 1
        self._faults[kind]()
        which = number % IMAGES
        future = self._overlay.load(self._program).run_async(self._images[which]) if kind == "restart" else None
        try:
            if future is None:
                result = self._overlay.run(self._images[which])
            else:
                time.sleep(float(self._rng.uniform(0, 0.05)))
                self._overlay.restart()
                result = future.result(0)
            if not np.array_equal(result.result, self._answers[which]):
                raise SoakError(f"image {number} has a wrong answer, and no error, with {kind}")
            self.tally.right += 1
        except CancelledError:  # a restart cancels an image that the runtime had not begun
            self.tally.errors["cancelled before it began"] += 1
        except DeviceError as error:
            self.tally.errors[str(error).partition(" at layer")[0].partition(":")[0]] += 1
        self._board.inject()
        self._must_be_right(number)

    def _bus_error(self) -> None:
        """At a random byte of the weights, the image or the features."""
        registers = (
            (Register.PROGRAM_ADDRESS, len(self._program.stream) // self._program.config.ports),
            (Register.IMAGE_ADDRESS, self._program.image_bytes),
            (Register.FEATURE_ADDRESS, self._program.result_bytes),
        )
        register, size = registers[int(self._rng.integers(len(registers)))]
        npu = self._overlay.npus[0]
        self._board.inject(error_address=npu.read_register(register) + int(self._rng.integers(size)))


def main() -> int:
    """Run the soak and print the tally; returns the exit status."""
    parser = argparse.ArgumentParser(description="Many images through pynq on the simulated board, with random faults.")
    parser.add_argument("program", type=Path, nargs="?", default=Path("build/demo.npu"), help="default: %(default)s")
    parser.add_argument("--images", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the faults (default: the time)")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    soak = Soak(Program.load(options.program), options.seed)
    begin, cpu = time.monotonic(), time.process_time()
    try:
        tally = soak.run(options.images)
    except SoakError as error:
        print(f"FAILED, seed {options.seed}: {error}", file=sys.stderr)
        return 1
    print(
        f"{tally.right} right answers, no wrong one, {sum(tally.faults.values())} faults, all recovered; no memory leaked"
    )
    for title, counter in (("faults", tally.faults), ("errors", tally.errors)):
        for name, times in counter.most_common():
            print(f"  {title[:-1]} {times:5} x {name}")
    print(f"{time.monotonic() - begin:.0f} s, {time.process_time() - cpu:.0f} s of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
