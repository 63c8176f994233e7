"""crc32 == zlib.crc32 on random records; a flipped bit anywhere is noticed."""

import random
import zlib

import cocotb
from cocotb.triggers import RisingEdge

from hw.isa import CRC_BITS, DESCRIPTOR_BYTES
from sim.bench import run_bench
from sim.streams import cycles, random_generator, start

WORDS = (8 * DESCRIPTOR_BYTES - CRC_BITS) // 32


def record(rng):
    body = rng.bytes(DESCRIPTOR_BYTES - CRC_BITS // 8)
    return body + zlib.crc32(body).to_bytes(CRC_BITS // 8, "little")


async def is_right(dut, data):
    """What the block says of a record, and that it says so once, two cycles after its last word."""
    dut.record_i.value = int.from_bytes(data, "little")
    dut.start_i.value = 1
    await RisingEdge(dut.clk_i)
    dut.start_i.value = 0
    dut.record_i.value = random.getrandbits(8 * DESCRIPTOR_BYTES)  # it keeps a copy
    pulses = []
    for cycle in range(WORDS + 10):
        await RisingEdge(dut.clk_i)
        if int(dut.done_o.value):
            pulses.append((cycle, int(dut.ok_o.value)))
    assert len(pulses) == 1 and pulses[0][0] == WORDS + 1, pulses
    return pulses[0][1] == 1


@cocotb.test()
async def whole_records_are_right(dut):
    rng = random_generator()
    await start(dut, start_i=0, record_i=0)
    for _ in range(50):
        assert await is_right(dut, record(rng))
        await cycles(dut, random.randrange(3))


@cocotb.test()
async def a_flipped_bit_is_noticed_wherever_it_is(dut):
    rng = random_generator()
    await start(dut, start_i=0, record_i=0)
    for bit in random.sample(range(8 * DESCRIPTOR_BYTES), 100):
        damaged = bytearray(record(rng))
        damaged[bit // 8] ^= 1 << bit % 8
        assert not await is_right(dut, bytes(damaged)), f"bit {bit}"


def test_crc32():
    run_bench("crc32", __name__)
