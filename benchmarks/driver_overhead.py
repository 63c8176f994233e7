"""What the driver costs the host for an image, beyond the computation: CPU time with an NPU that answers at once.

``make bench-driver``. Everything is real but the NPU: pynq, the overlay, contiguous buffers with flush and invalidate, the interrupt
through a UIO device, the runtime's threads. Copying the image and the result, and packing it, are measured by themselves and taken off.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pynq
import pynq.interrupt
from pynq.buffer import PynqBuffer
from pynqmetadata.frontends import Metadata

from driver.board import NpuOverlay
from hw.board import Board
from hw.files import write_if_changed
from hw.isa import MAGIC, REGISTER_BITS, VERSION, Control, Register
from hw.program import Program
from hw.synth.hwh import hwh_text
from hw.synth.processing_system import processing_system
from sim.board import RuntimeMetadataParser, on_zynq


class InstantRegisters:
    """Registers of an NPU, uint32 [words], that needs no time. It computes nothing: results are what the memory holds.

    A run counts as finished once its interrupt has been acknowledged, so that every image takes the whole way through the interrupt.
    """

    def __init__(self, words: int) -> None:
        self._words = np.zeros(words, np.uint32)
        self._waiting = 0
        """Runs behind the one whose interrupt is due."""
        self.interrupt = InstantInterrupt()

    def __getitem__(self, word: int) -> np.uint32:
        return self._words[word]  # type: ignore[no-any-return]

    def preset(self, register: int, value: int) -> None:
        """Put a value into a register without its effects."""
        self._words[register // 4] = value

    def __setitem__(self, word: int, value: int) -> None:
        """START raises the interrupt, unless it is high; acknowledging it finishes the run, and raises that of the next one."""
        if word == _CONTROL:
            self._waiting += 1
        elif word == _STATUS:
            self._words[_STATUS] ^= value
            self._words[_RUNS] += 1
        else:
            self._words[word] = value
            return
        if self._waiting and not self._words[_STATUS]:
            self._waiting -= 1
            self._words[_STATUS] = 1
            self.interrupt.deliver()


_CONTROL, _STATUS, _RUNS = (r // 4 for r in (Register.CONTROL, Register.INTERRUPT_STATUS, Register.RUNS))


class InstantInterrupt:
    """The UIO device, as thin as it can be: whatever enables it is drained when the next interrupt goes out."""

    def __init__(self) -> None:
        self._kernel, self.user = socket.socketpair()
        self._kernel.setblocking(False)
        self.seconds = 0.0
        """CPU time that the interrupts took, which on a board is the hardware's."""

    def deliver(self) -> None:
        """One interrupt."""
        begin = time.thread_time()
        with suppress(BlockingIOError):
            self._kernel.recv(4096)
        self._kernel.send(bytes(4))
        self.seconds += time.thread_time() - begin


