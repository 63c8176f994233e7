"""tensor_writer: a layer's output lies in memory as hw.golden.write_tensor would put it."""

import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from hw.golden import write_tensor
from sim.bench import run_bench
from sim.streams import cycles, from_vector, random_generator, start, to_vector

WORDS = 1024


class Bench:
    """Memory behind the writer, with garbage in it."""

    def __init__(self, dut):
        self.dut = dut
        self.cp, self.kp = int(dut.CP.value), int(dut.KP.value)
        self.rng = random_generator()
        self.memory = self.rng.integers(0, 256, (WORDS, self.cp)).astype(np.uint8)

    async def start(self):
        await start(self.dut, start_i=0, valid_i=0, sum_valid_i=0)
        cocotb.start_soon(self._write())

    async def _write(self):
        d = self.dut
        while True:
            await RisingEdge(d.clk_i)
            if d.write_en_o.value:
                data = from_vector(int(d.write_data_o.value), np.uint8, self.kp)
                for group in range(self.cp // self.kp):
                    if int(d.write_mask_o.value) >> group & 1:
                        self.memory[int(d.write_addr_o.value), group * self.kp : (group + 1) * self.kp] = data

    async def begin(self, base):
        self.dut.base_i.value = base
        self.dut.start_i.value = 1
        await RisingEdge(self.dut.clk_i)
        self.dut.start_i.value = 0

    async def settle(self):
        while self.dut.busy_o.value:
            await RisingEdge(self.dut.clk_i)
        await cycles(self.dut, 2)

    async def gap(self, probability):
        while random.random() < probability:
            await RisingEdge(self.dut.clk_i)


@cocotb.test()
@cocotb.parametrize(idle=[0.0, 0.5])
async def pixels_lie_in_channel_block_order(dut, idle):
    bench = Bench(dut)
    await bench.start()
    for _ in range(12):
        blocks, height, width = random.randint(1, 6), random.randint(1, 6), random.randint(1, 6)
        base = random.randrange(WORDS - 6 * 36)
        x = bench.rng.integers(0, 256, (height, width, blocks * bench.kp))
        expected = bench.memory.copy()
        write_tensor(expected, base, x)
        await bench.begin(base)
        for block in range(blocks):
            pixels = x.reshape(height * width, blocks, bench.kp)[:, block].astype(np.uint8)
            for number, pixel in enumerate(pixels):
                await bench.gap(idle)
                dut.valid_i.value = 1
                dut.data_i.value = to_vector(pixel)
                dut.block_last_i.value = number == len(pixels) - 1
                await RisingEdge(dut.clk_i)
                dut.valid_i.value = 0
        await RisingEdge(dut.clk_i)
        await bench.settle()
        assert np.array_equal(bench.memory, expected), f"{blocks} blocks of {height} x {width} at {base}"


@cocotb.test()
async def global_sums_lie_one_behind_the_other(dut):
    bench = Bench(dut)
    await bench.start()
    for _ in range(12):
        blocks, base = random.randint(1, 7), random.randrange(WORDS - 64)
        sums = bench.rng.integers(-(1 << 31), 1 << 31, (blocks, bench.kp)).astype("<i4")
        expected = bench.memory.copy()
        expected[base:].reshape(-1)[: sums.nbytes] = sums.reshape(-1).view(np.uint8)
        await bench.begin(base)
        for block in sums:
            dut.sum_valid_i.value = 1
            dut.sum_i.value = to_vector(block)
            await RisingEdge(dut.clk_i)
            dut.sum_valid_i.value = 0
            # A tile has at least four steps, so the next sums come four cycles later at the earliest.
            await cycles(dut, 3 + random.choice([0, 0, 5]))
        await bench.settle()
        assert np.array_equal(bench.memory, expected), f"{blocks} blocks at {base}"


@pytest.mark.parametrize(("cp", "kp"), [(8, 8), (16, 8), (16, 4)])
def test_tensor_writer(cp, kp):
    run_bench("tensor_writer", __name__, {"CP": cp, "KP": kp})
