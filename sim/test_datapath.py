"""datapath: whole random layers, driven step by step, leave in the banks what hw.golden.execute leaves, and busy_o says when."""

import random
from collections import deque
from dataclasses import replace
from itertools import islice

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from hw.golden import execute
from hw.isa import DESCRIPTOR_BYTES, FEATURE_BYTES, PARAMETER_BYTES, ArrayConfig, Pool
from hw.stream import encode_layer
from sim import latencies
from sim.bench import run_bench
from sim.random_layers import random_program
from sim.streams import Source, cycles, from_vector, random_generator, start, to_vector, until
from sim.test_pass_sequencer import SLOTS, STEP, Drain, expected_drains, expected_steps, tile_pixels

MIN_PASS = 4
READ_LATENCY = latencies.READ
SHORTEST_WAY = latencies.READ + latencies.array(8, 18) + 8
"""Cycles from a step to the write of its pixel, at least."""


def parameters(kp):
    return {"CP": 8, "KP": kp, "BANKS": 8, "BANK_WORDS": 64, "ACC_DEPTH": 32, "STREAM_BYTES": kp, "POOL_COLUMNS": 32}


def config(kp):
    p = parameters(kp)
    return ArrayConfig(
        "small", p["CP"], kp, p["BANKS"], p["BANK_WORDS"], p["ACC_DEPTH"], ports=1, port_bytes=kp, pool_columns=32
    )


def step(conv=None, drain=None, swap=False):
    """A step's bits, from the sequencer bench's view of what it does."""
    fields = dict.fromkeys(STEP, 0) | {"swap": swap}
    if conv:
        first, _, index, address = conv
        fields |= {"conv_valid": 1, "first": first, "index": index, "conv_read": address is not None}
        fields["conv_addr"] = random.getrandbits(24) if address is None else address
    if drain:
        fields |= {"drain_valid": 1, "index": drain.index, "drain_last": drain.last, "drain_slot": drain.slot}
        if drain.residual:
            fields |= {"res_read": 1, "res_addr": drain.residual[0], "res_group": drain.residual[1]}
    word, position = 0, 0
    for name, width in STEP.items():
        word |= int(fields[name]) << position
        position += width
    return word


def passes(d, groups, slot):
    """(takes a weight tile, steps) of each pass of a layer: a tile is drained in the next one's first pass, or in a pass of its own."""
    convs, drains, waiting = expected_steps(d), expected_drains(d, groups, slot), 0
    for block in range(d.out_blocks):
        for tile in range(d.tiles):
            pixels = len(tile_pixels(d, tile))
            for _ in range(d.passes_per_tile):
                conv, drain, waiting = list(islice(convs, pixels)), list(islice(drains, waiting)), 0
                length = max(MIN_PASS, len(conv), len(drain))
                conv += [None] * (length - len(conv))
                drain += [None] * (length - len(drain))
                yield True, [step(c, n, swap=i == 0) for i, (c, n) in enumerate(zip(conv, drain, strict=True))]
            waiting = pixels
            if d.exclusive_drain or (block, tile) == (d.out_blocks - 1, d.tiles - 1):
                drain, waiting = list(islice(drains, pixels)), 0
                yield False, [step(drain=n) for n in [*drain, *[None] * (MIN_PASS - pixels)]]


