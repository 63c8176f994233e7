"""A board with a layer-pipelined network of the HLS route: the real pynq package, our driver unchanged, and the network's C simulation.

What stands in for hardware and kernel: a ``pynq.Device`` whose registers are those of an AXI DMA in simple mode (PG021, "Register Space")
or, on a card, of the two kernels that Vitis HLS makes of hls/vitis/cpp/movers.cpp (UG1399, "S_AXILITE Control Register Map"). Each buffer
has a host copy, so that a missing flush or invalidate is a wrong answer. Transfers take no time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pynq
from numpy.typing import NDArray
from pynq.buffer import PynqBuffer
from pynq.pl_server.xclbin_parser import _xclxml_to_ip_dict

from driver.device import DeviceError
from driver.streamed import BEAT_BYTES, StreamedNetwork
from hls.vitis import link
from hls.vitis.ports import NETWORK
from sim.contiguous import ContiguousMemory

Run = Callable[[NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.bool_]]]
"""The network: bytes [images, n] to bytes and TLAST; ``Chain.run_beats``."""
BASE, MEMORY_BASE = 0xA000_0000, 0x1000_0000
KERNEL_STRIDE = 0x1_0000
HALTED, IDLE, INTERNAL_ERROR, DECODE_ERROR, COMPLETE = 1 << 0, 1 << 1, 1 << 4, 1 << 6, 1 << 12
RUN_STOP, RESET = 1 << 0, 1 << 2
CONTROL, STATUS, ADDRESS, ADDRESS_HIGH, LENGTH = 0x00, 0x04, 0x18, 0x1C, 0x28
S2MM = 0x30
"""Offset of the second channel's registers."""
DMA_PARAMETERS = {
    "c_include_sg": "0",
    "c_sg_length_width": "26",
    "c_include_mm2s": "1",
    "c_include_s2mm": "1",
    "c_m_axi_mm2s_data_width": "32",
    "c_m_axi_s2mm_data_width": "32",
}
"""As stitch.tcl configures it."""
KERNEL_XML = """<kernel name="{name}" language="c" vlnv="xilinx.com:hls:{name}:1.0" hwControlProtocol="ap_ctrl_hs">
<port name="m_axi_gmem" mode="master" range="0xFFFFFFFFFFFFFFFF" dataWidth="32" portType="addressable" base="0x0"/>
<port name="s_axi_control" mode="slave" range="0x1000" dataWidth="32" portType="addressable" base="0x0"/>
<port name="{stream}" mode="{mode}" dataWidth="32" portType="stream"/>
<arg name="{pointer}" id="0" port="m_axi_gmem" addressQualifier="1" offset="0x10" size="0x8" hostOffset="0x0" hostSize="0x8" type="void*"/>
<arg name="beats" id="1" port="s_axi_control" addressQualifier="0" offset="0x1C" size="0x4" hostOffset="0x0" hostSize="0x4" type="uint"/>
<arg name="{stream}" id="2" port="{stream}" addressQualifier="4" offset="0x24" size="0x4" hostOffset="0x0" hostSize="0x4" type="stream"/>
<instance name="{name}_1"><addrRemap base="{base:#x}" range="0x1000"/></instance>
</kernel>"""
"""A kernel's part of an .xclbin's EMBEDDED_METADATA."""


class _Network:
    """The streams on both sides of the network: bytes go in, packets that TLAST ends come out."""

    def __init__(self, network: StreamedNetwork, run: Run) -> None:
        self._network, self._run = network, run
        self._pending = b""
        self.beats: list[tuple[bytes, bool]] = []
        self.frozen = False

    def send(self, data: bytes) -> None:
        """Bytes of images; whole ones are computed."""
        self._pending += data
        size = self._network.image.nbytes
        count = 0 if self.frozen else len(self._pending) // size
        if count:
            whole, self._pending = self._pending[: count * size], self._pending[count * size :]
            features, last = self._run(np.frombuffer(whole, np.uint8).reshape(count, size))
            flat = features.reshape(-1, BEAT_BYTES)
            self.beats += [(beat.tobytes(), bool(end)) for beat, end in zip(flat, last.reshape(-1), strict=True)]

    def take(self, beats: int, until_last: bool) -> tuple[bytes, bool]:
        """Up to ``beats`` of what came out, as far as TLAST if it ends a transfer; and whether it came."""
        found = b""
        while self.beats and beats:
            beat, last = self.beats.pop(0)
            found, beats = found + beat, beats - 1
            if last and until_last:
                return found, True
        return found, False


