"""skid_buffer: order, no loss, a word a cycle, and both directions registered."""

import random

import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge, Timer

from sim.bench import run_bench
from sim.streams import Source, cycles, start


async def begin(dut):
    await start(dut, clear_i=0, valid_i=0, ready_i=0)


@cocotb.test()
@cocotb.parametrize(idle=[0.0, 0.5], stall=[0.0, 0.5, 0.9])
async def words_leave_in_order_and_stay_until_they_are_taken(dut, idle, stall):
    await begin(dut)
    words = [random.getrandbits(len(dut.data_i)) for _ in range(400)]
    source = Source(dut.clk_i, dut.valid_i, dut.ready_o, dut.data_i, idle)
    cocotb.start_soon(source.send(words))
    found, offered = [], None
    while len(found) < len(words):
        ready = random.random() >= stall
        dut.ready_i.value = ready
        await RisingEdge(dut.clk_i)
        if offered is not None:
            assert dut.valid_o.value and int(dut.data_o.value) == offered, "an offered word went away"
        offered = None
        if dut.valid_o.value:
            if ready:
                found.append(int(dut.data_o.value))
            else:
                offered = int(dut.data_o.value)
    assert found == words


@cocotb.test()
async def a_word_passes_every_cycle(dut):
    await begin(dut)
    dut.ready_i.value = dut.valid_i.value = 1
    await cycles(dut, 2)
    for _ in range(50):
        assert dut.ready_o.value and dut.valid_o.value
        await RisingEdge(dut.clk_i)


@cocotb.test()
async def neither_direction_is_combinational(dut):
    await begin(dut)
    for _ in range(200):
        dut.valid_i.value, dut.ready_i.value = random.getrandbits(1), random.getrandbits(1)
        await ReadOnly()
        before = dut.ready_o.value, dut.valid_o.value, dut.data_o.value
        await Timer(1, "ns")
        dut.valid_i.value, dut.ready_i.value = random.getrandbits(1), random.getrandbits(1)
        dut.data_i.value = random.getrandbits(len(dut.data_i))
        await ReadOnly()
        assert (dut.ready_o.value, dut.valid_o.value, dut.data_o.value) == before
        await RisingEdge(dut.clk_i)


@cocotb.test()
async def clearing_empties_it(dut):
    await begin(dut)
    dut.valid_i.value = 1
    await cycles(dut, 4)
    assert dut.valid_o.value and not dut.ready_o.value
    dut.valid_i.value, dut.clear_i.value = 0, 1
    await cycles(dut, 1)
    dut.clear_i.value = 0
    await cycles(dut, 1)
    assert not dut.valid_o.value and dut.ready_o.value


@pytest.mark.parametrize("width", [1, 40])
def test_skid_buffer(width):
    run_bench("skid_buffer", __name__, {"WIDTH": width})
