"""Checks of the control path: who answers, every register bit, the ports of a first run, the interrupt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from driver.registers import number_after
from driver.selftest.bench import Bench
from driver.selftest.builder import Builder
from driver.selftest.findings import CheckError, NotApplicableError, Seen
from hw.image_layout import ImageLayout
from hw.isa import MAGIC, VERSION, ArrayConfig, Control, ErrorCode, Register
from hw.program import Program
from hw.registers import InterruptEnable, InterruptStatus

SETTINGS = tuple(range(Register.PROGRAM_ADDRESS, Register.WATCHDOG + 4, 4))
"""Registers of which every bit can be written."""
READ_ONLY = (
    Register.ID_MAGIC,
    Register.ID_VERSION,
    Register.ID_ARRAY,
    Register.ID_MEMORY,
    Register.ID_STREAM,
    Register.RUNS,
)
UNMAPPED = (0x48, 0x58, 0x94)
ALL = 0xFFFF_FFFF
CLASSICS = (0, ALL, 0xAAAA_AAAA, 0x5555_5555)
BUS = "the AXI4-Lite path between processor and NPU: load the bitstream again; if it stays, the clock is too high or the bitstream is bad"
INTERRUPTS, INTERRUPT_RUNS = 4, 24
"""Interrupts that are wanted, and runs that may take: on a busy host the driver sees the end of a run before its interrupt is served."""
INTERRUPT_SECONDS = 0.25
"""How long an interrupt may take to be served after the end of its run."""


def identity(bench: Bench) -> Seen:
    """The ID registers describe an NPU of this release, with the array that is expected."""
    read = bench.device.read_register
    magic, version = read(Register.ID_MAGIC), read(Register.ID_VERSION)
    if magic != MAGIC:
        raise CheckError(
            f"no NPU answers: the ID register reads {magic:#010x}, not {MAGIC:#010x}",
            "the bitstream is not ours, is not loaded, or does not belong to this .hwh: load the right one",
        )
    if version != VERSION:
        raise CheckError(
            f"instruction set {version}, this software has {VERSION}", "take bitstream and software from one release"
        )
    array, stream = read(Register.ID_ARRAY), read(Register.ID_STREAM)
    text = (
        f"{array & 0xFFFF} x {array >> 16} multipliers, {read(Register.ID_MEMORY)} activation words, "
        f"{stream & 0xFFFF} weight bytes a cycle"
    )
    wanted = bench.expected
    if wanted and bench.config and _shape(wanted) == _shape(bench.config):
        return Seen(f"{text}: {wanted.name}")
    if wanted or not bench.config:
        name = wanted.name if wanted else "any of hw/boards"
        is_it = f", it is {bench.config.name}'s" if bench.config else ""
        raise CheckError(
            f"{text}: that is not {name}{is_it}",
            f"the wrong bitstream is loaded: load the one of {name}, or compile the program for what is there",
        )
    return Seen(f"{text}: {bench.config.name}")


def _shape(c: ArrayConfig) -> tuple[int, ...]:
    return c.cp, c.kp, c.total_words, c.stream_bytes, c.acc_depth, c.ports


def registers(bench: Bench) -> Seen:
    """Every bit that can be written holds 0 and 1 by itself, status bits toggle, and what is read-only stays."""
    if bench.is_model:
        raise NotApplicableError("a model of the arithmetic has no hardware registers")
    wrong: dict[int, int] = {}
    with _quiet(bench):
        _walk(bench, wrong)
        _small_registers(bench, wrong)
    if wrong:
        first, bits = next(iter(wrong.items()))
        stuck = [bit for bit in range(32) if bits >> bit & 1]
        raise CheckError(
            f"{len(wrong)} registers do not hold what is written, the first {_name(first)} in bits {stuck}", BUS
        )
    for register in READ_ONLY:
        before = bench.device.read_register(register)
        bench.device.write_register(register, ~before & ALL)
        if bench.device.read_register(register) != before:
            raise CheckError(f"{_name(register)} is read-only and was overwritten", BUS)
    for offset in UNMAPPED:
        bench.device.write_register(offset, ALL)
        if bench.device.read_register(offset):
            raise CheckError(f"{offset:#x} is no register, and holds a value", BUS)
    bits = 32 * len(SETTINGS) + 3 + 2
    return Seen(f"{bits} bits of {len(SETTINGS) + 3} registers, {len(READ_ONLY)} read-only ones", {"bits": bits})


@contextmanager
def _quiet(bench: Bench) -> Iterator[None]:
    """The registers as they were, at the end; meanwhile no interrupt reaches the line."""
    read, write = bench.device.read_register, bench.device.write_register
    kept = {r: read(r) for r in (*SETTINGS, Register.INTERRUPT_ENABLE, Register.GLOBAL_INTERRUPT_ENABLE)}
    write(Register.GLOBAL_INTERRUPT_ENABLE, 0)
    try:
        yield
    finally:
        write(Register.INTERRUPT_STATUS, read(Register.INTERRUPT_STATUS))
        for register, value in kept.items():
            write(register, value)


def _walk(bench: Bench, wrong: dict[int, int]) -> None:
    """Patterns, walking ones, and a value of its own for each register, through all settings at a time."""
    patterns = [[value] * len(SETTINGS) for value in (*CLASSICS, *(1 << bit for bit in range(32)))]
    patterns.append([0x0101_0101 * (number + 1) for number in range(len(SETTINGS))])
    for values in patterns:
        for register, value in zip(SETTINGS, values, strict=True):
            bench.device.write_register(register, value)
        for register, value in zip(SETTINGS, values, strict=True):
            _compare(wrong, register, bench.device.read_register(register), value)


def _small_registers(bench: Bench, wrong: dict[int, int]) -> None:
    read, write = bench.device.read_register, bench.device.write_register
    for register, values in (
        (Register.INTERRUPT_ENABLE, (0, *InterruptEnable, sum(InterruptEnable))),
        (Register.GLOBAL_INTERRUPT_ENABLE, (1, 0)),
    ):
        write(Register.INTERRUPT_STATUS, read(Register.INTERRUPT_STATUS))  # nothing pending that could reach the line
        for value in values:
            write(register, value)
            _compare(wrong, register, read(register), value)
    expected = 0
    for bit in (*InterruptStatus, *InterruptStatus):  # writing 1 toggles
        write(Register.INTERRUPT_STATUS, bit)
        expected ^= bit
        _compare(wrong, Register.INTERRUPT_STATUS, read(Register.INTERRUPT_STATUS), expected)


def _compare(wrong: dict[int, int], register: int, found: int, expected: int) -> None:
    if found != expected:
        wrong[register] = wrong.get(register, 0) | (found ^ expected)


def _name(offset: int) -> str:
    last = max(register for register in Register if register <= offset)
    return last.name if last == offset else f"{last.name}+{offset - last}"


# A first run ---------------------------------------------------------------------------------------------------------


def tiny_program(config: ArrayConfig) -> Program:
    """A 1x1 convolution of 16 pixels: fetches weights, reads an image, writes a result."""
    b = Builder("first run", config, ImageLayout.plain(4, 4, config.cp))
    b.conv(b.image, np.ones((config.kp, config.cp, 1, 1), np.int64), shift=8)
    return b.program()


def ports(bench: Bench) -> Seen:
    """Every memory port answers in a first run, and the control register tells of it once. What they carry is checked later."""
    program = tiny_program(bench.array)
    with bench.keep():
        image, result = bench.buffer(program.image_bytes), bench.buffer(program.result_bytes)
        before = bench.registers.finished()
        outcome = bench.try_run(program, bench.load(program), image.address, result.address)
        control = [bench.device.read_register(Register.CONTROL) for _ in range(2)]
    code = outcome.error
    if code == ErrorCode.WATCHDOG:
        counters = outcome.counters
        if counters.layers_done == len(program.layer_names):
            port = "the feature port takes no data"
        elif counters.image_stall:
            port = "the image port gives no data"
        else:
            port = "the weight ports give no data" if bench.array.ports > 1 else "the weight port gives no data"
        raise CheckError(
            f"the run stalled: {port}",
            "the AXI path of that port: is the processing system's port enabled, clocked and out of reset? Load the bitstream again",
        )
    if code in (ErrorCode.WEIGHT_READ, ErrorCode.IMAGE_READ, ErrorCode.FEATURE_WRITE):
        outcome.check(program)
    if bench.registers.finished() != number_after(before):
        raise CheckError(f"one run, but {bench.registers.finished() - before} were counted", BUS)
    events = Control.DONE | Control.READY | Control.IDLE
    if control != [events, Control.IDLE]:
        raise CheckError(f"the control register tells {control[0]:#x}, then {control[1]:#x}", BUS)
    answered = f"{bench.array.ports} for weights, image, features"
    return Seen(f"all ports answer ({answered})" + (f", with error {code}" if code else ""))


def interrupt(bench: Bench) -> Seen:
    """The end of a run comes by interrupt, and not because somebody looked."""
    if bench.is_model:
        raise NotApplicableError("a model has no interrupt")
    device: Any = bench.device  # a board's counts its interrupts
    program = tiny_program(bench.array)
    with bench.keep():
        image, result = bench.buffer(program.image_bytes), bench.buffer(program.result_bytes)
        weights = bench.load(program)

        def run() -> None:
            bench.try_run(program, weights, image.address, result.address)

        if not hasattr(device, "uses_interrupt"):
            before = bench.registers.finished()
            bench.registers.forget()
            bench.registers.start(program, weights, image.address, result.address, 0)
            device.wait(bench.timeout)  # returns at the interrupt alone
            if bench.registers.finished() != number_after(before):
                raise CheckError("an interrupt came before the run had ended", BUS)
            return Seen("the end of a run came by interrupt")
        if not device.uses_interrupt:
            raise _no_interrupt(bench)
        first, runs = device.interrupts, 0
        while device.interrupts < first + INTERRUPTS and runs < INTERRUPT_RUNS:
            before, runs = device.interrupts, runs + 1
            run()
            end = time.monotonic() + INTERRUPT_SECONDS
            while device.interrupts == before and time.monotonic() < end:
                time.sleep(0.001)
    came = device.interrupts - first
    if came < INTERRUPTS:
        raise CheckError(
            f"{came} of {runs} runs came by interrupt; the driver polls instead, which costs time only",
            "the interrupt line: is it wired to the line that the kernel's UIO device serves (see /proc/interrupts), and does no other "
            "driver take it?",
        )
    return Seen(f"{came} of {runs} runs came by interrupt", {"interrupts": came, "runs": runs})


def _no_interrupt(bench: Bench) -> Exception:
    platform = getattr(bench.device, "platform", None)
    if not getattr(platform, "interrupts", True):
        return NotApplicableError("this platform gives no interrupt; the driver polls")
    return CheckError(
        "the driver polls: it got no interrupt when it was opened",
        "there is no UIO device for the NPU's line: see `grep -l . /sys/class/uio/*/name`, and that the .hwh belongs to the bitstream",
    )
