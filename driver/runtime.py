"""One runtime for every device: load a program, run images, read results, counters and errors.

The register sequence below is the same on a board, on the Verilated RTL and on the golden model. One worker thread owns the device, so
an ``Npu`` may be shared by threads and awaited from asyncio (``await asyncio.wrap_future(npu.run_async(image))``); images are checked
and packed in the caller's thread, while the device computes the one before.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driver.device import Buffer, Device, DeviceError
from hw.isa import LAYER_COUNTERS_MAX, MAGIC, VERSION, ArrayConfig, Control, ErrorCode, Register
from hw.program import Program, ProgramError
from hw.stream import stripe

WATCHDOG_CYCLES = 1 << 20
"""Default cycles without progress before the NPU gives up: 3.5 ms at 300 MHz, thousands of memory latencies."""
TIMEOUT = 600.0
"""Default seconds for one image: a whole ResNet-50 in simulated RTL takes a minute."""


class NpuError(DeviceError):
    """The NPU stopped with an error code. The next run starts clean."""

    def __init__(self, code: ErrorCode, layer: int, layer_name: str) -> None:
        super().__init__(f"the NPU stopped with {code.name} at layer {layer} ({layer_name}): {code.meaning}")
        self.code = code
        self.layer = layer
        self.layer_name = layer_name


@dataclass(frozen=True)
class LayerCounters:
    """What one layer cost, in cycles."""

    name: str
    cycles: int
    mac_busy: int
    weight_stall: int
    drain: int


@dataclass(frozen=True)
class Counters:
    """What one image cost, in cycles, as the device counted it; all 0 on a device without a clock. Meanings: hw.isa.Register."""

    cycles: int
    mac_busy: int
    weight_stall: int
    image_stall: int
    drain: int
    overhead: int
    layers_done: int
    layers: tuple[LayerCounters, ...] = ()
    """The first LAYER_COUNTERS_MAX layers; empty where they were not read."""

    def utilisation(self, macs: int, config: ArrayConfig) -> float:
        """Multiply-accumulates of the network per one the array could have done; not a number where no cycles were counted."""
        return macs / (self.cycles * config.macs) if self.cycles else float("nan")


@dataclass(frozen=True)
class Result:
    """The answer to one image."""

    result: NDArray[Any]
    """The integers as the NPU computed them, shape and type of ``Program.output``."""
    features: NDArray[np.float32]
    """Their real values (``Program.features``)."""
    counters: Counters
    seconds: float
    """Wall time from handing the image over to having the result back."""


@dataclass(frozen=True)
class _Loaded:
    """A program and the buffers that belong to it."""

    program: Program
    weights: tuple[Buffer, ...]
    image: Buffer
    result: Buffer

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return (*self.weights, self.image, self.result)


class Npu:
    """Runs one program at a time on ``device``, which it owns and closes.

    ``timeout``: seconds for one image. ``watchdog``: see WATCHDOG_CYCLES; 0 switches it off. ``layer_counters``: read every layer's
    counters too (four register reads a layer).
    """

    def __init__(
        self, device: Device, *, timeout: float = TIMEOUT, watchdog: int = WATCHDOG_CYCLES, layer_counters: bool = True
    ) -> None:
        self.device = device
        self._timeout = timeout
        self._watchdog = watchdog
        self._layer_counters = layer_counters
        self._loaded: _Loaded | None = None
        self._closed = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="npu")

    def load(self, program: Program | str | Path) -> Program:
        """Put a program (or a program file) into the device's memory, in place of the one before; returns it.

        Raises ProgramError or OSError for a bad file, DeviceError when it was compiled for another array or memory is short; the
        program loaded before then stays.
        """
        if not isinstance(program, Program):
            program = Program.load(program)
        self._worker.submit(self._load, program).result()
        return program

    @property
    def program(self) -> Program:
        """The program that is loaded. Raises DeviceError when there is none."""
        return self._current().program

    def run(self, image: NDArray[np.uint8]) -> Result:
        """Compute one image, uint8 [height, width, channels].

        Raises ValueError for another shape or type, NpuError when the NPU reports an error, DeviceTimeoutError when it does not
        finish. After any of them the next run works.
        """
        return self.run_async(image).result()

    def run_async(self, image: NDArray[np.uint8]) -> Future[Result]:
        """Like run(), without waiting: the future has the result. Images run in the order of the calls.

        A bad image raises ValueError here; the device's errors come from the future.
        """
        loaded = self._current()
        words = loaded.program.pack_image(image)
        return self._worker.submit(self._run, loaded, words)

    def close(self) -> None:
        """Finish the image that is running, cancel those that wait, free the buffers and close the device. May be called again."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        if self._closed:
            return
        self._closed = True
        if self._loaded is not None:
            _free(self._loaded.buffers)
            self._loaded = None
        self.device.close()

    def __enter__(self) -> Npu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _current(self) -> _Loaded:
        if self._loaded is None:
            raise DeviceError("no program is loaded: call load() first")
        return self._loaded

    # In the worker's thread ------------------------------------------------------------------------------------------

    def _load(self, program: Program) -> None:
        check_fits(self.device, program)
        _check_image(program)
        self._become_idle()
        taken: list[Buffer] = []

        def filled(data: NDArray[np.uint8]) -> Buffer:
            taken.append(self.device.allocate(len(data)))
            taken[-1].array[: len(data)] = data
            taken[-1].flush()
            return taken[-1]

        header, cp = program.header, self.device.config.cp
        try:
            weights = tuple(filled(part) for part in stripe(program.stream, self.device.config))
            image = filled(np.zeros(program.image_bytes, np.uint8))
            result = filled(np.zeros(header.feature_words * cp, np.uint8))
        except BaseException:
            _free(taken)
            raise
        if self._loaded is not None:
            _free(self._loaded.buffers)
        self._loaded = _Loaded(program, weights, image, result)

    def _run(self, loaded: _Loaded, words: NDArray[np.uint8]) -> Result:
        if loaded is not self._loaded:
            raise DeviceError("another program was loaded before this image could run: run it again")
        begin = time.perf_counter()
        program, device = loaded.program, self.device
        self._become_idle()

        loaded.image.array[: words.size] = words.reshape(-1)
        loaded.image.flush()
        for port, part in enumerate(loaded.weights):
            self._write_address(Register.PROGRAM_ADDRESS + 8 * port, part.address)
        self._write_address(Register.IMAGE_ADDRESS, loaded.image.address)
        self._write_address(Register.FEATURE_ADDRESS, loaded.result.address)
        device.write_register(Register.PROGRAM_BEATS, program.beats)
        device.write_register(Register.WATCHDOG, self._watchdog)
        device.write_register(Register.CONTROL, Control.START)
        device.wait(self._timeout)
        control = device.read_register(Register.CONTROL)  # clears DONE
        if not control & Control.IDLE:
            raise DeviceError(f"the {device.kind} device signalled done, but CONTROL reads {control:#x}: not idle")
        self._raise_error(program)

        loaded.result.invalidate()
        result = program.read_result(loaded.result.array[: program.result_bytes])
        features = program.features(result)
        return Result(result, features, self._read_counters(program), time.perf_counter() - begin)

    def _become_idle(self) -> None:
        """Let a run that timed out come to its end, and forget it: START would be ignored while it lasts."""
        device = self.device
        if not device.read_register(Register.CONTROL) & Control.IDLE:
            device.wait(self._timeout)
            device.read_register(Register.CONTROL)
        pending = device.read_register(Register.INTERRUPT_STATUS)
        if pending:  # toggles on write; left standing, it would end the next wait at once
            device.write_register(Register.INTERRUPT_STATUS, pending)

    def _raise_error(self, program: Program) -> None:
        value = self.device.read_register(Register.ERROR_CODE)
        if value == ErrorCode.NONE:
            return
        layer = self.device.read_register(Register.ERROR_LAYER)
        name = program.layer_names[layer] if layer < len(program.layer_names) else "after the last layer"
        try:
            code = ErrorCode(value)
        except ValueError:
            raise DeviceError(
                f"the {self.device.kind} device reports error {value}, which this software lacks"
            ) from None
        raise NpuError(code, layer, name)

    def _read_counters(self, program: Program) -> Counters:
        read = self.device.read_register
        layers = []
        if self._layer_counters:
            for number, name in enumerate(program.layer_names[:LAYER_COUNTERS_MAX]):
                first = Register.LAYER_COUNTERS + 16 * number
                layers.append(LayerCounters(name, *(read(first + 4 * i) for i in range(4))))
        return Counters(
            cycles=read(Register.CYCLES),
            mac_busy=read(Register.MAC_BUSY),
            weight_stall=read(Register.WEIGHT_STALL),
            image_stall=read(Register.IMAGE_STALL),
            drain=read(Register.DRAIN),
            overhead=read(Register.OVERHEAD),
            layers_done=read(Register.LAYERS_DONE),
            layers=tuple(layers),
        )

    def _write_address(self, register: int, address: int) -> None:
        self.device.write_register(register, address & 0xFFFF_FFFF)
        self.device.write_register(register + 4, address >> 32)


