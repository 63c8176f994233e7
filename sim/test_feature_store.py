"""feature_store: words of the banks leave as beats, in order, at full rate, and none is lost to back-pressure."""

import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from sim.bench import run_bench
from sim.streams import Sink, random_generator, start, to_vector, until

WORDS = 256


class Bench:
    """Memory with the banks' latency in front, a sink behind."""

    def __init__(self, dut, stall):
        self.dut, self.stall = dut, stall
        self.cp, self.port_bytes = int(dut.CP.value), int(dut.PORT_BYTES.value)
        self.latency = int(dut.READ_LATENCY.value)
        self.memory = random_generator().integers(0, 256, (WORDS, self.cp)).astype(np.uint8)

    async def start(self):
        d = self.dut
        self.sink = Sink(d.clk_i, d.beat_valid_o, d.beat_ready_i, d.beat_o, self.stall)
        await start(d, start_i=0, base_i=0, words_i=0, read_data_i=0)
        cocotb.start_soon(self._memory())

    async def _memory(self):
        d = self.dut
        answers = [0] * (self.latency - 1)
        while True:
            await RisingEdge(d.clk_i)
            address = int(d.read_addr_o.value)
            # What nobody asked for is garbage.
            word = to_vector(self.memory[address]) if d.read_en_o.value else random.getrandbits(8 * self.cp)
            answers.append(word)
            d.read_data_i.value = answers.pop(0)

    async def store(self, base, words):
        """Returns (beats as bytes, cycles)."""
        d = self.dut
        self.sink.words.clear()
        d.base_i.value, d.words_i.value, d.start_i.value = base, words, 1
        await RisingEdge(d.clk_i)
        d.start_i.value = 0
        beats = words * self.cp // self.port_bytes
        waited = await until(d, lambda: len(self.sink.words) == beats, 40 * beats + 50, "all beats")
        return b"".join(beat.to_bytes(self.port_bytes, "little") for beat in self.sink.words), waited


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.5, 0.9])
async def words_leave_in_order(dut, stall):
    bench = Bench(dut, stall)
    await bench.start()
    for words in [1, 2, 9, *(random.randint(1, 40) for _ in range(3))]:
        base = random.randrange(WORDS - words)
        found, _ = await bench.store(base, words)
        assert found == bench.memory[base : base + words].tobytes(), f"{words} words from {base}"


@cocotb.test()
async def a_beat_leaves_every_cycle(dut):
    bench = Bench(dut, stall=0.0)
    await bench.start()
    _, waited = await bench.store(0, 100)
    beats = 100 * bench.cp // bench.port_bytes
    assert waited <= beats + bench.latency + 6, f"{beats} beats took {waited} cycles"


@pytest.mark.parametrize(("cp", "port_bytes"), [(8, 8), (16, 4), (64, 16)])
def test_feature_store(cp, port_bytes):
    run_bench("feature_store", __name__, {"CP": cp, "PORT_BYTES": port_bytes})
