"""Memory behind AXI4 ports for cocotb benches: pipelined latency, random pauses, error responses, and checks of what the master may not do.

cocotbext-axi's AxiRam serves one burst after the other, answers at once and wants ID signals; the NPU's ports have none, and its DMAs are
built to hide latency. The register port is driven with cocotbext-axi's AxiLiteMaster.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge

OKAY, SLVERR, DECERR = 0, 2, 3
INCR = 1
PAGE = 4096


class Memory:
    """Bytes from ``base`` on. Reads and writes outside get DECERR, those that touch a byte of ``bad`` get SLVERR."""

    def __init__(self, nbytes: int, base: int = 0) -> None:
        self.base = base
        self.data = bytearray(nbytes)
        self.bad: set[range] = set()

    def response(self, address: int, count: int) -> int:
        """The AXI response to an access."""
        if not self.base <= address <= self.base + len(self.data) - count:
            return DECERR
        if any(address < bad.stop and bad.start < address + count for bad in self.bad):
            return SLVERR
        return OKAY

    def read(self, address: int, count: int) -> bytes:
        """``count`` bytes."""
        at = address - self.base
        return bytes(self.data[at : at + count])

    def write(self, address: int, data: bytes) -> None:
        """Put ``data`` at ``address``."""
        at = address - self.base
        self.data[at : at + len(data)] = data


@dataclass
class Timing:
    """How a port behaves."""

    latency: tuple[int, int] = (1, 1)
    """Cycles from an address to its first beat or response, drawn from this range."""
    pause: float = 0.0
    """Share of cycles, drawn at random, in which a channel does not move."""

    def draw(self) -> int:
        """A latency."""
        return random.randint(*self.latency)

    def go(self) -> bool:
        """Whether a channel moves in this cycle."""
        return random.random() >= self.pause


@dataclass
class _Burst:
    address: int
    beats: int
    due: int


class _Channels:
    """The signals of one AXI port, or of several ports packed into vectors (``lanes``)."""

    def __init__(self, dut: Any, prefix: str, memory: Memory, timing: Timing, lanes: int) -> None:
        self.dut, self.prefix, self.memory, self.timing, self.lanes = dut, prefix, memory, timing, lanes
        self.cycle = 0

    def get(self, name: str, lane: int) -> int:
        """A signal of one lane."""
        handle = getattr(self.dut, f"{self.prefix}_{name}")
        width = len(handle) // self.lanes
        return int(handle.value) >> (lane * width) & ((1 << width) - 1)

    def put(self, name: str, values: list[int]) -> None:
        """Drive a signal of all lanes."""
        handle = getattr(self.dut, f"{self.prefix}_{name}")
        width = len(handle) // self.lanes
        handle.value = sum(value << (lane * width) for lane, value in enumerate(values))

    def burst(self, kind: str, lane: int) -> _Burst:
        """Check and take an address; ``kind`` is "ar" or "aw"."""
        nbytes = len(getattr(self.dut, f"{self.prefix}_{'r' if kind == 'ar' else 'w'}data")) // (8 * self.lanes)
        address, beats = self.get(f"{kind}addr", lane), self.get(f"{kind}len", lane) + 1
        assert self.get(f"{kind}burst", lane) == INCR, f"{self.prefix}: burst is not INCR"
        assert 1 << self.get(f"{kind}size", lane) == nbytes, f"{self.prefix}: beats are not of the port's width"
        assert address % nbytes == 0, f"{self.prefix}: address {address:#x} is not aligned"
        assert address % PAGE + beats * nbytes <= PAGE, f"{self.prefix}: {beats} beats from {address:#x} cross 4 KiB"
        return _Burst(address, beats, self.cycle + self.timing.draw())


class AxiReadPort(_Channels):
    """Serves the read channels ``<prefix>_ar*`` and ``<prefix>_r*``."""

    def __init__(self, dut: Any, prefix: str, memory: Memory, timing: Timing | None = None, lanes: int = 1) -> None:
        super().__init__(dut, prefix, memory, timing or Timing(), lanes)
        self.nbytes = len(getattr(dut, f"{prefix}_rdata")) // (8 * lanes)
        self.pending: list[deque[_Burst]] = [deque() for _ in range(lanes)]
        self.bursts: list[tuple[int, int]] = []
        """(address, beats) of every burst, in order."""
        for name in ("arready", "rvalid", "rdata", "rresp", "rlast"):
            self.put(name, [0] * lanes)
        self.task = cocotb.start_soon(self._run())

    def answer_now(self) -> None:
        """Answer what is outstanding, whatever its latency was to be."""
        for queue in self.pending:
            for burst in queue:
                burst.due = 0

    async def _run(self) -> None:
        lanes = range(self.lanes)
        arvalid_handle = getattr(self.dut, f"{self.prefix}_arvalid")
        rready_handle = getattr(self.dut, f"{self.prefix}_rready")
        edge = RisingEdge(self.dut.clk_i)
        ready, valid = [0] * self.lanes, [0] * self.lanes
        data, response, last = [0] * self.lanes, [0] * self.lanes, [0] * self.lanes
        waiting: list[tuple[int, int] | None] = [None] * self.lanes
        await RisingEdge(self.dut.rst_ni)
        while True:
            await edge
            self.cycle += 1
            arvalid, rready = int(arvalid_handle.value), int(rready_handle.value)
            before = (list(ready), list(valid))
            changed = False
            for lane in lanes:
                if arvalid >> lane & 1:
                    address = (self.get("araddr", lane), self.get("arlen", lane))
                    assert waiting[lane] in (None, address), f"{self.prefix}: an announced burst changed"
                    waiting[lane] = None if ready[lane] else address
                    if ready[lane]:
                        burst = self.burst("ar", lane)
                        self.pending[lane].append(burst)
                        self.bursts.append((burst.address, burst.beats))
                else:
                    assert waiting[lane] is None, f"{self.prefix}: an announced burst was withdrawn"
                ready[lane] = self.timing.go()
                if valid[lane] and not rready >> lane & 1:
                    continue
                valid[lane] = 0
                queue = self.pending[lane]
                if queue and queue[0].due <= self.cycle and self.timing.go():
                    burst = queue[0]
                    response[lane] = self.memory.response(burst.address, self.nbytes)
                    beat = self.memory.read(burst.address, self.nbytes) if response[lane] != DECERR else b""
                    data[lane] = int.from_bytes(beat, "little")
                    burst.address += self.nbytes
                    burst.beats -= 1
                    last[lane] = burst.beats == 0
                    valid[lane] = 1
                    changed = True
                    if not burst.beats:
                        queue.popleft()
            if changed:
                self.put("rdata", data)
                self.put("rresp", response)
                self.put("rlast", last)
            if ready != before[0]:
                self.put("arready", ready)
            if valid != before[1]:
                self.put("rvalid", valid)


class AxiWritePort(_Channels):
    """Serves the write channels ``<prefix>_aw*``, ``<prefix>_w*`` and ``<prefix>_b*``."""

    def __init__(self, dut: Any, prefix: str, memory: Memory, timing: Timing | None = None) -> None:
        super().__init__(dut, prefix, memory, timing or Timing(), 1)
        self.nbytes = len(getattr(dut, f"{prefix}_wdata")) // 8
        self.bursts: list[tuple[int, int]] = []
        """(address, beats) of every burst, in order."""
        self._answers: deque[tuple[int, int]] = deque()  # (due, response)
        for name in ("awready", "wready", "bvalid", "bresp"):
            self.put(name, [0])
        self.task = cocotb.start_soon(self._run())

    def answer_now(self) -> None:
        """Answer what is outstanding, whatever its latency was to be."""
        self._answers = deque((0, response) for _, response in self._answers)

    async def _run(self) -> None:
        open_bursts: deque[_Burst] = deque()
        beats: deque[tuple[int, int, int]] = deque()  # data may come before its address
        edge = RisingEdge(self.dut.clk_i)
        signal = {name: getattr(self.dut, f"{self.prefix}_{name}") for name in ("awvalid", "wvalid", "bready")}
        awready = wready = bvalid = response = 0
        await RisingEdge(self.dut.rst_ni)
        while True:
            await edge
            self.cycle += 1
            if awready and signal["awvalid"].value:
                burst = self.burst("aw", 0)
                open_bursts.append(burst)
                self.bursts.append((burst.address, burst.beats))
            if wready and signal["wvalid"].value:
                beats.append((self.get("wdata", 0), self.get("wstrb", 0), self.get("wlast", 0)))
            while open_bursts and beats:
                burst = open_bursts[0]
                response = max(response, self._write(burst, *beats.popleft()))
                burst.address += self.nbytes
                burst.beats -= 1
                if not burst.beats:
                    self._answers.append((max(burst.due, self.cycle + 1), response))
                    response = 0
                    open_bursts.popleft()
            if not (bvalid and not signal["bready"].value):
                bvalid = 0
                if self._answers and self._answers[0][0] <= self.cycle and self.timing.go():
                    self.put("bresp", [self._answers.popleft()[1]])
                    bvalid = 1
            awready, wready = int(self.timing.go()), int(self.timing.go())
            self.put("awready", [awready])
            self.put("wready", [wready])
            self.put("bvalid", [bvalid])

    def _write(self, burst: _Burst, data: int, strobes: int, last: int) -> int:
        """Write one beat; returns the response."""
        assert last == (burst.beats == 1), f"{self.prefix}: wlast = {last} with {burst.beats} beats to go"
        if not strobes:
            return OKAY
        response = self.memory.response(burst.address, self.nbytes)
        if response == OKAY:
            new, old = data.to_bytes(self.nbytes, "little"), self.memory.read(burst.address, self.nbytes)
            merged = bytes(new[i] if strobes >> i & 1 else old[i] for i in range(self.nbytes))
            self.memory.write(burst.address, merged)
        return response
