"""A PYNQ board around the Verilated NPU: the real pynq package, and our driver unchanged, on registers, memory and interrupt of the RTL.

What stands in for hardware and kernel: a ``pynq.Device`` (register accesses reach the RTL's AXI4-Lite port, buffers lie in the memory that
its AXI masters see), the clock registers of the processing system, and the UIO device of the interrupt (``sim.uio``). Each buffer has a
host copy, so that a missing flush or invalidate is a wrong answer. The NPU is clocked in a thread, whatever the host does meanwhile.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pynq
import pynq.ps
from numpy.typing import NDArray
from pynqmetadata.frontends import Metadata

from driver.board import NpuIP, open_board
from driver.device import DeviceError
from hw.board import Board, VivadoBuild, load_board
from hw.files import write_if_changed
from hw.isa import REGISTER_BITS, ArrayConfig, Control, Register
from hw.synth.hwh import REGISTER_STRIDE, hwh_text, npu_names
from hw.synth.processing_system import processing_system
from sim.axi_intc import AxiInterruptController
from sim.contiguous import ContiguousMemory
from sim.uio import InterruptLine, line
from sim.verilated import VerilatedDevice

try:
    from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser
except ImportError:  # PYNQ 4 moved it
    from pynqmetadata.views.runtime import RuntimeMetadataParser

SLICE = 200
"""Clock cycles between two moments at which the host may access a register."""
CLOCK_REGISTERS = {
    "zynq_ultra_ps_e": (pynq.ps._ClocksUltrascale, 0xFF5E_0000, {0x20: 90 << 8 | 1 << 16}),
    "processing_system7": (pynq.ps._ClocksZynq, 0xF800_0000, {0x108: 20 << 12}),
}
"""PYNQ's code for the clocks, where their registers lie, and what the boot loader leaves in them: the PLL (UG1087, UG585)."""
ARCHITECTURES = {"zynq_ultra_ps_e": "aarch64", "processing_system7": "armv7l"}
EVENTS = Control.DONE | Control.READY


