"""act_memory: two readers and two writers on the banks, their order, and what it reports."""

import random

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from sim import latencies
from sim.bench import run_bench
from sim.streams import cycles, from_vector, random_generator, start, to_vector

LATENCY = latencies.READ
FAULT_LATENCY = 2


class Bench:
    """Drives all four ports at random, keeping to what the compiler guarantees, beside a NumPy memory."""

    def __init__(self, dut):
        self.dut = dut
        self.cp, self.kp = int(dut.CP.value), int(dut.KP.value)
        self.banks, self.bank_words = int(dut.BANKS.value), int(dut.BANK_WORDS.value)
        self.groups, self.words = self.cp // self.kp, self.banks * self.bank_words
        self.rng = random_generator()

    async def start(self):
        idle = dict.fromkeys(["conv_en_i", "res_en_i", "out_en_i", "img_valid_i"], 0)
        zero = dict.fromkeys(["conv_addr_i", "res_addr_i", "out_addr_i", "img_addr_i", "out_mask_i"], 0)
        await start(self.dut, **idle, **zero)

    async def fill(self):
        """Write every word through the image port."""
        self.memory = self.rng.integers(0, 256, (self.words, self.cp)).astype(np.uint8)
        d = self.dut
        d.img_valid_i.value = 1
        for address, word in enumerate(self.memory):
            d.img_addr_i.value = address
            d.img_data_i.value = to_vector(word)
            await RisingEdge(d.clk_i)
            assert d.img_ready_o.value
        d.img_valid_i.value = 0

    def bank(self, address):
        return address // self.bank_words


@cocotb.test()
async def four_ports_at_once_read_and_write_what_they_should(dut):
    bench = Bench(dut)
    await bench.start()
    await bench.fill()
    d, rng = dut, bench.rng
    pending = {"conv": [], "res": []}
    image = None  # a word that has not been accepted yet stays on offer
    waited = 0
    for cycle in range(1500 + LATENCY):
        busy = cycle < 1500
        conv, res, out = (int(rng.integers(bench.words)) if busy and random.random() < 0.7 else None for _ in range(3))
        if conv is not None and res is not None and bench.bank(conv) == bench.bank(res):
            res = None
        if image is None and busy and random.random() < 0.5:
            image = int(rng.integers(bench.words)), rng.integers(0, 256, bench.cp).astype(np.uint8)
        for name, address in (("conv", conv), ("res", res)):
            getattr(d, f"{name}_en_i").value = address is not None
            # A reader that wants nothing may name any address.
            getattr(d, f"{name}_addr_i").value = random.getrandbits(24) if address is None else address
        mask = random.getrandbits(bench.groups)
        lanes = rng.integers(0, 256, bench.kp).astype(np.uint8)
        d.out_en_i.value, d.out_mask_i.value = out is not None, mask
        d.out_addr_i.value, d.out_data_i.value = out or 0, to_vector(lanes)
        d.img_valid_i.value = image is not None
        if image:
            d.img_addr_i.value, d.img_data_i.value = image[0], to_vector(image[1])
        await RisingEdge(d.clk_i)
        for name, address in (("conv", conv), ("res", res)):
            pending[name].append(None if address is None else bench.memory[address].copy())
            if len(pending[name]) > LATENCY:
                expected = pending[name].pop(0)
                found = from_vector(int(getattr(d, f"{name}_data_o").value), np.uint8, bench.cp)
                assert expected is None or np.array_equal(found, expected), f"{name} in cycle {cycle - LATENCY}"
        if image:
            conflict = out is not None
            assert bool(d.img_ready_o.value) == (not conflict)
            waited += conflict
            if not conflict:
                bench.memory[image[0]] = image[1]
                image = None
        if out is not None:
            for group in range(bench.groups):
                if mask >> group & 1:
                    bench.memory[out, group * bench.kp : (group + 1) * bench.kp] = lanes
        assert not d.fault_o.value
    assert waited, "the image never had to wait: the bench misses its point"


@cocotb.test()
async def an_address_beyond_the_banks_is_reported_and_touches_nothing(dut):
    bench = Bench(dut)
    await bench.start()
    await bench.fill()
    for address in [bench.words, bench.words + 1, (1 << 24) - 1, random.randrange(bench.words, 1 << 24)]:
        for enable, name in (("conv_en_i", "conv"), ("res_en_i", "res"), ("out_en_i", "out"), ("img_valid_i", "img")):
            getattr(dut, enable).value = 1
            getattr(dut, f"{name}_addr_i").value = address
            dut.out_mask_i.value = (1 << bench.groups) - 1
            await RisingEdge(dut.clk_i)
            getattr(dut, enable).value = 0
            await cycles(dut, FAULT_LATENCY)
            assert dut.fault_o.value, f"{name} at {address}"
            await RisingEdge(dut.clk_i)
            assert not dut.fault_o.value
    for address in range(bench.words):
        dut.conv_en_i.value, dut.conv_addr_i.value = 1, address
        await RisingEdge(dut.clk_i)
        dut.conv_en_i.value = 0
        await cycles(dut, LATENCY)
        found = from_vector(int(dut.conv_data_o.value), np.uint8, bench.cp)
        assert np.array_equal(found, bench.memory[address]), f"word {address} changed"


@cocotb.test()
async def readers_that_meet_in_a_bank_are_reported(dut):
    bench = Bench(dut)
    await bench.start()
    for _ in range(30):
        conv, res = (random.randrange(bench.words) for _ in range(2))
        dut.conv_en_i.value = dut.res_en_i.value = 1
        dut.conv_addr_i.value, dut.res_addr_i.value = conv, res
        await RisingEdge(dut.clk_i)
        dut.conv_en_i.value = dut.res_en_i.value = 0
        await cycles(dut, FAULT_LATENCY)
        assert bool(dut.fault_o.value) == (bench.bank(conv) == bench.bank(res))


@pytest.mark.parametrize(("cp", "kp", "banks", "bank_words"), [(8, 8, 4, 16), (16, 4, 5, 8)])
def test_act_memory(cp, kp, banks, bank_words):
    run_bench("act_memory", __name__, {"CP": cp, "KP": kp, "BANKS": banks, "BANK_WORDS": bank_words})
