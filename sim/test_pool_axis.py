"""pool_axis == the windows written out pixel by pixel, for every kernel, stride and padding, over several lines of the image."""

import itertools
import random

import cocotb
from cocotb.triggers import ReadOnly, RisingEdge

from sim.bench import run_bench
from sim.streams import cycles, random_generator, start


def windows(size, kernel, stride, pad, pooled):
    """{pixel: (window, pixels of it inside the image)} of every window's last pixel inside."""
    spans = [range(max(0, w * stride - pad), min(size, w * stride - pad + kernel)) for w in range(pooled)]
    return {span[-1]: (w, len(span)) for w, span in enumerate(spans)}


async def walk(dut, size, kernel, stride, pad, pooled, lines=3):
    """Go along ``lines`` lines of ``size`` pixels with pauses, and compare what stands at each pixel."""
    complete = windows(size, kernel, stride, pad, pooled)
    dut.kernel_i.value, dut.stride_i.value, dut.pad_i.value = kernel, stride, pad
    dut.size_i.value, dut.pooled_size_i.value = size, pooled
    dut.restart_i.value = 1
    await cycles(dut, 2)
    dut.restart_i.value = 0
    for at in [*range(size)] * lines:
        while random.random() < 0.3:
            await RisingEdge(dut.clk_i)
        dut.advance_i.value = 1
        await ReadOnly()
        what = f"pixel {at} of {size}, kernel {kernel}, stride {stride}, pad {pad}, {pooled} windows"
        assert bool(dut.last_o.value) == (at == size - 1), what
        assert bool(dut.complete_o.value) == (at in complete), what
        if at in complete:
            window, inside = complete[at]
            assert int(dut.pooled_o.value) == window, what
            assert bool(dut.pooled_last_o.value) == (window == pooled - 1), what
            assert int(dut.inside_o.value) == inside - 1, what
        await RisingEdge(dut.clk_i)
        dut.advance_i.value = 0


@cocotb.test()
async def every_window_ends_at_its_last_pixel_inside(dut):
    rng = random_generator()
    await start(dut, restart_i=1, advance_i=0, kernel_i=1, stride_i=1, pad_i=0, size_i=1, pooled_size_i=1)
    for kernel, stride in itertools.product((1, 2, 3), (1, 2, 3)):
        for pad, tail in itertools.product(range(min(kernel, stride)), repeat=2):
            for size in rng.integers(1, 12, 3).tolist():
                pooled = (size + pad + tail - kernel) // stride + 1
                if pooled >= 1:
                    await walk(dut, size, kernel, stride, pad, pooled)


def test_pool_axis():
    run_bench("pool_axis", __name__)