class SimulatedBoard(ContiguousMemory):
    """A board with ``memory_bytes`` of contiguous memory; becomes PYNQ's active device. Close it, or use it as a context manager.

    ``board``: one of hw/boards, or a Board, with as many NPUs as it says. ``options`` are those of VerilatedDevice (latency, bandwidth,
    seed).
    """

    def __init__(self, board: str | Board = "pynq-z2", memory_bytes: int = 64 << 20, **options: Any) -> None:
        self.board = load_board(board) if isinstance(board, str) else board
        self._new_npu = partial(VerilatedDevice, self.board.array, memory_bytes, **options)
        self._seed: int = options.get("seed", 1)
        self.npus = self._reset_npus()
        super().__init__(f"simulated-{self.board.name}", self.npu.memory.arena.base, memory_bytes)
        self.name = self.board.name
        self.capabilities = {"REGISTER_RW": True}
        self._ps = processing_system(self.board)
        self.arch = ARCHITECTURES[self._ps.name]
        self._controller = AxiInterruptController()
        self._events = [0] * len(self.npus)
        """What CONTROL has told us of a run's events and the host has not read yet, of each NPU."""
        self._interrupt: InterruptLine = line(self._raw_irq)
        self._interrupt.lose(0)  # whatever was asked for on the board before, whose line it was
        self._turn = threading.Condition()
        self._visitors = 0
        self._closed = False
        self._started = threading.Event()
        self._clock = threading.Thread(target=_run_clock, args=(weakref.ref(self),), name="npu-clock", daemon=True)
        self._clock.start()
        clocks, self._clock_base, registers = CLOCK_REGISTERS[self._ps.name]
        self._clock_registers = dict(registers)
        pynq.Device.active_device = self
        pynq.Clocks._real_instance = clocks()  # PYNQ would choose by the processor that this runs on

    # What PYNQ asks of a device --------------------------------------------------------------------------------------

    def get_bitfile_metadata(self, bitfile_name: str, **_: Any) -> Any:
        """PYNQ's own parser of the .hwh beside the bitstream."""
        path = Path(bitfile_name).with_suffix(".hwh")
        if not path.is_file():
            raise RuntimeError(f"there is no {path.name} beside {bitfile_name}")
        return RuntimeMetadataParser(Metadata(input=str(path)))

    def download(self, bitstream: Any, parser: Any = None) -> None:
        """Reset the programmable logic. The memory keeps what it held."""
        with self._visit():
            old, self.npus = self.npus, self._reset_npus()
            self.npu.memory.data[:] = old[0].memory.data
            for npu in old:
                npu.close()
            self._events = [0] * len(self.npus)
            self._controller = AxiInterruptController()
            self._interrupt.drive(False, id(self))
        super().post_download(bitstream, parser)

    @property
    def default_memory(self) -> SimulatedBoard:
        """The board has one memory."""
        return self

    def load(self, address: int, size: int) -> NDArray[np.uint8]:
        """See ContiguousMemory."""
        with self._visit():
            return self.npu.memory.at(address, size).copy()

    def store(self, address: int, data: NDArray[np.uint8]) -> None:
        """See ContiguousMemory."""
        with self._visit():
            self.npu.memory.at(address, len(data))[:] = data

    def read_registers(self, address: int, length: int) -> bytes:
        """Registers of the NPU or of the clocks. Raises DeviceError where the bus would not answer."""
        return b"".join(self._read(at).to_bytes(4, "little") for at in range(address, address + length, 4))

    def write_registers(self, address: int, data: bytes) -> None:
        """Write registers of the NPU or of the clocks. Raises DeviceError where the bus would not answer."""
        for start in range(0, len(data), 4):
            self._write(address + start, int.from_bytes(data[start : start + 4], "little"))

    # The board's own -------------------------------------------------------------------------------------------------

    @property
    def npu(self) -> VerilatedDevice:
        """The first NPU, whose memory is everyone's."""
        return self.npus[0]

    def bitstream(self, folder: Path) -> Path:
        """Write quarkwave.bit, which is empty, and its .hwh into ``folder``; the path of the former."""
        write_if_changed(folder / "quarkwave.hwh", hwh_text(self.board))
        return write_if_changed(folder / "quarkwave.bit", "")

    def inject(self, error_address: int | None = None, frozen: bool = False, npu: int = 0) -> None:
        """Make the memory fail for one NPU; see VerilatedDevice.inject. Without arguments it is well again."""
        with self._visit():
            self.npus[npu].inject(error_address, frozen)

    def break_wires(self, port: str, npu: int = 0, **broken: Any) -> None:
        """Break the wires of one port to the memory; see VerilatedDevice.break_wires."""
        with self._visit():
            self.npus[npu].break_wires(port, **broken)

    def lose_interrupts(self, count: int) -> None:
        """Let the next ``count`` interrupts get lost between kernel and driver."""
        self._interrupt.lose(count)

    def interrupt(self) -> None:
        """Let the kernel deliver an interrupt for which there is no reason."""
        self._interrupt.interrupt()

    def close(self) -> None:
        """Switch the board off. May be called again."""
        if not self._closed:
            self._closed = True
            self._started.set()
            self._clock.join()
            self._interrupt.drive(False, id(self))
            for npu in self.npus:
                npu.close()

    def __enter__(self) -> SimulatedBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Bus and clock ---------------------------------------------------------------------------------------------------

    @property
    def _raw_irq(self) -> int:
        """The number that PYNQ looks for in /proc/interrupts: the first line from the logic."""
        return {"pl_ps_irq0": 121, "IRQ_F2P": 61}[self._ps.interrupt]

    def _reset_npus(self) -> list[VerilatedDevice]:
        """The NPUs as after the bitstream was loaded."""
        first = self._new_npu()
        others = [
            self._new_npu(beside=first, seed=self._seed + number) for number in range(1, len(npu_names(self.board)))
        ]
        return [first, *others]

    def _read(self, address: int) -> int:
        number, offset = divmod(address - self._ps.base, REGISTER_STRIDE)
        if not self._is_ours(number, offset):
            return self._clock_registers.get(self._clock_offset(address), 0)
        with self._visit():
            if number == len(self.npus):
                return self._controller.read(offset)
            value = self.npus[number].read_register(offset)
            if offset == Register.CONTROL:  # reading clears events; those that the clock's thread saw are still due
                value, self._events[number] = value | self._events[number], 0
            self._step(0)
            return value

    def _write(self, address: int, value: int) -> None:
        number, offset = divmod(address - self._ps.base, REGISTER_STRIDE)
        if not self._is_ours(number, offset):
            self._clock_registers[self._clock_offset(address)] = value
            return
        with self._visit():
            if number == len(self.npus):
                self._controller.write(offset, value)
            else:
                self.npus[number].write_register(offset, value)
            self._step(0)
        if number < len(self.npus) and offset == Register.CONTROL and value & Control.START:
            self._started.set()

    def _is_ours(self, number: int, offset: int) -> bool:
        """Whether something in the logic answers: an NPU, or the interrupt controller where there are several."""
        if number == len(self.npus) > 1:
            return True
        return 0 <= number < len(self.npus) and offset < 1 << REGISTER_BITS

    def _step(self, cycles: int) -> None:
        """Clock every NPU, and put the interrupt on its line."""
        levels = [npu.step(cycles) for npu in self.npus]
        for number, high in enumerate(levels):
            self._controller.drive(number, high)
        self._interrupt.drive(self._controller.output if len(levels) > 1 else levels[0], id(self))

    def _clock_offset(self, address: int) -> int:
        offset = address - self._clock_base
        if not 0 <= offset < 0x1000:
            raise DeviceError(f"nothing answers at {address:#x} on {self.board.name}")
        return offset

    @contextmanager
    def _visit(self) -> Iterator[None]:
        """The host's turn at the NPU, which comes before the clock's."""
        with self._turn:
            self._visitors += 1
        try:
            with self._turn:
                yield
        finally:
            with self._turn:
                self._visitors -= 1
                self._turn.notify_all()

    def _tick(self) -> bool:
        """The clock's turn: SLICE cycles. Whether every NPU is idle."""
        with self._turn:
            self._turn.wait_for(lambda: not self._visitors)
            self._step(SLICE)
            controls = [npu.read_register(Register.CONTROL) for npu in self.npus]
            for number, control in enumerate(controls):
                self._events[number] |= control & EVENTS
            return all(control & Control.IDLE for control in controls)


