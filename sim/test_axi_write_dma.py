"""axi_write_dma: every beat written once and in order, legal bursts, errors and aborts."""

import random

import cocotb
import pytest

from sim.axi_memory import AxiWritePort, Memory, Timing
from sim.bench import run_bench
from sim.streams import Source, cycles, start, until

BASE = 0x2_0000_0000
SIZE = 1 << 15


class Bench:
    """A source, the DMA, and memory behind it."""

    def __init__(self, dut, timing=None, idle=0.0):
        self.dut = dut
        self.nbytes = int(dut.DATA_BYTES.value)
        self.burst = int(dut.BURST_BEATS.value)
        self.timing, self.idle = timing or Timing(), idle

    async def start(self):
        d = self.dut
        self.memory = Memory(SIZE, BASE)
        self.memory.write(BASE, random.randbytes(SIZE))
        self.port = AxiWritePort(d, "m_axi", self.memory, self.timing)
        self.source = Source(d.clk_i, d.data_valid_i, d.data_ready_o, d.data_i, self.idle)
        await start(d, start_i=0, abort_i=0, address_i=0, beats_i=0)

    async def pulse(self, name):
        getattr(self.dut, name).value = 1
        await cycles(self.dut, 1)
        getattr(self.dut, name).value = 0
        await cycles(self.dut, 1)

    async def launch(self, address, beats):
        """Start a transfer and its source; returns (bytes, task)."""
        data = random.randbytes(beats * self.nbytes)
        n = self.nbytes
        words = [int.from_bytes(data[i : i + n], "little") for i in range(0, len(data), n)]
        task = cocotb.start_soon(self.source.send(words))
        self.dut.address_i.value = address
        self.dut.beats_i.value = beats
        await self.pulse("start_i")
        return data, task

    async def finish(self):
        return await until(self.dut, lambda: not self.dut.busy_o.value, 20000, "busy falls")

    async def write(self, address, beats):
        """One whole transfer; memory must be as before but for the data."""
        before = bytes(self.memory.data)
        data, _ = await self.launch(address, beats)
        await self.finish()
        at = address - BASE
        assert bytes(self.memory.data) == before[:at] + data + before[at + len(data) :], f"{beats} to {address:#x}"

    def somewhere(self, beats):
        return BASE + random.randrange((SIZE - beats * self.nbytes) // self.nbytes) * self.nbytes


@cocotb.test()
@cocotb.parametrize(timing=[Timing(), Timing((1, 40), 0.3), Timing((100, 100))], idle=[0.0, 0.5])
async def every_beat_is_written_once_and_in_order(dut, timing, idle):
    bench = Bench(dut, timing, idle)
    await bench.start()
    for beats in [1, bench.burst, bench.burst + 1, *(random.randrange(1, 150) for _ in range(4))]:
        await bench.write(bench.somewhere(beats), beats)
        assert not dut.error_o.value


@cocotb.test()
async def bursts_stop_at_4_kib(dut):
    bench = Bench(dut)
    await bench.start()
    address = BASE + 4096 - 3 * bench.nbytes
    await bench.write(address, 5)
    assert bench.port.bursts[0] == (address, min(3, bench.burst))


@cocotb.test()
async def nothing_is_written_for_no_beats(dut):
    bench = Bench(dut)
    await bench.start()
    dut.address_i.value = BASE
    await bench.pulse("start_i")
    await cycles(dut, 20)
    assert not dut.busy_o.value and not bench.port.bursts


@cocotb.test()
async def a_burst_costs_its_beats_and_three_cycles(dut):
    bench = Bench(dut)
    await bench.start()
    beats = 4 * bench.burst
    await bench.launch(BASE, beats)
    waited = await bench.finish()
    assert waited <= 4 * (bench.burst + 3) + 8, f"{beats} beats took {waited} cycles"


@cocotb.test()
@cocotb.parametrize(kind=["SLVERR", "DECERR"])
async def an_error_response_is_reported_until_the_next_start(dut, kind):
    bench = Bench(dut, Timing((1, 10), 0.2))
    await bench.start()
    if kind == "SLVERR":
        bench.memory.bad = {range(BASE + 20 * bench.nbytes, BASE + 20 * bench.nbytes + 1)}
        await bench.launch(BASE, 50)
    else:
        await bench.launch(BASE + SIZE - 20 * bench.nbytes, 50)
    await bench.finish()
    assert dut.error_o.value
    bench.memory.bad = set()
    await bench.write(BASE, 30)
    assert not dut.error_o.value


@cocotb.test()
async def an_abort_leaves_the_bus_whole_and_writes_no_more(dut):
    bench = Bench(dut, Timing((1, 30), 0.3), idle=0.3)
    await bench.start()
    for _ in range(25):
        address = bench.somewhere(200)
        bench.source.taken = 0
        before = bytes(bench.memory.data)
        data, task = await bench.launch(address, 200)
        await cycles(dut, random.randrange(300))
        await bench.pulse("abort_i")
        task.cancel()
        dut.data_valid_i.value = 0
        dut.data_i.value = random.getrandbits(8 * bench.nbytes)
        await bench.finish()
        written, at = bench.source.taken * bench.nbytes, address - BASE
        expected = before[:at] + data[:written] + before[at + written :]
        assert bytes(bench.memory.data) == expected, "what was taken before the abort is written, and nothing else"
        await bench.write(bench.somewhere(40), 40)


@pytest.mark.parametrize(("data_bytes", "burst_beats"), [(16, 64), (4, 1), (128, 16)])
def test_axi_write_dma(data_bytes, burst_beats):
    run_bench("axi_write_dma", __name__, {"DATA_BYTES": data_bytes, "BURST_BEATS": burst_beats})
