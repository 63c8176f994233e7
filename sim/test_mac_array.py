"""mac_array and the dot_pair within it == an integer matrix product, extremes included."""

from collections import deque

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from sim import latencies
from sim.bench import run_bench
from sim.streams import from_fields, random_generator, start, to_vector


class Bench:
    """A new word every cycle, a new tile of weights every few."""

    def __init__(self, dut):
        self.dut = dut
        self.cp, self.kp = int(dut.CP.value), int(dut.KP.value)
        self.sum_bits = len(dut.sums_o) // self.kp
        field_bits = int(dut.FIELD_BITS.value)
        self.chain, self.latency = latencies.chain(field_bits), latencies.array(self.cp, field_bits)
        self.rng = random_generator()

    async def check(self, words, weights, signed, zero=None):
        """``words`` [n, cp] as bytes, ``weights`` [tiles, kp, cp] for n / tiles words each; signed and zero [n]."""
        d, n = self.dut, len(words)
        pace = n // len(weights)
        zero = np.zeros(n, bool) if zero is None else zero
        await start(d, zero_i=0, signed_i=0, word_i=0, swap_i=0, weights_i=0)
        expected = deque()
        for i in range(n + self.latency):
            # The tile is swapped in one cycle after its first word, and read in the cycles that follow.
            d.swap_i.value = int(i % pace == 1 and i <= n)
            tile, age = divmod(i - 2, pace)
            if 0 <= tile < len(weights) and age < self.chain:
                d.weights_i.value = to_vector(weights[tile])
            else:
                d.weights_i.value = to_vector(self.rng.integers(0, 256, self.kp * self.cp).astype(np.uint8))
            if i < n:
                d.word_i.value, d.signed_i.value, d.zero_i.value = to_vector(words[i]), int(signed[i]), int(zero[i])
                values = words[i].view(np.int8) if signed[i] else words[i]
                product = weights[i // pace].astype(np.int64) @ values.astype(np.int64)
                expected.append(np.zeros_like(product) if zero[i] else product)
            await RisingEdge(d.clk_i)
            if i >= self.latency:
                sums = from_fields(int(d.sums_o.value), self.sum_bits, self.kp)
                assert np.array_equal(sums, expected.popleft()), f"word {i - self.latency}"
        assert not expected


@cocotb.test()
async def random_words_and_weights(dut):
    bench = Bench(dut)
    rng, n = bench.rng, 200
    words = rng.integers(0, 256, (n, bench.cp)).astype(np.uint8)
    weights = rng.integers(-128, 128, (n // 4, bench.kp, bench.cp)).astype(np.int8)
    await bench.check(words, weights, signed=rng.random(n) < 0.5, zero=rng.random(n) < 0.2)


@cocotb.test()
async def extremes_neither_saturate_nor_borrow(dut):
    bench = Bench(dut)
    rng, n = bench.rng, 200
    # Whole words of one extreme make the largest sums; mixed ones exercise the borrow between the packed fields.
    words = rng.choice(np.array([0, 1, 127, 128, 255], np.uint8), (n, bench.cp))
    weights = rng.choice(np.array([-128, -127, -1, 0, 1, 127], np.int8), (n // 4, bench.kp, bench.cp))
    for i in range(0, n, 2):
        words[i] = rng.choice(np.array([127, 128, 255], np.uint8))
    for i in range(0, n // 4, 2):
        weights[i] = rng.choice(np.array([-128, 127], np.int8), (bench.kp, 1))
    await bench.check(words, weights, signed=rng.random(n) < 0.5)


@pytest.mark.parametrize(
    ("cp", "kp", "field_bits"), [(8, 4, 18), (16, 16, 18), (64, 4, 18), (4, 2, 18), (8, 4, 16), (8, 8, 0)]
)
def test_mac_array(cp, kp, field_bits):
    run_bench("mac_array", __name__, {"CP": cp, "KP": kp, "FIELD_BITS": field_bits})
