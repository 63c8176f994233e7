"""image_loader: beats become words, whole or partial, at consecutive addresses, and the limit never runs ahead of them."""

import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from sim.bench import run_bench
from sim.streams import Source, cycles, from_vector, random_generator, start, to_vector


@cocotb.test()
@cocotb.parametrize(idle=[0.0, 0.5], stall=[0.0, 0.6])
async def beats_become_words_in_order(dut, idle, stall):
    cp, port_bytes = int(dut.CP.value), int(dut.PORT_BYTES.value)
    rng = random_generator()
    await start(dut, start_i=0, base_i=0, beat_valid_i=0, word_ready_i=0, beats_i=1)
    source = Source(dut.clk_i, dut.beat_valid_i, dut.beat_ready_o, dut.beat_i, idle)
    for _ in range(4):
        base, count, beats = random.randrange(1 << 20), random.randint(1, 25), random.randint(1, cp // port_bytes)
        words = rng.integers(0, 256, (count, beats * port_bytes)).astype(np.uint8)
        dut.base_i.value, dut.beats_i.value = base, beats
        dut.start_i.value = 1
        await RisingEdge(dut.clk_i)
        dut.start_i.value = 0
        sending = cocotb.start_soon(source.send(to_vector(beat) for beat in words.reshape(-1, port_bytes)))
        written = 0
        while written < len(words):
            ready = random.random() >= stall
            dut.word_ready_i.value = ready
            await RisingEdge(dut.clk_i)
            limit = int(dut.limit_o.value)
            assert base <= limit <= base + written or written == 0, "the limit names a word that is not written"
            if ready and dut.word_valid_o.value:
                assert int(dut.word_addr_o.value) == base + written
                sent = from_vector(int(dut.word_o.value), np.uint8, cp)[: beats * port_bytes]
                assert np.array_equal(sent, words[written])
                written += 1
        dut.word_ready_i.value = 0
        await sending
        await cycles(dut, 2)
        assert int(dut.limit_o.value) == base + len(words)
        assert not dut.word_valid_o.value


@cocotb.test()
async def a_beat_passes_every_cycle(dut):
    cp, port_bytes = int(dut.CP.value), int(dut.PORT_BYTES.value)
    await start(dut, start_i=0, base_i=0, beat_valid_i=0, word_ready_i=1, beats_i=cp // port_bytes)
    dut.start_i.value = 1
    await RisingEdge(dut.clk_i)
    dut.start_i.value = 0
    beats = 40 * cp // port_bytes
    source = Source(dut.clk_i, dut.beat_valid_i, dut.beat_ready_o, dut.beat_i)
    cocotb.start_soon(source.send(range(beats)))
    await cycles(dut, beats + 3)
    assert int(dut.limit_o.value) == 40


@pytest.mark.parametrize(("cp", "port_bytes"), [(8, 8), (16, 4), (64, 16)])
def test_image_loader(cp, port_bytes):
    run_bench("image_loader", __name__, {"CP": cp, "PORT_BYTES": port_bytes})
