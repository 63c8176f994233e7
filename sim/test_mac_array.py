"""mac_array and the dot_pair within it == an integer matrix product, extremes included."""

from collections import deque

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from sim.bench import run_bench
from sim.streams import from_fields, random_generator, start, to_vector

LATENCY = 5


class Bench:
    """A new word every cycle; weights change in step with the registered word."""

    def __init__(self, dut):
        self.dut = dut
        self.cp, self.kp = int(dut.CP.value), int(dut.KP.value)
        self.sum_bits = len(dut.sums_o) // self.kp
        self.rng = random_generator()

    async def check(self, words, weights, signed, zero=None):
        """``words`` [n, cp] as bytes, ``weights`` [n, kp, cp]; signed and zero [n]."""
        d = self.dut
        zero = np.zeros(len(words), bool) if zero is None else zero
        await start(d, zero_i=0, signed_i=0, word_i=0, weights_i=0)
        expected = deque()
        for i in range(len(words) + LATENCY):
            # Weights belong to the word of the cycle before: it stands in the array's input register by now.
            if 0 < i <= len(words):
                d.weights_i.value = to_vector(weights[i - 1])
            if i < len(words):
                d.word_i.value, d.signed_i.value, d.zero_i.value = to_vector(words[i]), int(signed[i]), int(zero[i])
                values = words[i].view(np.int8) if signed[i] else words[i]
                product = weights[i].astype(np.int64) @ values.astype(np.int64)
                expected.append(np.zeros_like(product) if zero[i] else product)
            await RisingEdge(d.clk_i)
            if i >= LATENCY:
                sums = from_fields(int(d.sums_o.value), self.sum_bits, self.kp)
                assert np.array_equal(sums, expected.popleft()), f"word {i - LATENCY}"
        assert not expected


@cocotb.test()
async def random_words_and_weights(dut):
    bench = Bench(dut)
    rng, n = bench.rng, 200
    words = rng.integers(0, 256, (n, bench.cp)).astype(np.uint8)
    weights = rng.integers(-128, 128, (n, bench.kp, bench.cp)).astype(np.int8)
    await bench.check(words, weights, signed=rng.random(n) < 0.5, zero=rng.random(n) < 0.2)


@cocotb.test()
async def extremes_neither_saturate_nor_borrow(dut):
    bench = Bench(dut)
    rng, n = bench.rng, 200
    # Whole words of one extreme make the largest sums; mixed ones exercise the borrow between the packed fields.
    words = rng.choice(np.array([0, 1, 127, 128, 255], np.uint8), (n, bench.cp))
    weights = rng.choice(np.array([-128, -127, -1, 0, 1, 127], np.int8), (n, bench.kp, bench.cp))
    for i in range(0, n, 2):
        words[i] = rng.choice(np.array([127, 128, 255], np.uint8))
        weights[i] = rng.choice(np.array([-128, 127], np.int8), (bench.kp, 1))
    await bench.check(words, weights, signed=rng.random(n) < 0.5)


@pytest.mark.parametrize(("cp", "kp"), [(8, 4), (16, 8), (64, 4), (4, 2)])
def test_mac_array(cp, kp):
    run_bench("mac_array", __name__, {"CP": cp, "KP": kp})