class SimulatedHlsBoard(ContiguousMemory):
    """A Zynq board, or a ``card``, on which ``network`` is computed by ``run``. Becomes PYNQ's active device."""

    def __init__(self, network: StreamedNetwork, run: Run, card: bool = False, memory_bytes: int = 16 << 20) -> None:
        super().__init__(f"simulated-hls-{'card' if card else 'zynq'}", MEMORY_BASE, memory_bytes)
        self.name = "simulated-hls"
        self.capabilities = {"REGISTER_RW": True, "CALLABLE": card}
        self.network, self._run, self._card = network, run, card
        self._memory = np.random.default_rng(1).integers(0, 256, memory_bytes, np.uint8)
        self.banks_used: list[str] = []
        self._reset()
        pynq.Device.active_device = self

    def _reset(self) -> None:
        self.streams = _Network(self.network, self._run)
        self._registers: dict[int, int] = {STATUS: HALTED, S2MM + STATUS: HALTED}
        self._armed: tuple[int, int] | None = None
        """Where the features go, and how many bytes have room there."""

    # What PYNQ asks of a device --------------------------------------------------------------------------------------

    def get_bitfile_metadata(self, bitfile_name: str, **_: Any) -> Any:
        """What PYNQ's parsers of .hwh and .xclbin make of our designs."""
        if self._card:
            kernels = (
                (link.READER, "images", "pixels", "write_only"),
                (link.WRITER, "features", "results", "read_only"),
            )
            text = "".join(
                KERNEL_XML.format(name=name, pointer=pointer, stream=stream, mode=mode, base=BASE + n * KERNEL_STRIDE)
                for n, (name, pointer, stream, mode) in enumerate(kernels)
            )
            ip_dict = _xclxml_to_ip_dict(
                f"<project><platform><device><core>{text}</core></device></platform></project>", "00" * 16
            )
            for number, (name, pointer, stream, _mode) in enumerate(kernels):
                ip_dict[f"{name}_1"]["registers"][pointer]["memory"] = f"bank{number}"
                ip_dict[f"{name}_1"]["streams"][stream]["stream_id"] = f"dc_{number}"
        else:
            dma = {"phys_addr": BASE, "addr_range": 0x1_0000, "type": "xilinx.com:ip:axi_dma:7.1", "fullpath": "dma"}
            dma |= {
                "parameters": dict(DMA_PARAMETERS),
                "registers": {},
                "interrupts": {},
                "gpio": {},
                "state": None,
                "driver": None,
            }
            ip_dict = {"dma": dma}
        empty: dict[str, Any] = {}
        names = ("mem_dict", "clock_dict", "gpio_dict", "interrupt_pins", "interrupt_controllers", "hierarchy_dict")
        return SimpleNamespace(ip_dict=ip_dict, systemgraph=None, **{name: dict(empty) for name in names})

    def download(self, bitstream: Any, parser: Any = None) -> None:
        """Reset the logic. The memory keeps what it held."""
        self._reset()
        super().post_download(bitstream, parser)

    @property
    def default_memory(self) -> SimulatedHlsBoard:
        """A Zynq board has one memory."""
        if self._card:
            raise RuntimeError("Multiple memories active in design: specify the memory using the `target` parameters")
        return self

    def get_memory_by_name(self, name: str) -> Any:
        """A bank of the card, or a stream between kernels."""
        return _Bank(self, name)

    def load(self, address: int, size: int) -> NDArray[np.uint8]:
        """See ContiguousMemory."""
        return self._at(address, size)

    def store(self, address: int, data: NDArray[np.uint8]) -> None:
        """See ContiguousMemory."""
        self._at(address, len(data))[:] = data

    def read_registers(self, address: int, length: int) -> bytes:
        """Registers of the DMA or of the kernels."""
        return b"".join(self._read(at - BASE).to_bytes(4, "little") for at in range(address, address + length, 4))

    def write_registers(self, address: int, data: bytes) -> None:
        """Write registers of the DMA or of the kernels."""
        write = self._write_kernel if self._card else self._write_dma
        for start in range(0, len(data), 4):
            write(address + start - BASE, int.from_bytes(data[start : start + 4], "little"))

    # The board's own -------------------------------------------------------------------------------------------------

    def bitstream(self, folder: Path) -> Path:
        """Write an empty bitstream and network.json into ``folder``; the path of the former."""
        (folder / NETWORK).write_text(self.network.json())
        path = folder / (link.XCLBIN if self._card else "network.bit")
        path.touch()
        return path

    def _at(self, address: int, size: int) -> NDArray[np.uint8]:
        start = address - MEMORY_BASE
        if not 0 <= start <= start + size <= len(self._memory):
            raise DeviceError(f"no memory at {address:#x}")
        return self._memory[start : start + size]

    def _read(self, offset: int) -> int:
        if self._card and offset % KERNEL_STRIDE == CONTROL:
            return self._kernel_status(offset // KERNEL_STRIDE)
        return self._registers.get(offset, 0)

    # The AXI DMA -----------------------------------------------------------------------------------------------------

    def _write_dma(self, offset: int, value: int) -> None:
        base = S2MM if offset >= S2MM else 0
        match offset - base:
            case 0x00 if value & RESET:
                self._registers = {STATUS: HALTED, S2MM + STATUS: HALTED}
                self._armed = None
            case 0x00:
                self._registers[offset] = value
                self._registers[base + STATUS] = 0 if value & RUN_STOP else HALTED
            case 0x04:
                self._registers[offset] &= ~(value & 0x7000)  # interrupts are cleared by writing ones
            case 0x28:
                self._registers[offset] = value
                self._transfer(base, value)
            case _:
                self._registers[offset] = value
        self._receive()

    def _transfer(self, base: int, length: int) -> None:
        """LENGTH was written, which starts a transfer."""
        if self._registers[base + STATUS] & HALTED:
            return
        self._registers[base + STATUS] &= ~IDLE
        address = self._registers.get(base + ADDRESS, 0) | self._registers.get(base + ADDRESS_HIGH, 0) << 32
        try:
            where = self._at(address, length)
        except DeviceError:
            self._halt(base, DECODE_ERROR)
            return
        if not length:
            self._halt(base, INTERNAL_ERROR)
        elif base == S2MM:
            self._armed = (address, length)
        else:
            self.streams.send(where.tobytes())
            self._registers[STATUS] |= 0 if self.streams.frozen else IDLE | COMPLETE

    def _receive(self) -> None:
        """What came out of the network goes where S2MM was told, once a packet is whole."""
        if self._armed is None or not self.streams.beats:
            return
        address, length = self._armed
        data, whole = self.streams.take(length // BEAT_BYTES, until_last=True)
        self._at(address, len(data))[:] = np.frombuffer(data, np.uint8)
        self._registers[S2MM + LENGTH] = len(data)
        self._armed = None
        if whole:
            self._registers[S2MM + STATUS] |= IDLE | COMPLETE
        else:  # the packet is longer than the transfer
            self._halt(S2MM, INTERNAL_ERROR)

    def _halt(self, base: int, error: int) -> None:
        self._registers[base + STATUS] = HALTED | error

    # The kernels -----------------------------------------------------------------------------------------------------

    def _write_kernel(self, offset: int, value: int) -> None:
        number, register = divmod(offset, KERNEL_STRIDE)
        self._registers[offset] = value
        if register == CONTROL and value & 1:
            address = self._argument(number, 0x10) | self._argument(number, 0x14) << 32
            beats = self._argument(number, 0x1C)
            if number == 0:
                self.streams.send(self._at(address, BEAT_BYTES * beats).tobytes())
            else:
                self._armed = (address, BEAT_BYTES * beats)

    def _argument(self, number: int, register: int) -> int:
        return self._registers.get(number * KERNEL_STRIDE + register, 0)

    def _kernel_status(self, number: int) -> int:
        """ap_idle: the writer is busy until it has all its beats, the reader while the network takes none."""
        if number == 0:
            return 0 if self.streams.frozen else 4
        if self._armed and len(self.streams.beats) * BEAT_BYTES >= self._armed[1]:
            address, length = self._armed
            data, _ = self.streams.take(length // BEAT_BYTES, until_last=False)
            self._at(address, length)[:] = np.frombuffer(data, np.uint8)
            self._armed = None
        return 0 if self._armed else 4


class _Bank:
    """A memory bank of the card."""

    def __init__(self, board: SimulatedHlsBoard, name: str) -> None:
        self._board, self._name = board, name

    def allocate(self, shape: Any, dtype: Any) -> PynqBuffer:
        """From the card's memory."""
        self._board.banks_used.append(self._name)
        return self._board.allocate(shape, dtype)
