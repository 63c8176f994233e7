"""The integer golden model as a device: the board's registers and buffers, with NumPy doing the arithmetic.

It reads its program, image and features through the same addresses as the hardware and stops with the same error codes. What a model
without a clock cannot know, the cycle counters, reads 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from driver.device import Buffer, DeviceTimeoutError
from driver.memory import SharedMemory
from hw.golden import execute
from hw.isa import (
    DESCRIPTOR_BYTES,
    FEATURE_BYTES,
    MAGIC,
    REGISTER_BITS,
    VERSION,
    ArrayConfig,
    Control,
    ErrorCode,
    LayerDescriptor,
    Pool,
    ProgramHeader,
    RecordError,
    Register,
)
from hw.stream import StreamLayer, decode_payload, payload_bytes, payload_check, unstripe

MEMORY_BASE = 0x1000_0000
"""Not 0, so that a forgotten address register is an error and not somebody's buffer."""


class _FaultError(Exception):
    """The run stops here."""

    def __init__(self, code: ErrorCode, layer: int) -> None:
        super().__init__(code, layer)
        self.code = code
        self.layer = layer


@dataclass(frozen=True)
class _Decoded:
    """The program that ran last, so that a second image does not decode it again."""

    parts: list[NDArray[np.uint8]]
    """What each port read."""
    header: ProgramHeader
    layers: list[StreamLayer]
    """The layers up to the first fault."""
    fault: _FaultError | None


