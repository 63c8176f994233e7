"""pass_sequencer: the steps it issues, in order, against the plain loop nest, for random layers."""

import random
from dataclasses import dataclass

import cocotb
import pytest
from cocotb.triggers import RisingEdge

from hw.isa import ArrayConfig
from sim.bench import run_bench
from sim.random_layers import random_program
from sim.streams import random_generator, start

# Fields of npu_step_pkg::step_t with their widths, lowest bits first.
STEP = {
    "res_group": 4, "res_addr": 24, "res_read": 1, "drain_slot": 2, "drain_last": 1, "drain_valid": 1,
    "index": 16, "first": 1, "swap": 1, "conv_addr": 24, "conv_read": 1, "conv_valid": 1,
}  # fmt: skip
SLOTS = 4
MIN_PASS = 4
"""Steps that a pass lasts at least, the parameter's default."""
REVISIT = 3
"""Steps after which the accumulator may see the same pixel again."""


def config(groups):
    return ArrayConfig(
        "steps", 4 * groups, 4, banks=8, bank_words=1024, acc_depth=32, ports=1, port_bytes=4, pool_columns=32
    )


@dataclass(frozen=True)
class Drain:
    """One pixel leaves the accumulators."""

    index: int
    last: bool
    slot: int
    residual: tuple[int, int] | None
    """Address and lane group."""


def tile_pixels(d, tile):
    """(row, column) of a tile's output pixels."""
    rows = range(tile * d.tile_rows, min((tile + 1) * d.tile_rows, d.out_height))
    return [(y, x) for y in rows for x in range(d.out_width)]


def expected_steps(d):
    """The array's words: (first, swap, index, address or None for padding)."""
    base = d.in_origin + d.pad_top * d.in_width + d.pad_left
    for _ in range(d.out_blocks):
        for tile in range(d.tiles):
            for number in range(d.passes_per_tile):
                in_block, tap = divmod(number, d.kernel_h * d.kernel_w)
                ky, kx = divmod(tap, d.kernel_w)
                for index, (y, x) in enumerate(tile_pixels(d, tile)):
                    iy, ix = y * d.stride + ky - d.pad_top, x * d.stride + kx - d.pad_left
                    inside = 0 <= iy < d.in_height and 0 <= ix < d.in_width
                    address = base + in_block * d.in_plane + iy * d.in_width + ix if inside else None
                    yield number == 0, index == 0, index, address


def expected_drains(d, groups, slot):
    """What leaves, in order; ``slot`` is the first parameter slot."""
    for block in range(d.out_blocks):
        plane, group = divmod(block, groups)
        for tile in range(d.tiles):
            pixels = tile_pixels(d, tile)
            for index, (y, x) in enumerate(pixels):
                address = d.res_base + plane * d.out_height * d.out_width + y * d.out_width + x
                residual = (address, group) if d.res_enable else None
                yield Drain(index, index == len(pixels) - 1, slot, residual)
            slot = (slot + 1) % SLOTS


