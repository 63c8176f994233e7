"""The register sequence of a run, the same on a board, on the Verilated RTL and on the golden model, and what the registers then say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from driver.device import Device, DeviceError
from hw.isa import LAYER_COUNTERS_MAX, MAGIC, VERSION, ArrayConfig, Control, ErrorCode, Register
from hw.program import Program


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
class Outcome:
    """What the registers say of a finished run: the integers of ERROR_CODE and ERROR_LAYER, and the counters."""

    error: int
    error_layer: int
    counters: Counters

    def check(self, program: Program) -> None:
        """Raise NpuError if the run failed, DeviceError if with an error that this software does not know."""
        if self.error == ErrorCode.NONE:
            return
        names = program.layer_names
        name = names[self.error_layer] if self.error_layer < len(names) else "after the last layer"
        try:
            code = ErrorCode(self.error)
        except ValueError:
            raise DeviceError(f"the device reports error {self.error}, which this software lacks") from None
        raise NpuError(code, self.error_layer, name)


class RunRegisters:
    """Starts runs of a program through ``device``'s registers, and reads what became of them.

    Runs have numbers: the value of Register.RUNS once they have finished, modulo 2**32.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._written: dict[int, int] = {}
        """What registers hold that keep their value from run to run."""

    def start(self, program: Program, weights: Sequence[int], image: int, result: int, watchdog: int) -> None:
        """Write what has changed of the device addresses, and START. The caller sees to it that no START waits."""
        for port, address in enumerate(weights):
            self._write_address(Register.PROGRAM_ADDRESS + 8 * port, address)
        self._write_address(Register.IMAGE_ADDRESS, image)
        self._write_address(Register.FEATURE_ADDRESS, result)
        self._write(Register.PROGRAM_BEATS, program.beats)
        self._write(Register.WATCHDOG, watchdog)
        self._device.write_register(Register.CONTROL, Control.START)

    def forget(self) -> None:
        """Somebody else may have written the registers, or reset the device: write them all at the next start."""
        self._written.clear()

    def finished(self) -> int:
        """The number of the last run that finished."""
        return self._device.read_register(Register.RUNS)

    def idle(self) -> bool:
        """Whether no run is on and no START waits."""
        return bool(self._device.read_register(Register.CONTROL) & Control.IDLE)

    def outcome(self, run: int, program: Program, layer_counters: bool) -> Outcome | None:
        """The outcome of ``run``; None unless it is the last one that has finished."""
        outcome = Outcome(
            self._device.read_register(Register.ERROR_CODE),
            self._device.read_register(Register.ERROR_LAYER),
            self._read_counters(program.layer_names[:LAYER_COUNTERS_MAX] if layer_counters else ()),
        )
        return outcome if self.finished() == run else None

    def _read_counters(self, layer_names: Sequence[str]) -> Counters:
        read = self._device.read_register
        layers = []
        for number, name in enumerate(layer_names):
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
        self._write(register, address & 0xFFFF_FFFF)
        self._write(register + 4, address >> 32)

    def _write(self, register: int, value: int) -> None:
        if self._written.get(register) != value:
            self._written.pop(register, None)
            self._device.write_register(register, value)
            self._written[register] = value


def number_after(run: int, steps: int = 1) -> int:
    """The number of the run that comes ``steps`` after ``run``."""
    return (run + steps) & 0xFFFF_FFFF


def has_finished(run: int, last: int) -> bool:
    """Whether the run numbered ``run`` has finished when ``last`` is the last one that has; right for 2**31 runs either way."""
    return (last - run) & 0xFFFF_FFFF < 1 << 31


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
