"""Reuse factors: legal ones, the best combination of them, and what is said when there is none."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from dataflow_networks import Builder
from hls4ml.backends import get_backend

from hls.vitis import estimate, timing
from hls.vitis.parts import PARTS, Resources, find_part
from hls.vitis.sizing import LayerSizing, SizingError
from hls.vitis.solve import cheapest, choices, legal_reuse_factors, solve
from hls.vitis.stages import Multiplication, Network, Stream
from hw.board import board_names, load_board

VITIS = get_backend("Vitis")
AMD_BOARDS = [b for b in board_names() if (device := load_board(b).device) and device.family != "ecp5"]
PLENTY = Resources(dsp=10**5, bram18=10**5)


def layers(seed: int, count: int = 3) -> Network:
    """Convolutions one after the other."""
    rng = np.random.default_rng(seed)
    b = Builder()
    x = b.image(8)
    for n in range(count):
        inputs, outputs = (int(c) for c in rng.integers(2, 7, 2))
        x = b.conv(f"conv{n}", x, int(rng.choice([1, 3])), inputs=inputs, outputs=outputs)
    return b.network()


@pytest.mark.parametrize("shape", [(1, 1), (9, 4), (147, 16), (64, 64), (27, 10), (7, 13)], ids=str)
def test_the_legal_reuse_factors_are_those_of_hls4ml(shape: tuple[int, int]):
    assert list(legal_reuse_factors(*shape, VITIS)) == VITIS.get_valid_reuse_factors(*shape)


@pytest.mark.parametrize("seed", range(12))
def test_no_combination_of_legal_sizes_is_better_than_the_solution(seed: int):
    rng = np.random.default_rng(seed)
    network = layers(seed)
    options = [choices(stage, VITIS) for stage in network.sized]
    everything = [
        (max(c.interval for c in some), sum(c.dsp for c in some), sum(c.bram18 for c in some))
        for some in itertools.product(*options)
    ]
    interval, _, _ = everything[rng.integers(len(everything))]
    _, dsp, bram18 = everything[rng.integers(len(everything))]
    limit = Resources(dsp=dsp, bram18=bram18)
    fitting = [(d, b) for i, d, b in everything if i <= interval and d <= dsp and b <= bram18]
    found = cheapest(options, interval, limit)
    if not fitting:
        assert found is None, f"seed {seed}"
        fastest = min(i for i, d, b in everything if d <= dsp and b <= bram18)
        best = solve(network, VITIS, interval, limit)
        assert best.fits and best.interval == fastest and best.shortages, f"seed {seed}"
    else:
        assert found is not None
        assert (sum(c.dsp for c in found), sum(c.bram18 for c in found)) == min(fitting), f"seed {seed}"
        assert max(c.interval for c in found) <= interval


def test_every_layer_gets_a_legal_size_and_the_target_is_met():
    network = layers(3)
    solution = solve(network, VITIS, 2000, PLENTY)
    assert solution.fits and not solution.shortages and solution.interval <= 2000
    for stage in network.sized:
        factor = solution.layers[stage.name].reuse_factor
        assert factor in VITIS.get_valid_reuse_factors(stage.product.inputs, stage.product.outputs)


def test_too_few_dsp_slices_for_the_target_are_named():
    network = layers(3)
    wanted = solve(network, VITIS, 1000, PLENTY)
    need = sum(estimate.multipliers(s, wanted.layers[s.name]) for s in network.sized)
    solution = solve(network, VITIS, 1000, replace(PLENTY, dsp=need - 1))
    assert solution.fits and solution.interval > 1000
    assert solution.shortages == (f"DSP: the target needs at least {need:,}, {need - 1:,} are there",)


def test_a_target_below_a_pixel_a_cycle_names_the_layer():
    network = layers(3)
    solution = solve(network, VITIS, 50, PLENTY)
    assert solution.fits and all("read pixel by pixel" in reason for reason in solution.shortages)
    assert "conv0" in solution.shortages[0]


def test_weights_that_fit_no_block_ram_at_any_speed_are_named():
    b = Builder()
    b.conv("large", b.image(4), 3, inputs=64, outputs=64)
    network = b.network()
    solution = solve(network, VITIS, 10**6, Resources(dsp=100, bram18=5))
    assert not solution.fits
    assert any("block RAM (18 kbit): at any speed the weights need" in reason for reason in solution.shortages)


def test_multiplications_beyond_what_hls_unrolls_are_never_done_all_at_once():
    b = Builder()
    b.conv("large", b.image(4), 3, inputs=64, outputs=64)
    (stage,) = b.network().stages
    assert min(choice.sizing.reuse_factor for choice in choices(stage, VITIS)) > 1


# ---------------------------------------------------------------------------------------------------------------------
# The estimates beside reports of Vitis HLS (tsopeter/753-FPGA: hls4ml, io_stream, Resource, Vitis HLS 2024.2)
# ---------------------------------------------------------------------------------------------------------------------

REPORTED = [  # inputs, outputs, input bits, image side, stride, DSP, block RAM, LUT; 4 to 55 cycles an iteration each
    (25, 2, 8, 64, 2, 1, 1, 1903),
    (50, 4, 6, 30, 2, 4, 1, 2496),
    (100, 5, 6, 13, 2, 5, 2, 4502),
]


@pytest.mark.parametrize("layer", REPORTED, ids=str)
def test_the_estimates_of_a_layer_are_near_what_vitis_hls_reports(layer: tuple[int, ...]):
    inputs, outputs, bits, side, stride, dsp, bram18, lut = layer
    b = Builder()
    b.conv("conv", b.image(side), 5, stride, inputs=inputs // 25, outputs=outputs)
    stage = replace(b.network().stages[0], product=Multiplication(inputs, outputs, bits, 6, 20))
    sizing = LayerSizing("conv", "Resource", 50)
    cost = estimate.layer(stage, sizing, 0)
    assert dsp <= cost.dsp <= 2 * dsp  # narrow products may be logic
    assert cost.bram18 == bram18
    assert cost.lut == pytest.approx(lut, rel=0.05)
    cycles = timing.steps(stage, sizing)
    assert 4 in cycles.cycles
    assert cycles.cycles[cycles.reads].max() + 1 == 55 + 3  # the registers of a DSP slice at a fast clock


def test_fifos_in_block_ram_take_what_vitis_hls_reports():
    fifos = [
        (40, 900),
        (12, 900),
        (76, 169),
        (24, 169),
        (100, 25),
        (30, 25),
    ]  # the last one is small enough for registers
    assert sum(estimate.fifo_memory(bits, depth).primitives for bits, depth in fifos if bits * depth > 1024) == 17


def test_shallow_fifos_are_shift_registers_and_ports_none():
    assert estimate.fifo(Stream("s", 2048, 49, "a", "b"), 33) == Resources(lut=2 * 2048, ff=2048)
    assert estimate.fifo(Stream("s", 36, 2000, "a", "b"), 1500) == Resources(bram18=4)
    assert estimate.fifo(Stream("s", 2048, 49, "", "b"), 49) == Resources()


def test_weights_are_words_of_all_multipliers_as_deep_as_the_reuse_factor():
    b = Builder()
    b.conv("conv", b.image(4), 3, inputs=16, outputs=16)
    (stage,) = b.network().stages
    memory = estimate.weight_memory(stage, LayerSizing("conv", "Resource", 144))
    assert memory is not None and (memory.width, memory.depth, memory.primitives) == (16 * 8, 144, 4)
    assert estimate.weight_memory(stage, LayerSizing("conv", "Resource", 1)) is None


# ---------------------------------------------------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", AMD_BOARDS)
def test_the_parts_agree_with_the_board_files(board: str):
    device = load_board(board).device
    part = find_part(device.part)
    slrs = 4 if board == "u250" else 1  # the board file counts one SLR
    assert (part.dsp, part.bram18, part.uram) == (
        device.dsp * slrs,
        2 * device.block_ram * slrs,
        device.ultra_ram * slrs,
    )


def test_a_part_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(
        SizingError, match=r"part 'xcvu99p-x' is not known; known devices: xcvu9p, .*hls/vitis/parts.py"
    ):
        find_part("xcvu99p-x")


def test_parts_are_found_with_package_and_speed_grade():
    assert find_part("xcu250-figd2104-2L-e") is PARTS["xcu250"]
    assert find_part("xc7z020clg400-1") is PARTS["xc7z020"]
