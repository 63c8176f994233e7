"""adder_tree == the sum of its inputs, $clog2(N) cycles later, extremes included."""

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from sim.bench import run_bench
from sim.streams import from_fields, random_generator, start, to_fields


@cocotb.test()
async def sums_follow_their_inputs_every_cycle(dut):
    n, bits = int(dut.N.value), int(dut.IN_BITS.value)
    latency, rng = n.bit_length() - 1, random_generator()
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    values = np.vstack([rng.integers(low, high + 1, (300, n)), np.full((5, n), low), np.full((5, n), high)])
    dut.values_i.value = 0
    await start(dut)
    found = []
    for i in range(len(values) + latency):
        dut.values_i.value = to_fields(values[min(i, len(values) - 1)], bits)
        await RisingEdge(dut.clk_i)
        found.append(int(from_fields(int(dut.sum_o.value), len(dut.sum_o), 1)[0]))
    assert found[latency:] == values.sum(axis=1).tolist()


@pytest.mark.parametrize(("n", "bits"), [(1, 5), (2, 18), (16, 18), (64, 16)])
def test_adder_tree(n, bits):
    run_bench("adder_tree", __name__, {"N": n, "IN_BITS": bits})
