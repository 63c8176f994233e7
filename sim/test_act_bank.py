"""act_bank == an array of words: group-wise writes, reads two cycles later, the old data when both meet."""

import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from sim.bench import run_bench
from sim.streams import random_generator, start

LATENCY = 2


@cocotb.test()
async def random_reads_and_writes(dut):
    words, groups, bits = (int(getattr(dut, name).value) for name in ("WORDS", "GROUPS", "GROUP_BITS"))
    rng = random_generator()
    inputs = ("read_en_i", "read_addr_i", "write_en_i", "write_addr_i", "write_data_i")
    await start(dut, **dict.fromkeys(inputs, 0))
    memory = np.zeros((words, groups), object)
    written = np.zeros((words, groups), bool)  # the rest still holds its power-up state
    answers = [None] * LATENCY
    checked = 0
    for _ in range(2000):
        read = int(rng.integers(words)) if random.random() < 0.7 else None
        write = int(rng.integers(words))
        if read is not None and random.random() < 0.3:
            write = read
        mask, data = random.getrandbits(groups), [random.getrandbits(bits) for _ in range(groups)]
        dut.read_en_i.value, dut.read_addr_i.value = int(read is not None), read or 0
        dut.write_en_i.value, dut.write_addr_i.value = mask, write
        dut.write_data_i.value = sum(value << bits * g for g, value in enumerate(data))
        answers.append(None if read is None else (memory[read].copy(), written[read].copy()))
        for g in range(groups):
            if mask >> g & 1:
                memory[write, g], written[write, g] = data[g], True
        await RisingEdge(dut.clk_i)
        expected = answers.pop(0)
        if expected is not None:
            word = int(dut.read_data_o.value)
            for g in np.flatnonzero(expected[1]):
                assert word >> bits * int(g) & ((1 << bits) - 1) == expected[0][g]
                checked += 1
    assert checked > 500


@pytest.mark.parametrize(("groups", "bits"), [(1, 64), (2, 32), (4, 8)])
def test_act_bank(groups, bits):
    run_bench("act_bank", __name__, {"WORDS": 16, "GROUPS": groups, "GROUP_BITS": bits})