class Bench:
    """Weights that come with probability ``supply``, an image that arrives as slowly, and a datapath that stays busy for a while."""

    def __init__(self, dut, supply):
        self.dut, self.supply = dut, supply
        self.groups = int(dut.GROUPS.value)
        self.rng = random_generator()
        self.slot = 0

    async def start(self):
        await start(self.dut, layer_valid_i=0, layer_i=0, tile_ready_i=0, image_limit_i=0, busy_i=0)

    def step(self):
        value, fields = int(self.dut.step_o.value), {}
        for name, width in STEP.items():
            fields[name] = value & ((1 << width) - 1)
            value >>= width
        return fields

    async def layer(self, d, image_words):
        """Run one layer and check every step. Returns the cycles it took."""
        dut = self.dut
        dut.layer_i.value = int.from_bytes(d.pack(), "little")
        dut.layer_valid_i.value = 1
        await RisingEdge(dut.clk_i)
        while not dut.layer_ready_o.value:
            await RisingEdge(dut.clk_i)
        dut.layer_valid_i.value = 0
        image_base = d.in_origin + d.pad_top * d.in_width + d.pad_left
        limit = image_base if d.in_is_image else 0
        limit_before = limit
        convs, drains = expected_steps(d), expected_drains(d, self.groups, self.slot)
        accumulators, recent, takes, swaps, idle, cycles = {}, [], 0, 0, 0, 0
        smallest = min(len(tile_pixels(d, tile)) for tile in range(d.tiles))
        stretched = smallest < MIN_PASS or d.exclusive_drain or d.in_is_image  # pauses that are not for weights
        tile_ready, begun, pause, waits = False, False, 0, 0
        while True:
            dut.image_limit_i.value = limit
            dut.tile_ready_i.value = tile_ready
            dut.busy_i.value = idle < 5
            await RisingEdge(dut.clk_i)
            cycles += 1
            assert cycles < 200_000, f"the layer does not end: {d}"
            if dut.tile_take_o.value:
                assert tile_ready, "took a tile that was not ready"
                takes += 1
                tile_ready = False
            tile_ready = tile_ready or random.random() < self.supply
            step = self.step()
            moving = step["conv_valid"] or step["drain_valid"]
            idle = 0 if moving else idle + 1
            waiting = int(dut.weight_wait_o.value)
            assert int(dut.conv_o.value) + int(dut.drain_o.value) + waiting <= 1, "a cycle is booked twice"
            assert moving == (dut.conv_o.value or dut.drain_o.value)
            if moving:
                # The cycle in which the pass starts after all is not a wait.
                assert not begun or stretched or waits == max(0, pause - 1), (
                    f"{waits} of {pause} cycles were waits: {d}"
                )
                begun, pause, waits = True, 0, 0
            else:
                pause, waits = pause + 1, waits + waiting
            if moving:
                assert step["index"] not in recent, f"pixel {step['index']} again within {REVISIT} cycles"
            recent = [*recent, step["index"] if moving else None][1 - REVISIT :]
            if step["drain_valid"]:
                residual = (step["res_addr"], step["res_group"]) if step["res_read"] else None
                found = Drain(step["index"], bool(step["drain_last"]), step["drain_slot"], residual)
                assert found == next(drains), str(d)
                assert accumulators[step["index"]] == d.passes_per_tile, "drained before its last pass"
            if step["conv_valid"]:
                address = step["conv_addr"] if step["conv_read"] else None
                found = (bool(step["first"]), bool(step["swap"]), step["index"], address)
                assert found == next(convs), str(d)
                if address is not None and d.in_is_image:
                    assert address < limit_before, "read a word of the image that is not there yet"
                swaps += step["swap"]
                assert swaps <= takes
                before = accumulators.get(step["index"], 0)
                if step["first"]:
                    assert before == 0 or step["drain_valid"], "overwrote what was not drained"
                    before = 0
                accumulators[step["index"]] = before + 1
            if not step["conv_valid"] and step["drain_valid"]:
                accumulators[step["index"]] = 0
            limit_before = limit
            if d.in_is_image and limit < image_base + image_words and random.random() < self.supply:
                limit += 1
            if dut.layer_done_o.value:
                break
        assert next(convs, None) is None and next(drains, None) is None, f"steps are missing: {d}"
        assert takes == swaps == d.out_blocks * d.tiles * d.passes_per_tile
        self.slot = (self.slot + d.out_blocks * d.tiles) % SLOTS
        return cycles


@cocotb.test()
@cocotb.parametrize(supply=[1.0, 0.6, 0.15])
async def steps_follow_the_loop_nest(dut, supply):
    bench = Bench(dut, supply)
    await bench.start()
    for _ in range(12):
        program = random_program(bench.rng, config(bench.groups), layers=3, size=6, channels=24)
        for d in program.descriptors():
            await bench.layer(d, program.header.image_words)


@cocotb.test()
async def passes_follow_each_other_without_a_gap(dut):
    bench = Bench(dut, supply=1.0)
    await bench.start()
    measured = 0
    while measured < 5:
        program = random_program(bench.rng, config(bench.groups), layers=3, size=9, channels=24)
        for d in program.descriptors():
            steps = d.passes_per_tile * d.out_blocks * d.out_height * d.out_width
            # Short tiles are stretched for the accumulator's sake, exclusive drains cost steps of their own.
            smallest = d.out_width * min(d.tile_rows, d.out_height - (d.tiles - 1) * d.tile_rows)
            cycles = await bench.layer(d, program.header.image_words)
            if d.in_is_image or d.exclusive_drain or smallest < d.out_width * d.tile_rows or smallest < 4:
                continue
            measured += 1
            assert cycles <= steps + smallest + 14, f"{cycles} cycles for {steps} steps: {d}"


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_pass_sequencer(groups):
    run_bench("pass_sequencer", __name__, {"GROUPS": groups})