class Bench:
    """Image words, the weight stream and steps at random pace; watches busy_o and fault_o all the time."""

    def __init__(self, dut, gap):
        self.dut, self.gap = dut, gap
        self.config = config(int(dut.KP.value))
        self.rng = random_generator()
        self.slot = 0
        self.busy_for = 0
        self.faults = 0

    async def start(self):
        names = ["layer_i", "layer_start_i", "step_i", "tile_take_i", "params_valid_i", "weights_valid_i", "word_i"]
        await start(
            self.dut, **dict.fromkeys([*names, "weights_available_i", "store_read_i", "store_addr_i", "img_valid_i"], 0)
        )
        d = self.dut
        self.image = Source(d.clk_i, d.img_valid_i, d.img_ready_o, d.img_data_i, self.gap)
        cocotb.start_soon(self._watch())

    async def _watch(self):
        d = self.dut
        while True:
            await RisingEdge(d.clk_i)
            self.faults += int(d.fault_o.value)
            self.busy_for = self.busy_for + 1 if d.busy_o.value else 0
            if d.write_en.value:
                assert self.busy_for > SHORTEST_WAY, "busy_o was low while a pixel was on its way to the banks"

    async def pause(self):
        """Nothing for a while: mostly short, now and then until the pipeline has run empty."""
        while random.random() < self.gap:
            await RisingEdge(self.dut.clk_i)
        if random.random() < self.gap / 20:
            await cycles(self.dut, 40)

    async def write(self, addresses, words):
        """Write words through the image's port."""
        for address, word in zip(addresses, words, strict=True):
            self.dut.img_addr_i.value = int(address)
            await self.image.send([to_vector(word)])

    async def fill(self):
        """Write random words to all banks."""
        memory = self.rng.integers(0, 256, (self.config.total_words, self.config.cp)).astype(np.uint8)
        await self.write(range(len(memory)), memory)
        return memory

    def free_words(self, d):
        """Addresses that a layer neither reads nor writes."""
        c, free = self.config, np.ones(self.config.total_words, bool)
        blocks = c.blocks_in(d.out_blocks * c.kp)
        image = d.in_origin + d.pad_top * d.in_width + d.pad_left
        free[image : image + d.in_blocks * d.in_plane] = False
        free[d.out_base : d.out_base + max(d.pooled_height * d.pooled_width, FEATURE_BYTES) * blocks] = False
        if d.res_enable:
            free[d.res_base : d.res_base + d.out_height * d.out_width * blocks] = False
        return np.flatnonzero(free)

    async def read(self, addresses):
        """Words of the banks through the feature store's port, one a cycle."""
        d, found = self.dut, []
        addresses = [int(a) for a in addresses]
        for cycle in range(len(addresses) + READ_LATENCY):
            d.store_read_i.value = cycle < len(addresses)
            d.store_addr_i.value = addresses[cycle] if cycle < len(addresses) else 0
            await RisingEdge(d.clk_i)
            if cycle >= READ_LATENCY:
                found.append(from_vector(int(d.store_data_o.value), np.uint8, self.config.cp))
        return np.array(found, np.uint8).reshape(-1, self.config.cp)

    async def stream(self, layer):
        """Send a layer's parameters and weight tiles as the loader does; ``weights_available_i`` tells the level of the FIFO behind."""
        d, c, rows = self.dut, self.config, layer.descriptor.passes_per_tile
        payload = encode_layer(layer, c)[c.padded(DESCRIPTOR_BYTES) :]
        words = np.frombuffer(payload, np.uint8).reshape(-1, c.stream_bytes)
        heads, weights = c.padded(PARAMETER_BYTES * c.kp) // c.stream_bytes, c.padded(c.macs) // c.stream_bytes
        level = at = 0
        while at < len(words):
            level += level < len(words) - at and random.random() >= self.gap
            in_weights = at % (heads + rows * weights) >= heads
            d.params_valid_i.value = level > 0 and not in_weights
            d.weights_valid_i.value = level > 0 and in_weights
            d.weights_available_i.value = level if in_weights else 0
            d.word_i.value = to_vector(words[at])
            await RisingEdge(d.clk_i)
            if level and (d.weights_ready_o if in_weights else d.params_ready_o).value:
                level, at = level - 1, at + 1
        d.params_valid_i.value = d.weights_valid_i.value = d.weights_available_i.value = 0

    async def steps(self, layer):
        """Issue a layer's steps: a pass takes its tile two cycles before its first step, at the earliest with the step before the last."""
        d, todo = self.dut, deque(passes(layer.descriptor, self.config.lane_groups, self.slot))
        running, ready, now, following = deque(), False, 0, 0
        while todo or running or following:
            await self.pause()
            now, following = following, running.popleft() if running else 0
            take = False
            if not running and todo and (ready or not todo[0][0]):
                take, pixels = todo.popleft()
                running.extend(pixels)
            d.step_i.value, d.tile_take_i.value = now, take
            await RisingEdge(d.clk_i)
            ready = bool(d.tile_ready_o.value) and not take
            d.step_i.value = d.tile_take_i.value = 0
        self.slot = (self.slot + layer.descriptor.out_blocks * layer.descriptor.tiles) % SLOTS

    async def layer(self, layer):
        """Run one layer; returns when busy_o has fallen."""
        d = self.dut
        d.layer_i.value = int.from_bytes(layer.descriptor.pack(), "little")
        d.layer_start_i.value = 1
        await RisingEdge(d.clk_i)
        d.layer_start_i.value = 0
        streaming = cocotb.start_soon(self.stream(layer))
        await self.steps(layer)
        await until(d, lambda: not d.busy_o.value, 100, "busy_o falls")
        assert streaming.done(), "the layer ended without all of its weights"

    def expected(self, layer, memory):
        """What the layer makes of ``memory``."""
        after = memory.copy()
        weights = layer.weights.astype(np.int64)
        numbers = (n.astype(np.int64) for n in (layer.bias, layer.shift, layer.res_shift))
        execute(layer.descriptor, weights, *numbers, after, self.config)
        return after


