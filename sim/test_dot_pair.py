"""dot_pair == two integer dot products, for every pair of extreme weights and activations."""

from collections import deque
from itertools import product

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from sim.bench import run_bench
from sim.streams import from_fields, random_generator, start, to_vector

LATENCY = 4


async def check(dut, activations, weights):
    """``activations`` [n, cp] in -128..255, ``weights`` [n, 2, cp] int8: a new one of each every cycle."""
    cp = int(dut.CP.value)
    await start(dut, activations_i=0, weights_i=0)
    expected = deque()
    for i in range(len(activations) + LATENCY):
        if i < len(activations):
            dut.activations_i.value = sum((int(a) & 0x1FF) << 9 * c for c, a in enumerate(activations[i]))
            dut.weights_i.value = to_vector(weights[i])
            expected.append(weights[i].astype(np.int64) @ activations[i].astype(np.int64))
        await RisingEdge(dut.clk_i)
        if i >= LATENCY:
            sums = from_fields(int(dut.sums_o.value), len(dut.sums_o) // 2, 2)
            assert np.array_equal(sums, expected.popleft()), f"{cp} channels, cycle {i - LATENCY}"
    assert not expected


@cocotb.test()
async def random_values(dut):
    rng, cp = random_generator(), int(dut.CP.value)
    await check(dut, rng.integers(-128, 256, (300, cp)), rng.integers(-128, 128, (300, 2, cp)).astype(np.int8))


@cocotb.test()
async def every_pair_of_extremes_in_all_channels_at_once(dut):
    cp = int(dut.CP.value)
    cases = list(product((-128, -1, 0, 1, 255), (-128, -1, 0, 127), (-128, -1, 0, 127)))
    activations = np.array([[a] * cp for a, _, _ in cases])
    weights = np.array([[[low] * cp, [high] * cp] for _, low, high in cases], np.int8)
    await check(dut, activations, weights)


@pytest.mark.parametrize("cp", [4, 8, 16, 64])
def test_dot_pair(cp):
    run_bench("dot_pair", __name__, {"CP": cp})
