"""What every cocotb bench needs: clock and reset, random idle cycles, valid/ready streams, bytes in wide vectors."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.handle import LogicArrayObject, LogicObject
from cocotb.triggers import RisingEdge, Timer
from numpy.typing import NDArray


async def start(dut: Any, deadline: int = 300_000, **inputs: int) -> None:
    """Set ``inputs``, start the 10 ns clock and reset, once a test. The test fails after ``deadline`` cycles: it hangs."""
    for name, value in inputs.items():
        getattr(dut, name).value = value
    # Reset lies on before the first edge: state is random until then, and no assertion may look at it.
    if hasattr(dut, "rst_ni"):
        dut.rst_ni.value = 0
    dut.clk_i.value = 0
    await Timer(5, "ns")
    Clock(dut.clk_i, 10, "ns").start()
    cocotb.start_soon(_fail_after(deadline))
    await reset(dut)


async def reset(dut: Any) -> None:
    """Three cycles of reset, for what has one, and one cycle after it."""
    if hasattr(dut, "rst_ni"):
        dut.rst_ni.value = 0
    await cycles(dut, 3)
    if hasattr(dut, "rst_ni"):
        dut.rst_ni.value = 1
    await RisingEdge(dut.clk_i)


async def _fail_after(cycles: int) -> None:
    await Timer(10 * cycles, "ns")
    raise AssertionError(f"the test hangs: not done after {cycles} cycles")


async def cycles(dut: Any, count: int) -> None:
    """Wait ``count`` clock cycles."""
    for _ in range(count):
        await RisingEdge(dut.clk_i)


async def until(dut: Any, condition: Callable[[], bool], limit: int, what: str) -> int:
    """Wait until ``condition`` holds at a clock edge; returns the cycles waited. Fails after ``limit``."""
    for waited in range(limit):
        await RisingEdge(dut.clk_i)
        if condition():
            return waited
    raise AssertionError(f"{what}: not within {limit} cycles")


def random_generator() -> np.random.Generator:
    """A NumPy generator that follows the bench's seed."""
    return np.random.default_rng(random.getrandbits(64))


def pauses(probability: float) -> Iterable[bool]:
    """Endless random choices, True with ``probability``: pause in this cycle."""
    while True:
        yield random.random() < probability


class Source:
    """Drives a valid/ready stream, with random idle cycles between words."""

    def __init__(
        self, clock: LogicObject, valid: LogicObject, ready: LogicObject, data: LogicArrayObject, idle: float = 0.0
    ):
        self.clock, self.valid, self.ready, self.data, self.idle = clock, valid, ready, data, idle
        self.taken = 0
        """Words that have been taken."""
        valid.value = 0

    async def send(self, words: Iterable[int]) -> None:
        """Send all words; returns when the last one was taken."""
        for word in words:
            while random.random() < self.idle:
                await RisingEdge(self.clock)
            self.valid.value = 1
            self.data.value = word
            await RisingEdge(self.clock)
            while not self.ready.value:
                await RisingEdge(self.clock)
            self.taken += 1
            self.valid.value = 0


class Sink:
    """Takes a valid/ready stream, with random back-pressure; ``words`` holds what it took."""

    def __init__(
        self, clock: LogicObject, valid: LogicObject, ready: LogicObject, data: LogicArrayObject, stall: float = 0.0
    ):
        self.clock, self.valid, self.ready, self.data, self.stall = clock, valid, ready, data, stall
        self.words: list[int] = []
        ready.value = 0
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        while True:
            take = random.random() >= self.stall
            self.ready.value = take
            await RisingEdge(self.clock)
            if take and self.valid.value:
                self.words.append(int(self.data.value))


def to_vector(values: NDArray[Any]) -> int:
    """An array as the bits of a packed vector, first element in the lowest bits."""
    return int.from_bytes(np.ascontiguousarray(values).tobytes(), "little")


def from_vector(vector: int, dtype: Any, count: int) -> NDArray[Any]:
    """``count`` elements of ``dtype`` from a packed vector."""
    return np.frombuffer(vector.to_bytes(count * np.dtype(dtype).itemsize, "little"), dtype)


def to_fields(values: Iterable[int], width: int) -> int:
    """Integers as fields of ``width`` bits, first in the lowest bits."""
    vector = 0
    for i, value in enumerate(values):
        vector |= (int(value) & ((1 << width) - 1)) << (i * width)
    return vector


def from_fields(vector: int, width: int, count: int, signed: bool = True) -> list[int]:
    """``count`` fields of ``width`` bits."""
    fields = [vector >> (i * width) & ((1 << width) - 1) for i in range(count)]
    return [f - (1 << width) if signed and f >> (width - 1) else f for f in fields]
