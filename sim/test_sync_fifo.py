"""sync_fifo: order, fullness, throughput, level and clearing."""

import random

import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge

from sim.bench import run_bench
from sim.streams import Sink, Source, cycles, start, until


class Bench:
    """Source and sink around the FIFO."""

    def __init__(self, dut, idle=0.0, stall=0.0):
        self.dut = dut
        self.width = int(dut.WIDTH.value)
        self.depth = int(dut.DEPTH.value)
        self.idle, self.stall = idle, stall

    async def start(self):
        await start(self.dut, clear_i=0, push_valid_i=0, pop_ready_i=0)
        self.source = Source(
            self.dut.clk_i, self.dut.push_valid_i, self.dut.push_ready_o, self.dut.push_data_i, self.idle
        )

    def sink(self):
        return Sink(self.dut.clk_i, self.dut.pop_valid_o, self.dut.pop_ready_i, self.dut.pop_data_o, self.stall)

    def words(self, count):
        return [random.getrandbits(self.width) for _ in range(count)]


@cocotb.test()
@cocotb.parametrize(idle=[0.0, 0.5], stall=[0.0, 0.5, 0.9])
async def words_come_out_in_order(dut, idle, stall):
    bench = Bench(dut, idle, stall)
    await bench.start()
    sink = bench.sink()
    words = bench.words(300)
    await bench.source.send(words)
    await until(dut, lambda: len(sink.words) == len(words), 5000, "all words out")
    assert sink.words == words


@cocotb.test()
async def one_word_passes_every_cycle(dut):
    bench = Bench(dut)
    await bench.start()
    sink = bench.sink()
    # With fewer than two places a word cannot enter while its predecessor is fetched.
    if bench.depth == 1:
        return
    words = bench.words(200)
    cocotb.start_soon(bench.source.send(words))
    await cycles(dut, len(words) + 3)
    assert sink.words == words


@cocotb.test()
async def depth_and_one_words_fit(dut):
    bench = Bench(dut)
    await bench.start()
    words = bench.words(bench.depth + 1)
    await bench.source.send(words)
    cocotb.start_soon(bench.source.send(bench.words(1)))
    await cycles(dut, 3)
    assert not dut.push_ready_o.value
    assert int(dut.level_o.value) == bench.depth + 1


@cocotb.test()
@cocotb.parametrize(idle=[0.2, 0.9], stall=[0.2, 0.9])
async def level_words_can_be_popped_without_a_gap(dut, idle, stall):
    bench = Bench(dut, idle)
    await bench.start()
    cocotb.start_soon(bench.source.send(bench.words(600)))
    promised = highest = 0
    for _ in range(600):
        ready = random.random() >= stall
        dut.pop_ready_i.value = ready
        await RisingEdge(dut.clk_i)
        level, valid = int(dut.level_o.value), bool(dut.pop_valid_o.value)
        assert valid or not level, "the level counts a word that is not there yet"
        assert level >= promised, f"{promised} words were promised, {level} are left"
        promised = level - (ready and valid)
        highest = max(highest, level)
    assert highest >= 1


@cocotb.test()
async def clear_empties(dut):
    bench = Bench(dut)
    await bench.start()
    for filled in (1, 2, bench.depth):
        await bench.source.send(bench.words(filled))
        dut.clear_i.value = 1
        await RisingEdge(dut.clk_i)
        dut.clear_i.value = 0
        await cycles(dut, 1)
        await ReadOnly()
        assert int(dut.level_o.value) == 0 and not dut.pop_valid_o.value
        await RisingEdge(dut.clk_i)
    sink = bench.sink()
    words = bench.words(20)
    await bench.source.send(words)
    await cycles(dut, 10)
    assert sink.words == words


@pytest.mark.parametrize(("width", "depth"), [(8, 1), (8, 2), (13, 5), (128, 16)])
def test_sync_fifo(width, depth):
    run_bench("sync_fifo", __name__, {"WIDTH": width, "DEPTH": depth})