class InstantBoard(pynq.Device):
    """A Zynq board whose NPU answers at once: registers mapped into memory, buffers in the host's own."""

    def __init__(self, board: Board) -> None:
        super().__init__("instant")
        self.capabilities = {"MEMORY_MAPPED": True}
        self._ps, self._board = processing_system(board), board
        config = board.array
        self._registers = InstantRegisters((1 << REGISTER_BITS) // 4)
        self.interrupt = self._registers.interrupt
        for register, value in _IDS.items():
            self._registers.preset(register, value(config))
        self._next_address = 0x1000_0000
        pynq.Device.active_device = self

    def mmap(self, base: int, length: int) -> InstantRegisters:
        """The NPU's registers."""
        return self._registers

    def get_bitfile_metadata(self, name: str, partial: bool = False) -> Any:
        """The board's handoff, without clocks, which this machine does not have."""
        parser = RuntimeMetadataParser(Metadata(input=str(Path(name).with_suffix(".hwh"))))
        parser.clock_dict = {}
        return parser

    def download(self, bitstream: Any, parser: Any = None) -> None:
        """Nothing to reset."""
        super().post_download(bitstream, parser)

    def allocate(self, shape: Any, dtype: Any, **kwargs: Any) -> PynqBuffer:
        """A buffer in the host's memory."""
        self._next_address += 1 << 24
        return PynqBuffer(shape, dtype, device=self, device_address=self._next_address)

    def flush(self, *_: Any) -> None:
        """Caches are coherent here."""

    invalidate = flush


_IDS = {
    Register.CONTROL: lambda config: int(Control.IDLE),
    Register.ID_MAGIC: lambda config: MAGIC,
    Register.ID_VERSION: lambda config: VERSION,
    Register.ID_ARRAY: lambda config: config.kp << 16 | config.cp,
    Register.ID_MEMORY: lambda config: config.total_words,
    Register.ID_STREAM: lambda config: config.acc_depth << 16 | config.stream_bytes,
}


@dataclass(frozen=True)
class Overhead:
    """Microseconds of CPU for an image, in all threads of the host; of the round that other programs disturbed least."""

    one_by_one: float
    """The next image is sent when the result has come."""
    back_to_back: float
    """The next image waits behind the one that is computed, as a service and run_many() do it."""
    copy: float
    """Of either: packing the image, copying it and the result, flush and invalidate."""


def measure(program: Program, images: int = 100, rounds: int = 30) -> Overhead:
    """The overhead of ``rounds`` times ``images`` images. Raises DeviceError when anything fails."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (program.image.height, program.image.width, program.image.channels), np.uint8)
    board = on_zynq(program.config)
    device = InstantBoard(board)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(pynq.interrupt, "get_uio_irq", lambda irq: os.dup(device.interrupt.user.fileno())),
        NpuOverlay(_bitstream(board, Path(folder)), layer_counters=False) as overlay,
    ):
        npu = overlay.load(program)
        many = [image] * images

        def copy() -> None:
            sent, received = (
                overlay.npus[0].allocate(program.image_bytes),
                overlay.npus[0].allocate(program.result_bytes),
            )
            for image in many:
                sent.array[:] = program.pack_image(image).reshape(-1)
                sent.flush()
                received.invalidate()
                program.features(program.read_result(received.array))
            sent.free()
            received.free()

        def microseconds(work: Callable[[], object]) -> float:
            return 1e6 * min(_cpu(device, work) for _ in range(rounds)) / images

        found = Overhead(
            microseconds(lambda: [npu.run(image) for image in many]),
            microseconds(lambda: list(npu.run_many(many))),
            microseconds(copy),
        )
        runs = overlay.npus[0].read_register(Register.RUNS)
        assert overlay.npus[0].interrupts == runs > 0, "completion must come by interrupt, or the figures mean nothing"
    return found


def _cpu(device: InstantBoard, work: Callable[[], object]) -> float:
    """Seconds of CPU that ``work`` takes, without what stands in for the hardware's interrupt."""
    begin = time.process_time() - device.interrupt.seconds
    work()
    return time.process_time() - device.interrupt.seconds - begin


def _bitstream(board: Board, folder: Path) -> Path:
    write_if_changed(folder / "npu.hwh", hwh_text(board))
    return write_if_changed(folder / "npu.bit", "")


def main() -> None:
    """Print the overhead of a program file."""
    parser = argparse.ArgumentParser(
        description="CPU time that the driver takes for an image, with an NPU that answers at once."
    )
    parser.add_argument("program", type=Path, nargs="?", default=Path("build/demo.npu"), help="default: %(default)s")
    program = Program.load(parser.parse_args().program)
    found = measure(program)
    print(f"{program.name}: microseconds of CPU an image, least of 30 rounds of 100")
    print(f"{'':14} {'all':>6} {'copy':>6} {'driver':>7}")
    for name, all_of_it in (("one by one", found.one_by_one), ("back to back", found.back_to_back)):
        print(f"{name:14} {all_of_it:6.0f} {found.copy:6.0f} {all_of_it - found.copy:7.0f}")


if __name__ == "__main__":
    main()
