"""axi_read_dma: every beat once and in order, legal bursts, full rate behind latency, errors and aborts."""

import random

import cocotb
import pytest

from sim.axi_memory import AxiReadPort, Memory, Timing
from sim.bench import run_bench
from sim.streams import Sink, cycles, start, until

BASE = 0x1_0000_0000
SIZE = 1 << 16


class Bench:
    """Memory with random content behind the DMA, and a sink."""

    def __init__(self, dut, timing=None, stall=0.0):
        self.dut = dut
        self.nbytes = int(dut.DATA_BYTES.value)
        self.burst = int(dut.BURST_BEATS.value)
        self.timing, self.stall = timing or Timing(), stall

    async def start(self):
        self.memory = Memory(SIZE, BASE)
        self.memory.write(BASE, random.randbytes(SIZE))
        self.port = AxiReadPort(self.dut, "m_axi", self.memory, self.timing)
        d = self.dut
        self.sink = Sink(d.clk_i, d.data_valid_o, d.data_ready_i, d.data_o, self.stall)
        await start(d, start_i=0, abort_i=0, address_i=0, beats_i=0)

    async def launch(self, address, beats):
        """Start a transfer without waiting for it."""
        self.dut.address_i.value = address
        self.dut.beats_i.value = beats
        await self.pulse("start_i")

    async def pulse(self, name):
        getattr(self.dut, name).value = 1
        await cycles(self.dut, 1)
        getattr(self.dut, name).value = 0
        await cycles(self.dut, 1)

    async def finish(self, limit=20000):
        return await until(self.dut, lambda: not self.dut.busy_o.value, limit, "busy falls")

    async def read(self, address, beats):
        """One whole transfer; returns what came out."""
        self.sink.words.clear()
        await self.launch(address, beats)
        await self.finish()
        await cycles(self.dut, 1)
        return self.sink.words[:]

    def expected(self, address, beats):
        n = self.nbytes
        return [int.from_bytes(self.memory.read(address + i * n, n), "little") for i in range(beats)]

    def somewhere(self, beats):
        return BASE + random.randrange((SIZE - beats * self.nbytes) // self.nbytes) * self.nbytes


@cocotb.test()
@cocotb.parametrize(timing=[Timing(), Timing((1, 40), 0.3), Timing((200, 200))], stall=[0.0, 0.6])
async def every_beat_comes_once_and_in_order(dut, timing, stall):
    bench = Bench(dut, timing, stall)
    await bench.start()
    for beats in [1, bench.burst, bench.burst + 1, *(random.randrange(1, 150) for _ in range(4))]:
        address = bench.somewhere(beats)
        assert await bench.read(address, beats) == bench.expected(address, beats), f"{beats} from {address:#x}"
        assert not dut.error_o.value


@cocotb.test()
async def bursts_stop_at_4_kib(dut):
    bench = Bench(dut)
    await bench.start()
    address, beats = BASE + 4096 - 3 * bench.nbytes, 5
    assert await bench.read(address, beats) == bench.expected(address, beats)
    first = min(3, bench.burst)
    assert bench.port.bursts[0] == (address, first)
    assert sum(beats for _, beats in bench.port.bursts) == 5


@cocotb.test()
async def nothing_is_read_for_no_beats(dut):
    bench = Bench(dut)
    await bench.start()
    await bench.launch(BASE, 0)
    await cycles(dut, 20)
    assert not dut.busy_o.value and not bench.port.bursts


@cocotb.test()
async def latency_of_200_cycles_is_hidden(dut):
    bench = Bench(dut, Timing((200, 200)))
    await bench.start()
    if int(dut.FIFO_BEATS.value) < 200 + 2 * bench.burst:
        return  # the header's condition does not hold for this size
    beats = 1000
    await bench.launch(BASE, beats)
    waited = await bench.finish()
    assert waited <= beats + 215, f"{beats} beats took {waited} cycles"


@cocotb.test()
async def a_full_fifo_stops_the_reads_and_not_the_bus(dut):
    bench = Bench(dut, stall=1.0)
    await bench.start()
    await bench.launch(BASE, 900)
    await cycles(dut, 1200)
    announced = sum(beats for _, beats in bench.port.bursts)
    depth = int(dut.FIFO_BEATS.value)
    assert announced <= depth and not bench.port.pending[0]
    assert int(dut.level_o.value) == announced
    bench.sink.stall = 0.0
    await bench.finish()
    assert bench.sink.words == bench.expected(BASE, 900)


@cocotb.test()
@cocotb.parametrize(kind=["SLVERR", "DECERR"])
async def an_error_response_is_reported_until_the_next_start(dut, kind):
    bench = Bench(dut, Timing((1, 10), 0.2))
    await bench.start()
    if kind == "SLVERR":
        bad = BASE + 20 * bench.nbytes
        bench.memory.bad = {range(bad, bad + 1)}
        await bench.read(BASE, 50)
    else:
        await bench.read(BASE + SIZE - 20 * bench.nbytes, 50)
    assert len(bench.sink.words) == 50
    assert dut.error_o.value
    bench.memory.bad = set()
    assert await bench.read(BASE, 30) == bench.expected(BASE, 30)
    assert not dut.error_o.value


@cocotb.test()
async def after_an_abort_the_next_transfer_is_whole(dut):
    bench = Bench(dut, Timing((1, 60), 0.3), stall=0.5)
    await bench.start()
    for _ in range(25):
        await bench.launch(bench.somewhere(300), 300)
        await cycles(dut, random.randrange(200))
        await bench.pulse("abort_i")
        await bench.finish(2000)
        assert not bench.port.pending[0], "busy fell before the bus was quiet"
        assert int(dut.level_o.value) == 0
        address = bench.somewhere(40)
        assert await bench.read(address, 40) == bench.expected(address, 40)


@pytest.mark.parametrize(("data_bytes", "fifo_beats", "burst_beats"), [(16, 512, 64), (4, 16, 16), (128, 80, 8)])
def test_axi_read_dma(data_bytes, fifo_beats, burst_beats):
    run_bench(
        "axi_read_dma", __name__, {"DATA_BYTES": data_bytes, "FIFO_BEATS": fifo_beats, "BURST_BEATS": burst_beats}
    )
