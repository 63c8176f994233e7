"""pool == hw.golden.pool for every mode, window, stride, padding and odd size."""

import itertools
import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from hw.golden import pool
from hw.isa import LayerDescriptor, Pool
from sim.bench import run_bench
from sim.streams import cycles, from_vector, random_generator, start, to_fields


class Bench:
    """Streams whole layers through the pool, without a reset between them, as the datapath does."""

    def __init__(self, dut, idle=0.2):
        self.dut = dut
        self.kp, self.columns = int(dut.KP.value), int(dut.COLUMNS.value)
        self.idle = idle
        self.rng = random_generator()
        self.pixels, self.last, self.sums = [], [], []

    async def start(self):
        await start(self.dut, valid_i=0)
        cocotb.start_soon(self._collect())

    async def _collect(self):
        d = self.dut
        while True:
            await RisingEdge(d.clk_i)
            if d.valid_o.value:
                self.pixels.append(int(d.data_o.value))
                self.last.append(bool(d.block_last_o.value))
            if d.sum_valid_o.value:
                self.sums.append(from_vector(int(d.sum_o.value), np.int32, self.kp))

    async def layer(self, d, blocks=2):
        """Send ``blocks`` output blocks of random pixels and compare each with the golden model."""
        dut = self.dut
        self.pixels.clear()
        self.last.clear()
        self.sums.clear()
        dut.mode_i.value, dut.kernel_i.value, dut.stride_i.value = d.pool_mode, d.pool_kernel, d.pool_stride
        dut.pad_i.value, dut.shift_i.value = d.pool_pad, d.pool_shift
        dut.width_i.value, dut.height_i.value = d.out_width, d.out_height
        dut.pooled_width_i.value, dut.pooled_height_i.value = d.pooled_width, d.pooled_height
        await cycles(dut, 2)
        signed = self.rng.random() < 0.5
        low, high, dtype = (-128, 128, np.int8) if signed else (0, 256, np.uint8)
        x = self.rng.integers(low, high, (blocks, d.out_height, d.out_width, self.kp))
        if self.rng.random() < 0.3:
            x = np.where(x % 2, low, high - 1)  # extremes only
        for pixel in x.reshape(-1, self.kp):
            while random.random() < self.idle:
                dut.valid_i.value = 0
                await RisingEdge(dut.clk_i)
            dut.valid_i.value = 1
            dut.data_i.value = to_fields(pixel, 9)
            await RisingEdge(dut.clk_i)
        dut.valid_i.value = 0
        await cycles(dut, 2)
        while dut.busy_o.value:
            await RisingEdge(dut.clk_i)
        await cycles(dut, 2)
        expected = np.stack([pool(block, d) for block in x])
        if d.pool_mode == Pool.GLOBAL_SUM:
            assert not self.pixels
            assert np.array_equal(self.sums, expected.reshape(blocks, self.kp)), str(d)
        else:
            assert not self.sums
            found = [from_vector(value, dtype, self.kp) for value in self.pixels]
            assert np.array_equal(found, expected.reshape(-1, self.kp)), f"{'int8' if signed else 'uint8'}: {d}"
            size = d.pooled_height * d.pooled_width
            assert self.last == [(i + 1) % size == 0 for i in range(blocks * size)], str(d)


def windows(height, width, mode, kernel, stride, pad, tails):
    """A descriptor with this pool, or None where no window fits. ``tails`` are the zeros below and to the right."""
    rows, columns = ((n + pad + tail - kernel) // stride + 1 for n, tail in zip((height, width), tails, strict=True))
    if rows < 1 or columns < 1:
        return None
    return LayerDescriptor(
        out_height=height,
        out_width=width,
        pool_mode=mode,
        pool_kernel=kernel,
        pool_stride=stride,
        pool_pad=pad,
        pool_shift=2 if mode == Pool.AVERAGE else 0,
        pooled_height=rows,
        pooled_width=columns,
    )


@cocotb.test()
@cocotb.parametrize(idle=[0.0, 0.4])
async def every_maximum_window(dut, idle):
    bench = Bench(dut, idle)
    await bench.start()
    for kernel, stride in itertools.product((1, 2, 3), (1, 2, 3)):
        for pad in range(min(kernel, stride)):
            tails = [random.randrange(min(kernel, stride)) for _ in range(2)]
            size = [random.randint(1, 9) for _ in range(2)]
            if d := windows(*size, Pool.MAX, kernel, stride, pad, tails):
                await bench.layer(d)


@cocotb.test()
async def averages_round_half_to_even(dut):
    bench = Bench(dut)
    await bench.start()
    for stride in (1, 2, 3):
        for pad in range(min(2, stride)):
            size = [random.randint(2, 9) for _ in range(2)]
            await bench.layer(windows(*size, Pool.AVERAGE, 2, stride, pad, (0, random.randrange(min(2, stride)))))


@cocotb.test()
async def narrow_and_low_images(dut):
    bench = Bench(dut, idle=0.0)
    await bench.start()
    for height, width in [(1, 1), (1, 7), (7, 1), (2, 1), (1, 2), (5, 2), (9, 1)]:
        for kernel, stride, pad in [(3, 2, 1), (2, 2, 0), (3, 1, 0), (3, 3, 2), (1, 1, 0), (2, 2, 1)]:
            tail = min(kernel, stride) - 1
            if d := windows(height, width, Pool.MAX, kernel, stride, pad, (tail, tail)):
                await bench.layer(d, blocks=3)


@cocotb.test()
async def rows_as_wide_as_the_line_buffer(dut):
    bench = Bench(dut, idle=0.0)
    await bench.start()
    await bench.layer(windows(5, 2 * bench.columns, Pool.MAX, 3, 2, 1, (0, 0)))
    await bench.layer(windows(4, bench.columns + 2, Pool.MAX, 3, 1, 0, (0, 0)))


@cocotb.test()
async def plain_streams_and_global_sums(dut):
    bench = Bench(dut)
    await bench.start()
    for _ in range(6):
        height, width = (random.randint(1, 12) for _ in range(2))
        plain = LayerDescriptor(out_height=height, out_width=width, pooled_height=height, pooled_width=width)
        await bench.layer(plain)
        await bench.layer(
            LayerDescriptor(
                out_height=height, out_width=width, pooled_height=1, pooled_width=1, pool_mode=Pool.GLOBAL_SUM
            ),
            blocks=3,
        )


@cocotb.test()
async def layers_of_all_kinds_follow_each_other(dut):
    bench = Bench(dut, idle=0.1)
    await bench.start()
    for _ in range(40):
        mode = random.choice([Pool.MAX, Pool.AVERAGE])
        kernel = 2 if mode == Pool.AVERAGE else random.randint(1, 3)
        stride = random.randint(1, 3)
        pad = random.randrange(min(kernel, stride))
        tails = [random.randrange(min(kernel, stride)) for _ in range(2)]
        if d := windows(random.randint(1, 8), random.randint(1, 8), mode, kernel, stride, pad, tails):
            await bench.layer(d, blocks=random.randint(1, 3))


@pytest.mark.parametrize(("kp", "columns"), [(4, 16)])
def test_pool(kp, columns):
    run_bench("pool", __name__, {"KP": kp, "COLUMNS": columns})