async def compare(dut, gap, programs, wanted):
    """Run ``programs`` random programs whose layers include a ``wanted`` one, and compare all banks after each layer."""
    bench = Bench(dut, gap)
    await bench.start()
    while programs:
        program = random_program(bench.rng, bench.config, layers=3, size=5, channels=20)
        if not any(wanted(d) for d in program.descriptors()):
            continue
        programs -= 1
        memory = await bench.fill()
        for layer in program.layers():
            # Meanwhile words of the next image come in.
            image = bench.rng.permutation(bench.free_words(layer.descriptor))[:40]
            words = bench.rng.integers(0, 256, (len(image), bench.config.cp)).astype(np.uint8)
            writing = cocotb.start_soon(bench.write(image, words))
            expected = bench.expected(layer, memory)
            await bench.layer(layer)
            # The words written last are read first, as soon as busy_o has fallen.
            changed = np.flatnonzero((expected != memory).any(axis=1))[::-1]
            assert np.array_equal(await bench.read(changed), expected[changed]), f"{layer.descriptor}"
            await writing
            expected[image] = words
            assert np.array_equal(await bench.read(range(len(memory))), expected), f"{layer.descriptor}"
            memory = expected
        assert not bench.faults


@cocotb.test()
@cocotb.parametrize(gap=[0.0, 0.4])
async def layers_leave_what_the_golden_model_leaves(dut, gap):
    await compare(dut, gap, 4, lambda d: d.passes_per_tile > 1)


@cocotb.test()
@cocotb.parametrize(gap=[0.0, 0.4])
async def residuals_are_added_as_the_golden_model_does(dut, gap):
    await compare(dut, gap, 3, lambda d: d.res_enable and d.out_blocks > 1)


@cocotb.test()
@cocotb.parametrize(mode=[Pool.MAX, Pool.AVERAGE, Pool.GLOBAL_SUM])
async def pooled_layers_leave_what_the_golden_model_leaves(dut, mode):
    await compare(dut, 0.1, 2, lambda d: d.pool_mode == mode)


@cocotb.test()
async def an_address_beyond_the_banks_raises_a_fault(dut):
    bench = Bench(dut, gap=0.0)
    await bench.start()
    for beyond in (bench.config.total_words, (1 << 24) - 1):
        residual = Drain(index=0, last=False, slot=0, residual=(beyond, 0))
        ports = [{"step_i": step(conv=(True, False, 0, beyond))}, {"step_i": step(drain=residual)}]
        ports += [{"store_read_i": 1, "store_addr_i": beyond}, {"img_valid_i": 1, "img_addr_i": beyond}]
        for inputs in ports:
            before = bench.faults
            for name, value in inputs.items():
                getattr(dut, name).value = value
            await RisingEdge(dut.clk_i)
            for name in inputs:
                getattr(dut, name).value = 0
            await cycles(dut, 3)
            assert bench.faults == before + 1, f"no fault from {inputs}"
            await cycles(dut, 30)


@cocotb.test()
async def an_output_beyond_the_banks_raises_a_fault_and_touches_nothing(dut):
    bench = Bench(dut, gap=0.1)
    await bench.start()
    memory = await bench.fill()
    program = random_program(bench.rng, bench.config, layers=1, size=5, channels=20)
    (layer,) = program.layers()
    await bench.layer(replace(layer, descriptor=replace(layer.descriptor, out_base=bench.config.total_words)))
    await cycles(dut, 2)
    assert bench.faults
    assert np.array_equal(await bench.read(range(len(memory))), memory)


@pytest.mark.parametrize("kp", [8, 4])
def test_datapath(kp):
    run_bench("datapath", __name__, parameters(kp))