def check_fits(device: Device, program: Program) -> None:
    """Raise DeviceError, saying what differs, unless ``program`` was compiled for what the device's ID registers describe."""
    read = device.read_register
    if read(Register.ID_MAGIC) != MAGIC:
        raise DeviceError(
            f"the {device.kind} device is no NPU (its ID register reads {read(Register.ID_MAGIC):#x}, not {MAGIC:#x}): "
            "is the right bitstream loaded?"
        )
    if read(Register.ID_VERSION) != VERSION:
        raise DeviceError(
            f"the {device.kind} device has instruction set {read(Register.ID_VERSION)}, this software has {VERSION}: "
            "use a bitstream and a program of the same release"
        )
    array, stream, c = read(Register.ID_ARRAY), read(Register.ID_STREAM), program.config
    facts = {
        "cp": (array & 0xFFFF, c.cp),
        "kp": (array >> 16, c.kp),
        "activation words": (read(Register.ID_MEMORY), c.total_words),
        "stream bytes": (stream & 0xFFFF, c.stream_bytes),
        "acc_depth": (stream >> 16, c.acc_depth),
    }
    wrong = [f"{name} is {has}, the program needs {needs}" for name, (has, needs) in facts.items() if has != needs]
    if wrong:
        raise DeviceError(
            f"program {program.name!r} was compiled for {c.name!r}, which this {device.kind} device is not "
            f"({'; '.join(wrong)}): compile it for {device.config.name!r}"
        )


def _check_image(program: Program) -> None:
    """Raise ProgramError unless host and hardware agree on the size of the packed image."""
    layout, header = program.image, program.header
    config = program.config
    words = config.blocks_in(layout.lanes) * layout.rows * layout.cols
    sent = layout.word_bytes(config.cp, config.port_bytes)
    if (words, sent) != (header.image_words, program.image_word_bytes):
        raise ProgramError(
            f"program {program.name!r}: its image layout fills {words} words of {sent} bytes, "
            f"its header says {header.image_words} of {program.image_word_bytes}: compile it again"
        )


def _free(buffers: tuple[Buffer, ...] | list[Buffer]) -> None:
    for buffer in buffers:
        buffer.free()