class GoldenDevice:
    """The bit-exact model on the CPU: needs no hardware, and has no clock.

    A ``driver.device.Device`` for ``config`` with ``memory_bytes`` of memory, of which only what is used is ever touched.
    """

    kind = "golden"

    def __init__(self, config: ArrayConfig, memory_bytes: int = 1 << 30) -> None:
        self.config = config
        self.memory = SharedMemory(np.zeros(memory_bytes, np.uint8), MEMORY_BASE)
        self._banks = np.zeros((config.total_words, config.cp), np.uint8)
        self._registers = self._reset_values()
        self._taken: dict[int, int] = {}
        """The registers as they were when the run that is on took its START."""
        self._run: Iterator[None] | None = None
        self._layers_done = 0
        """Of the run that is on, or of the last one."""
        self._start_waits = False
        self._events = 0
        """Control.DONE and Control.READY, until CONTROL is read."""
        self._decoded: _Decoded | None = None

    def _reset_values(self) -> dict[int, int]:
        c = self.config
        return {
            Register.ID_MAGIC: MAGIC,
            Register.ID_VERSION: VERSION,
            Register.ID_ARRAY: c.kp << 16 | c.cp,
            Register.ID_MEMORY: c.total_words,
            Register.ID_STREAM: c.acc_depth << 16 | c.stream_bytes,
            Register.RUNS: 0,
        }

    # The Device protocol ---------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> Buffer:
        """Shared memory of ``nbytes``. Raises DeviceError when there is none left."""
        return self.memory.allocate(nbytes)

    def read_register(self, offset: int) -> int:
        """A 32-bit register; 0 where there is none. Reading CONTROL lets a run proceed by one layer, so polling works too."""
        if offset != Register.CONTROL:
            value = self._registers.get(offset)
            if value is None:
                self._check(offset)
                return 0
            return value
        self._proceed()
        events, self._events = self._events, 0
        waiting = Control.START if self._start_waits else 0
        return events | waiting | (Control.IDLE if self._run is None else 0)

    def write_register(self, offset: int, value: int) -> None:
        """Write a 32-bit register. Read-only registers keep their value, and those that configure a run do while a START waits."""
        if offset not in self._registers:
            self._check(offset)
        if not 0 <= value < 1 << 32:
            raise ValueError(f"{value} does not fit a 32-bit register")
        if offset == Register.CONTROL:
            if value & Control.START:
                self._start_waits = True
                self._take_start()
        elif offset < Register.PROGRAM_ADDRESS or (offset < Register.ERROR_CODE and not self._start_waits):
            self._registers[offset] = value

    def wait(self, timeout: float) -> None:
        """Compute until the run that is on is done; return at once if there is none.

        Raises DeviceTimeoutError after ``timeout`` seconds; the run then goes on at the next call.
        """
        deadline = time.monotonic() + timeout
        finished = self._registers[Register.RUNS]
        while self._run is not None and self._registers[Register.RUNS] == finished:
            if time.monotonic() >= deadline:
                raise DeviceTimeoutError(
                    f"the golden model has finished {self._layers_done} layers after {timeout:g} s"
                )
            self._proceed()

    def close(self) -> None:
        """Drop the run in progress and the one that waits, if any."""
        self._run, self._start_waits = None, False

    def _check(self, offset: int) -> None:
        if offset % 4 or not 0 <= offset < 1 << REGISTER_BITS:
            raise ValueError(f"there is no register at {offset:#x}")

    # A run -----------------------------------------------------------------------------------------------------------

    def _take_start(self) -> None:
        """Begin the run that waits, with a copy of the registers, unless another is on."""
        if self._run is None and self._start_waits:
            self._start_waits = False
            self._events |= Control.READY
            self._taken = dict(self._registers)
            self._layers_done = 0
            self._run = self._compute()

    def _proceed(self) -> None:
        """One step of the run in progress, if there is one."""
        if self._run is None:
            return
        error, layer = ErrorCode.NONE, 0
        try:
            next(self._run)
            return
        except StopIteration:
            pass
        except _FaultError as fault:
            if fault.code == ErrorCode.WATCHDOG and not self._taken.get(Register.WATCHDOG):
                self._run = repeat(None)  # the stream ended early and nothing watches: the hardware hangs
                return
            error, layer = fault.code, fault.layer
        self._finish(error, layer)

    def _finish(self, error: ErrorCode, layer: int) -> None:
        """Show what the run came to, and begin the one that waits."""
        self._registers[Register.ERROR_CODE] = error
        self._registers[Register.ERROR_LAYER] = layer
        self._registers[Register.LAYERS_DONE] = self._layers_done
        self._registers[Register.RUNS] = (self._registers[Register.RUNS] + 1) & 0xFFFF_FFFF
        self._events |= Control.DONE
        self._run = None
        self._take_start()

    def _compute(self) -> Iterator[None]:
        """What the hardware does from start to done; yields after each layer."""
        program = self._read_program()
        self._load_image(program.header)
        yield from self._execute(program.header, program.layers)
        if program.fault:
            raise _FaultError(program.fault.code, program.fault.layer)
        self._store_features(program.header)

    def _execute(self, header: ProgramHeader, layers: list[StreamLayer]) -> Iterator[None]:
        """Run ``layers`` on the activation banks; yields after each one."""
        for number, layer in enumerate(layers):
            w, bias, shift, res_shift = (
                part.astype(np.int64) for part in (layer.weights, layer.bias, layer.shift, layer.res_shift)
            )
            execute(layer.descriptor, w, bias, shift, res_shift, self._banks, self.config)
            self._layers_done = number + 1
            yield

    def _address(self, register: int) -> int:
        """A 64-bit address from its pair of registers."""
        return self._taken.get(register + 4, 0) << 32 | self._taken.get(register, 0)

    def _fault(self, code: ErrorCode) -> _FaultError:
        """A fault at the point that the run has reached."""
        return _FaultError(code, self._layers_done)

    def _memory(self, register: int, nbytes: int, code: ErrorCode) -> NDArray[np.uint8]:
        """The memory an address register points to, or the error the bus would answer with."""
        try:
            return self.memory.at(self._address(register), nbytes)
        except IndexError:
            raise self._fault(code) from None

    def _words(self, base: int, count: int) -> NDArray[np.uint8]:
        """Activation words, [count, cp]."""
        if base + count > self.config.total_words:
            raise self._fault(ErrorCode.BAD_ADDRESS)
        return self._banks[base : base + count]

    def _read_program(self) -> _Decoded:
        """What the memory holds at the program's addresses; decoded only when that is not what ran last."""
        nbytes = self._taken.get(Register.PROGRAM_BEATS, 0) * self.config.port_bytes
        addresses = [Register.PROGRAM_ADDRESS + 8 * port for port in range(self.config.ports)]
        parts = [self._memory(address, nbytes, ErrorCode.WEIGHT_READ) for address in addresses]
        last = self._decoded
        if last is None or not all(_equal(a, b) for a, b in zip(parts, last.parts, strict=True)):
            stream = unstripe(parts, self.config)
            header = self._read_header(stream)
            layers, fault = self._decode(memoryview(stream), header)
            self._decoded = last = _Decoded([part.copy() for part in parts], header, layers, fault)
        return last

    def _read_header(self, stream: bytes) -> ProgramHeader:
        """The header, or the first thing that is wrong with it."""
        record = stream[:DESCRIPTOR_BYTES].ljust(DESCRIPTOR_BYTES, b"\0")
        # A wrong magic or version says more than the CRC that fails with it.
        if int.from_bytes(record[:4], "little") != MAGIC:
            raise self._fault(ErrorCode.BAD_MAGIC)
        if int.from_bytes(record[4:6], "little") != VERSION:
            raise self._fault(ErrorCode.BAD_VERSION)
        try:
            header = ProgramHeader.unpack(record)
        except RecordError:
            raise self._fault(ErrorCode.BAD_CRC) from None
        c = self.config
        mine = (c.cp, c.kp, c.stream_bytes, c.acc_depth)
        if (header.cp, header.kp, header.stream_bytes, header.acc_depth) != mine or header.total_words > c.total_words:
            raise self._fault(ErrorCode.WRONG_CONFIGURATION)
        if header.layers == 0:
            raise self._fault(ErrorCode.BAD_DESCRIPTOR)
        return header

    def _decode(self, stream: memoryview, header: ProgramHeader) -> tuple[list[StreamLayer], _FaultError | None]:
        """The layers up to the first fault, and the fault."""
        layers: list[StreamLayer] = []
        at = self.config.padded(DESCRIPTOR_BYTES)
        for number in range(header.layers):
            try:
                layers.append(self._decode_layer(stream[at:], number))
            except _FaultError as fault:
                return layers, fault
            at += self.config.padded(DESCRIPTOR_BYTES) + payload_bytes(layers[-1].descriptor, self.config)
        return layers, None

    def _decode_layer(self, stream: memoryview, number: int) -> StreamLayer:
        record, rest = stream[:DESCRIPTOR_BYTES], stream[self.config.padded(DESCRIPTOR_BYTES) :]
        if len(record) < DESCRIPTOR_BYTES:
            raise _FaultError(ErrorCode.WATCHDOG, number)
        try:
            d = LayerDescriptor.unpack(bytes(record))
        except RecordError:
            raise _FaultError(ErrorCode.BAD_CRC, number) from None
        fault = descriptor_fault(d, self.config)
        if fault:
            raise _FaultError(fault, number)
        payload = bytes(rest[: payload_bytes(d, self.config)])
        if len(payload) < payload_bytes(d, self.config):
            raise _FaultError(ErrorCode.WATCHDOG, number)
        if payload_check(payload, self.config) != d.payload_check:
            raise _FaultError(ErrorCode.BAD_PAYLOAD, number)
        return decode_payload(d, payload, self.config)

    def _load_image(self, header: ProgramHeader) -> None:
        sent = header.image_beats * self.config.port_bytes
        if not 0 < sent <= self.config.cp:
            raise _FaultError(ErrorCode.WRONG_CONFIGURATION, 0)
        nbytes = header.image_words * sent
        image = self._memory(Register.IMAGE_ADDRESS, nbytes, ErrorCode.IMAGE_READ)
        self._words(header.image_base, header.image_words)[:, :sent] = image.reshape(-1, sent)

    def _store_features(self, header: ProgramHeader) -> None:
        nbytes = header.feature_words * self.config.cp
        words = self._words(header.feature_base, header.feature_words)
        self._memory(Register.FEATURE_ADDRESS, nbytes, ErrorCode.FEATURE_WRITE)[:] = words.reshape(-1)


