"""Counting multipliers and on-chip memory of an array in FPGA primitives."""

from dataclasses import replace

import pytest

from hw.board import Device, board_names, load_board
from hw.isa import ConfigurationError, load_config
from hw.resources import DP16KD, ULTRA_RAM, Memory, check_fits, load_device, report, used

DEVICES = [name for name in board_names() if load_board(name).device]


@pytest.mark.parametrize(
    ("memory", "primitives"),
    [
        (Memory("one UltraRAM", 72, 4096, shapes=ULTRA_RAM), 1),
        (Memory("one bit more", 73, 4096, shapes=ULTRA_RAM), 2),
        (Memory("one word more", 72, 4097, shapes=ULTRA_RAM), 2),
        (Memory("a 512-bit bank", 512, 4096, shapes=ULTRA_RAM), 8),
        (Memory("one block RAM, wide", 72, 512), 1),
        (Memory("one block RAM, deep", 9, 4096), 1),
        (Memory("one block RAM, one bit wide", 1, 32768), 1),
        (Memory("two of them", 9, 4096, count=2), 2),
        (Memory("1,024 bits of 512 words", 1024, 512), 15),
        (Memory("an ECP5's, wide", 36, 512, shapes=DP16KD), 1),
        (Memory("an ECP5's, deep", 36, 1024, shapes=DP16KD), 2),
    ],
    ids=lambda value: value.name if isinstance(value, Memory) else "",
)
def test_primitives_follow_the_aspect_ratios(memory: Memory, primitives: int):
    assert memory.primitives == primitives


@pytest.mark.parametrize("name", DEVICES)
def test_every_board_holds_its_array(name: str):
    device = load_device(name)
    assert device
    check_fits(load_config(name), device)


def test_the_activation_banks_of_the_kv260_take_all_its_ultra_ram():
    config, device = load_config("kv260"), load_device("kv260")
    assert used(config, device).ultra_ram == 64
    assert "64 of 64 UltraRAM blocks" in report(config)


def test_without_ultra_ram_the_banks_are_counted_in_block_ram():
    config, device = load_config("pynq-z2"), load_device("pynq-z2")
    assert device
    counted, with_ultra_ram = used(config, device), used(replace(config, ultra_ram=True), device)
    assert counted.ultra_ram == 0
    # A bank is 128 bits wide and 4,096 deep: fifteen blocks of 9 x 4,096.
    assert counted.block_ram - with_ultra_ram.block_ram == config.banks * 15
    assert "UltraRAM" not in report(config)


def test_two_macs_share_a_multiplier():
    assert used(load_config("zcu104"), load_device("zcu104")).dsp == 64 * 32 // 2


def test_an_array_that_is_too_large_is_refused_with_what_is_short():
    large, device = replace(load_config("kv260"), banks=10), load_device("kv260")
    assert device
    with pytest.raises(ConfigurationError, match=r"80 UltraRAM blocks, 64 are there: 16 short$"):
        check_fits(large, device)


def test_an_array_with_too_many_multipliers_is_refused_too():
    small = load_device("ultra96v2")
    assert small
    wide = replace(load_config("ultra96v2"), kp=32)
    with pytest.raises(ConfigurationError, match=r"it takes 512 multipliers, 360 are there: 152 short"):
        check_fits(wide, small)


def test_an_array_for_simulation_has_no_device():
    assert load_device("sim-small") is None
    assert report(load_config("sim-small")).endswith("if sim-small were built")


def test_an_array_that_no_board_file_names_is_counted_without_a_device():
    assert load_device("elsewhere") is None
    assert report(replace(load_config("sim-small"), name="elsewhere")).endswith("if elsewhere were built")


def test_a_device_of_an_unknown_family_is_refused():
    with pytest.raises(ConfigurationError, match="family 'spartan' is none of"):
        Device("xc3s", "spartan", 1, 1, 1, 1)
