"""weight_buffer: tiles reach the array whole and in order, the next one loads meanwhile, readiness is never premature."""

import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge

from sim.bench import run_bench
from sim.streams import cycles, random_generator, reset, start, to_vector


class Bench:
    """A stream whose words may be announced before they are taken, and a pass sequencer of random pace."""

    def __init__(self, dut):
        self.dut = dut
        self.cp, self.kp = int(dut.CP.value), int(dut.KP.value)
        self.stream_bytes, self.lead, self.hold = (int(p.value) for p in (dut.STREAM_BYTES, dut.LEAD, dut.HOLD))
        self.rows = -(-self.cp * self.kp // self.stream_bytes)
        self.rng = random_generator()

    async def start(self):
        await start(self.dut, word_valid_i=0, available_i=0, take_i=0, swap_i=0)

    def tiles(self, count):
        return [self.rng.integers(0, 256, self.cp * self.kp).astype(np.uint8) for _ in range(count)]

    async def stream(self, tiles, supply):
        """Deliver the tiles' words; each cycle the FIFO behind grows with probability ``supply``, and ``available_i`` tells its level."""
        words = []
        for tile in tiles:
            padded = np.zeros(self.rows * self.stream_bytes, np.uint8)
            padded[: tile.size] = tile
            words += [to_vector(row) for row in padded.reshape(self.rows, -1)]
        level, taken = 0, 0
        d = self.dut
        while taken < len(words):
            if level < len(words) - taken and random.random() < supply:
                level += 1
            d.word_valid_i.value = level > 0
            d.available_i.value = level
            if level:
                d.word_i.value = words[taken]
            await RisingEdge(d.clk_i)
            if level and d.word_ready_o.value:
                level -= 1
                taken += 1
        d.word_valid_i.value = 0
        d.available_i.value = 0

    async def words(self, count):
        """Deliver ``count`` words of anything."""
        self.dut.word_valid_i.value = count > 0
        for _ in range(count):
            await RisingEdge(self.dut.clk_i)
        self.dut.word_valid_i.value = 0
        await RisingEdge(self.dut.clk_i)

    async def passes(self, tiles, pace):
        """Take each tile when it is ready, swap it in LEAD cycles later, read it for HOLD cycles as the array does."""
        d = self.dut
        for number, tile in enumerate(tiles):
            await ReadOnly()
            while not d.tile_ready_o.value:
                await RisingEdge(d.clk_i)
                await ReadOnly()
            await RisingEdge(d.clk_i)
            d.take_i.value = 1
            await ReadOnly()
            if not d.tile_ready_o.value:  # it had been ready in the cycle before only
                raise AssertionError("tile_ready_o fell without a take")
            await RisingEdge(d.clk_i)
            d.take_i.value = 0
            for _ in range(self.lead - 1):
                await RisingEdge(d.clk_i)
            d.swap_i.value = 1
            await RisingEdge(d.clk_i)
            d.swap_i.value = 0
            for cycle in range(self.hold):
                await ReadOnly()
                assert int(d.weights_o.value) == to_vector(tile), f"tile {number}, {cycle + 1} cycles after its swap"
                await RisingEdge(d.clk_i)
            for _ in range(random.randrange(2 * pace)):
                await RisingEdge(d.clk_i)


@cocotb.test()
@cocotb.parametrize(supply=[1.0, 0.5, 0.1], pace=[1, 12])
async def tiles_arrive_whole_and_in_order(dut, supply, pace):
    bench = Bench(dut)
    await bench.start()
    tiles = bench.tiles(30)
    cocotb.start_soon(bench.stream(tiles, supply))
    await bench.passes(tiles, pace)


@cocotb.test()
async def a_tile_is_ready_when_its_last_words_are_waiting(dut):
    bench = Bench(dut)
    await bench.start()
    for missing in range(bench.rows + 1):
        for waiting in range(bench.rows + 2):
            dut.available_i.value = 0
            await reset(dut)
            await bench.words(bench.rows - missing)
            dut.available_i.value = waiting
            await cycles(dut, 2)
            ready = missing == 0 or (missing <= bench.lead and waiting > missing)
            assert bool(dut.tile_ready_o.value) == ready, f"{missing} words missing, {waiting} waiting"


@cocotb.test()
async def a_ready_tile_stays_ready_until_it_is_taken(dut):
    bench = Bench(dut)
    await bench.start()
    await bench.words(bench.rows - 1)
    dut.available_i.value = 2
    await cycles(dut, 1)
    dut.available_i.value = 0  # the word is on its way
    for _ in range(5):
        await cycles(dut, 1)
        assert dut.tile_ready_o.value
    dut.take_i.value = 1
    await cycles(dut, 1)
    dut.take_i.value = 0
    await cycles(dut, 1)
    assert not dut.tile_ready_o.value


@pytest.mark.parametrize(
    ("cp", "kp", "stream_bytes", "lead", "hold"),
    [(8, 8, 8, 9, 1), (16, 8, 12, 5, 4), (16, 16, 16, 9, 4), (8, 8, 8, 3, 2)],
)
def test_weight_buffer(cp, kp, stream_bytes, lead, hold):
    run_bench("weight_buffer", __name__, {"CP": cp, "KP": kp, "STREAM_BYTES": stream_bytes, "LEAD": lead, "HOLD": hold})