def _equal(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    """Whether both hold the same bytes; eight at a time where they come in eights, since programs are large."""
    if a.size != b.size:
        return False
    return np.array_equal(a.view(np.uint64), b.view(np.uint64)) if a.size % 8 == 0 else np.array_equal(a, b)


def descriptor_fault(d: LayerDescriptor, config: ArrayConfig) -> ErrorCode:
    """BAD_DESCRIPTOR or BAD_ADDRESS when the array cannot run ``d``, else NONE."""
    reads = (d.in_width, d.in_height, d.in_blocks, d.kernel_h, d.kernel_w, d.stride)
    writes = (d.out_width, d.out_height, d.out_blocks, d.tile_rows, d.tiles)
    covered = d.tile_rows * d.tiles
    if 0 in reads + writes or d.tile_rows * d.out_width > config.acc_depth or d.clip_low > d.clip_high:
        return ErrorCode.BAD_DESCRIPTOR
    if not covered - d.tile_rows < d.out_height <= covered:
        return ErrorCode.BAD_DESCRIPTOR
    if d.pool_mode in (Pool.MAX, Pool.AVERAGE) and (
        0 in (d.pooled_width, d.pooled_height)
        or d.pooled_width > config.pool_columns
        or d.pool_pad >= min(d.pool_kernel, d.pool_stride)
    ):
        return ErrorCode.BAD_DESCRIPTOR

    channels = d.out_blocks * config.kp
    blocks = config.blocks_in(channels)
    out_words = {
        Pool.NONE: blocks * d.out_height * d.out_width,
        Pool.GLOBAL_SUM: math.ceil(FEATURE_BYTES * channels / config.cp),
    }.get(Pool(d.pool_mode), blocks * d.pooled_height * d.pooled_width)
    first_input = d.in_origin + d.pad_top * d.in_width + d.pad_left
    spans = [(first_input, d.in_blocks * d.in_height * d.in_width), (d.out_base, out_words)]
    if d.res_enable:
        spans.append((d.res_base, blocks * d.out_height * d.out_width))
    if any(base < 0 or base + length > config.total_words for base, length in spans):
        return ErrorCode.BAD_ADDRESS
    return ErrorCode.NONE
