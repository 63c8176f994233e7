"""param_buffer: records are read by slot, slots fill in ring order, and none is overwritten before it is free."""

import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge

from hw.isa import PARAMETER_BYTES
from sim.bench import run_bench
from sim.streams import Source, cycles, random_generator, start, to_vector

SLOTS = 4


class Bench:
    """A source of parameter records."""

    def __init__(self, dut, idle=0.3):
        self.dut, self.idle = dut, idle
        self.kp, self.stream_bytes = int(dut.KP.value), int(dut.STREAM_BYTES.value)
        self.rng = random_generator()

    async def start(self):
        d = self.dut
        await start(d, word_valid_i=0, read_slot_i=0, free_i=0)
        self.source = Source(d.clk_i, d.word_valid_i, d.word_ready_o, d.word_i, self.idle)

    def records(self, count):
        return [self.rng.integers(0, 256, PARAMETER_BYTES * self.kp).astype(np.uint8) for _ in range(count)]

    def words(self, records):
        """Each record starts on a stream word; what is left of its last word is anything."""
        for record in records:
            rows = -(-record.size // self.stream_bytes)
            padded = self.rng.integers(0, 256, rows * self.stream_bytes).astype(np.uint8)
            padded[: record.size] = record
            for row in padded.reshape(rows, -1):
                yield to_vector(row)

    async def read(self, slot):
        self.dut.read_slot_i.value = slot
        await RisingEdge(self.dut.clk_i)
        await ReadOnly()
        value = int(self.dut.params_o.value)
        await RisingEdge(self.dut.clk_i)
        return value

    async def free(self):
        self.dut.free_i.value = 1
        await RisingEdge(self.dut.clk_i)
        self.dut.free_i.value = 0


@cocotb.test()
@cocotb.parametrize(idle=[0.0, 0.5])
async def records_are_read_by_slot_and_freed_in_order(dut, idle):
    bench = Bench(dut, idle)
    await bench.start()
    records = bench.records(30)
    filling = cocotb.start_soon(bench.source.send(bench.words(records)))
    rows = -(-PARAMETER_BYTES * bench.kp // bench.stream_bytes)
    for number, record in enumerate(records):
        await cycles(dut, 12 * rows * (1 + round(4 * idle)) + random.randrange(20))
        # By now this slot is full, and so are those after it as far as there are records.
        for ahead in range(min(SLOTS, len(records) - number) if number == 0 else 1):
            found = await bench.read((number + ahead) % SLOTS)
            assert found == to_vector(records[number + ahead]), f"record {number + ahead}"
        assert await bench.read(number % SLOTS) == to_vector(record)
        await bench.free()
    await filling


@cocotb.test()
async def full_slots_make_the_stream_wait(dut):
    bench = Bench(dut, idle=0.0)
    await bench.start()
    records = bench.records(SLOTS + 1)
    await bench.source.send(bench.words(records[:SLOTS]))
    await cycles(dut, 2)
    assert not dut.word_ready_o.value
    cocotb.start_soon(bench.source.send(bench.words(records[SLOTS:])))
    await cycles(dut, 30)
    assert await bench.read(0) == to_vector(records[0])
    await bench.free()
    await cycles(dut, 30)
    assert await bench.read(0) == to_vector(records[SLOTS])


@pytest.mark.parametrize(("kp", "stream_bytes"), [(8, 8), (8, 48), (4, 32)])
def test_param_buffer(kp, stream_bytes):
    run_bench("param_buffer", __name__, {"KP": kp, "STREAM_BYTES": stream_bytes})
