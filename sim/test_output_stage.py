"""output_stage == hw.golden.requantise, for every kind of number it can meet."""

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from hw.golden import requantise
from hw.stream import PARAMETER
from sim.bench import run_bench
from sim.streams import cycles, from_fields, random_generator, start, to_vector

INT32 = np.iinfo(np.int32)


class Bench:
    """Feeds pixels with random gaps and collects what comes out."""

    def __init__(self, dut, idle=0.3):
        self.dut = dut
        self.kp = int(dut.KP.value)
        self.idle = idle
        self.rng = random_generator()
        self.out = []

    async def start(self):
        await start(self.dut, valid_i=0)
        cocotb.start_soon(self._collect())

    async def _collect(self):
        while True:
            await RisingEdge(self.dut.clk_i)
            if self.dut.valid_o.value:
                self.out.append(from_fields(int(self.dut.data_o.value), 9, self.kp))

    async def check(self, acc, bias, shift, residual=None, res_shift=None, signed=False, low=0, high=255):
        """Send [pixels, kp] values, each pixel with its own parameters, and compare."""
        d = self.dut
        self.out.clear()
        d.res_enable_i.value = residual is not None
        d.res_signed_i.value = signed
        d.clip_low_i.value = low & 0x1FF
        d.clip_high_i.value = high & 0x1FF
        used = np.zeros_like(acc) if residual is None else residual
        res_shift = np.zeros_like(acc) if res_shift is None else res_shift
        parameters = np.zeros(acc.shape, PARAMETER)
        parameters["bias"], parameters["shift"], parameters["res_shift"] = bias, shift, res_shift
        parameters["spare"] = self.rng.integers(0, 1 << 16, acc.shape)
        # What is not enabled must not matter.
        bus = self.rng.integers(0, 256, acc.shape) if residual is None else residual
        for pixel in range(len(acc)):
            while self.rng.random() < self.idle:
                await RisingEdge(d.clk_i)
            d.valid_i.value = 1
            d.acc_i.value = to_vector(acc[pixel].astype(np.int32))
            d.params_i.value = to_vector(parameters[pixel])
            d.residual_i.value = to_vector(bus[pixel].astype(np.uint8))
            await RisingEdge(d.clk_i)
            d.valid_i.value = 0
        await cycles(d, 8)
        assert np.array_equal(self.out, requantise(acc, bias, used, res_shift, shift, low, high))


@cocotb.test()
async def random_values_with_and_without_residual(dut):
    bench = Bench(dut)
    await bench.start()
    rng, shape = bench.rng, (60, bench.kp)
    for signed, low, high in [(False, 0, 255), (True, -128, 127), (False, 3, 200), (True, -7, -5)]:
        # All magnitudes, total within int32 as the compiler proves.
        size = 1 << rng.integers(1, 30, shape)
        acc, bias = rng.integers(-size, size), rng.integers(-size, size)
        shift = rng.integers(0, 32, shape)
        await bench.check(acc, bias, shift, low=low, high=high)
        residual = rng.integers(*((-128, 128) if signed else (0, 256)), shape)
        res_shift = rng.integers(0, 22, shape)
        await bench.check(acc >> 1, bias >> 1, shift, residual, res_shift, signed, low, high)


@cocotb.test()
async def exact_halves_go_to_even(dut):
    bench = Bench(dut, idle=0.0)
    await bench.start()
    shape = (80, bench.kp)
    shift = bench.rng.integers(1, 24, shape)
    kept = bench.rng.integers(-130, 130, shape)
    nudge = bench.rng.integers(-1, 2, shape)  # just below, on, and just above the half
    total = (kept << shift) + (1 << shift >> 1) + nudge
    bias = bench.rng.integers(-1000, 1000, shape)
    await bench.check(total - bias, bias, shift, low=-128, high=127)


@cocotb.test()
async def the_ends_of_int32(dut):
    bench = Bench(dut)
    await bench.start()
    shape = (64, bench.kp)
    total = bench.rng.choice([INT32.min, INT32.min + 1, -1, 0, 1, INT32.max - 1, INT32.max], shape)
    bias = np.where(total < 0, bench.rng.integers(INT32.min, 1, shape), bench.rng.integers(0, INT32.max, shape))
    shift = bench.rng.choice([0, 1, 22, 23, 24, 30, 31], shape)
    await bench.check(total - bias, bias, shift, low=-128, high=127)
    await bench.check(total - bias, bias, shift)


@cocotb.test()
async def the_whole_range_survives_when_nothing_is_shifted(dut):
    bench = Bench(dut)
    await bench.start()
    values = np.arange(-300, 300).reshape(-1, 1) + np.zeros(bench.kp, np.int64)
    zero = np.zeros_like(values)
    await bench.check(values, zero, zero)
    await bench.check(values, zero, zero, low=-128, high=127)


@pytest.mark.parametrize("kp", [8])
def test_output_stage(kp):
    run_bench("output_stage", __name__, {"KP": kp})
