"""accumulator == a NumPy array that adds, replaces and is drained."""

import random
from collections import deque

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from sim import latencies
from sim.bench import run_bench
from sim.streams import cycles, from_vector, random_generator, start, to_fields


@cocotb.test()
@cocotb.parametrize(idle=[0.0, 0.4])
async def steps_add_replace_and_drain(dut, idle):
    kp, depth, bits = int(dut.KP.value), int(dut.DEPTH.value), int(dut.SUM_BITS.value)
    rng = random_generator()
    await start(dut, step_valid_i=0, step_first_i=0, step_drain_i=0, step_index_i=0, sums_i=0)
    model = np.zeros((depth, kp), np.int64)
    known = [False] * depth
    recent, expected, drained = [], [], []

    async def collect():
        while True:
            await RisingEdge(dut.clk_i)
            if dut.drain_valid_o.value:
                drained.append(from_vector(int(dut.drain_o.value), np.int32, kp))

    cocotb.start_soon(collect())
    waiting = deque([np.zeros(kp, np.int64)] * latencies.DRAIN)  # sums of the steps before
    for _ in range(1500):
        valid = drain = first = False
        index = random.choice([i for i in range(depth) if i not in recent])
        if random.random() >= idle:
            valid, drain = random.choice([(True, False), (True, True), (False, True)])
            first = not known[index] or random.random() < 0.3
            drain = drain and known[index]
        dut.step_valid_i.value, dut.step_first_i.value, dut.step_drain_i.value = valid, first, drain
        dut.step_index_i.value = index
        dut.sums_i.value = to_fields(waiting.popleft(), bits)
        await RisingEdge(dut.clk_i)
        recent = (
            [*recent, index][1 - latencies.REVISIT :] if valid or drain else [*recent, None][1 - latencies.REVISIT :]
        )
        # Partial sums use the whole width; the running total stays within int32, as the compiler proves.
        limit = 1 << (bits - 1)
        sums = rng.integers(-limit, limit, kp)
        if drain:
            expected.append(model[index].copy())
        if valid:
            old = np.zeros(kp, np.int64) if first else model[index]
            sums = np.where(np.abs(old + sums) < 1 << 31, sums, 0)
            model[index] = old + sums
            known[index] = True
        waiting.append(sums)
    dut.step_valid_i.value = dut.step_drain_i.value = 0
    for sums in waiting:
        dut.sums_i.value = to_fields(sums, bits)
        await RisingEdge(dut.clk_i)
    await cycles(dut, 5)
    assert len(expected) > 100
    assert np.array_equal(drained, expected)


@pytest.mark.parametrize(("kp", "depth", "bits"), [(4, 16, 21), (8, 512, 23)])
def test_accumulator(kp, depth, bits):
    run_bench("accumulator", __name__, {"KP": kp, "DEPTH": depth, "SUM_BITS": bits})