def _run_clock(board: weakref.ref[SimulatedBoard]) -> None:
    """Clock the NPUs while one is busy; time stands still while all are idle."""
    while True:
        alive = board()
        if alive is None or alive._closed:
            return
        started = alive._started
        if started.is_set():
            started.clear()
            while not alive._closed and not alive._tick():
                pass
        del alive
        started.wait(1.0)


def on_zynq(array: ArrayConfig, board: str = "zcu104", npus: int = 1) -> Board:
    """Another board's processing system around ``npus`` cores of ``array``, for arrays that no Zynq board has."""
    zynq = load_board(board)
    assert isinstance(zynq.build, VivadoBuild)
    ports = tuple(zynq.build.memory_ports[i % len(zynq.build.memory_ports)] for i in range(array.ports + 2))
    clock = zynq.array.clock_mhz
    return replace(
        zynq,
        name=array.name,
        array=replace(array, clock_mhz=clock),
        build=replace(zynq.build, memory_ports=ports, npus=npus),
    )


def open_simulated_board(config: ArrayConfig, setting: str = "1", **options: Any) -> list[NpuIP]:
    """The driver of the board, through the real pynq, on a simulated board with the RTL; slower than rtl.

    ``setting`` is the number of NPUs on it: simulated-board:2.
    """
    if setting not in ("1", "2", "3"):
        raise DeviceError(f"a simulated board has 1 to 3 NPUs, not {setting!r}")
    try:
        described = load_board(config.name)
        processing_system(described)
    except ValueError:
        described = on_zynq(config)
    assert isinstance(described.build, VivadoBuild)
    if setting != "1":
        described = replace(described, build=replace(described.build, npus=int(setting)))
    board = SimulatedBoard(described, **options)
    try:
        with tempfile.TemporaryDirectory(prefix="quarkwave-") as folder:
            npus = open_board(config, board.bitstream(Path(folder)))
    except BaseException:
        board.close()
        raise
    in_use = set(npus)

    def leave(npu: NpuIP) -> None:
        """The last one switches the board off."""
        in_use.discard(npu)
        if not in_use:
            board.close()

    for npu in npus:
        npu.closing.callback(leave, npu)
    return npus
