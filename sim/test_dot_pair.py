"""dot_pair == two integer dot products, for every pair of extreme weights and activations."""

from collections import deque
from itertools import product

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from sim import latencies
from sim.bench import run_bench
from sim.streams import from_fields, random_generator, start, to_vector


async def check(dut, activations, weights):
    """``activations`` [n, words, cp] in -128..255, ``weights`` [n, 2, cp] int8: each pair of rows meets its words, without a gap.

    Channel c comes c % chain cycles late, and the weights stay no longer than they must.
    """
    cp, chain = int(dut.CP.value), latencies.chain(int(dut.FIELD_BITS.value))
    latency = latencies.array(cp, int(dut.FIELD_BITS.value)) - 2  # without the array's broadcast registers
    words = activations.reshape(-1, cp)
    per_tile = activations.shape[1]
    assert per_tile >= chain
    rng = random_generator()
    await start(dut, activations_i=0, weights_i=0, swap_i=0)
    expected = deque()
    for t in range(-1, len(words) + latency):
        late = np.arange(cp) % chain
        known = (t - late >= 0) & (t - late < len(words))
        values = np.where(known, words[np.clip(t - late, 0, len(words) - 1), np.arange(cp)], 0)
        dut.activations_i.value = sum((int(a) & 0x1FF) << 9 * c for c, a in enumerate(values))
        dut.swap_i.value = int((t + 1) % per_tile == 0 and t + 1 < len(words))
        tile, age = divmod(max(t, 0), per_tile)
        held = tile < len(weights) and age < chain
        dut.weights_i.value = to_vector(weights[tile] if held else rng.integers(0, 256, (2, cp)).astype(np.uint8))
        if 0 <= t < len(words):
            expected.append(weights[tile].astype(np.int64) @ words[t].astype(np.int64))
        await RisingEdge(dut.clk_i)
        if t >= latency:
            sums = from_fields(int(dut.sums_o.value), len(dut.sums_o) // 2, 2)
            assert np.array_equal(sums, expected.popleft()), f"{cp} channels, word {t - latency}"
    assert not expected


@cocotb.test()
async def random_values(dut):
    rng, cp = random_generator(), int(dut.CP.value)
    await check(dut, rng.integers(-128, 256, (60, 5, cp)), rng.integers(-128, 128, (60, 2, cp)).astype(np.int8))


@cocotb.test()
async def every_pair_of_extremes_in_all_channels_at_once(dut):
    cp = int(dut.CP.value)
    cases = list(product((-128, -1, 0, 1, 255), (-128, -1, 0, 127), (-128, -1, 0, 127)))
    activations = np.array([[[a] * cp] * 4 for a, _, _ in cases])
    weights = np.array([[[low] * cp, [high] * cp] for _, low, high in cases], np.int8)
    await check(dut, activations, weights)


@pytest.mark.parametrize(("cp", "field_bits"), [(4, 18), (16, 18), (64, 18), (16, 17), (16, 16), (8, 0), (64, 0)])
def test_dot_pair(cp, field_bits):
    run_bench("dot_pair", __name__, {"CP": cp, "FIELD_BITS": field_bits})
