"""Counting the on-chip memory of an array in FPGA primitives."""

from dataclasses import replace

import pytest

from hw.isa import BOARDS, ConfigurationError, load_config
from hw.resources import Device, Memory, check_fits, load_device, report, used

DEVICES = [path.stem for path in BOARDS.glob("*.toml") if load_device(path.stem)]


@pytest.mark.parametrize(
    ("memory", "primitives"),
    [
        (Memory("one UltraRAM", 72, 4096, ultra=True), 1),
        (Memory("one bit more", 73, 4096, ultra=True), 2),
        (Memory("one word more", 72, 4097, ultra=True), 2),
        (Memory("a 512-bit bank", 512, 4096, ultra=True), 8),
        (Memory("one block RAM, wide", 72, 512), 1),
        (Memory("one block RAM, deep", 9, 4096), 1),
        (Memory("two of them", 9, 4096, count=2), 2),
        (Memory("1,024 bits of 512 words", 1024, 512), 15),
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
    assert used(load_config("kv260"))[0] == 64
    assert report(load_config("kv260")).startswith("64 of 64 UltraRAM and ")


def test_an_array_that_is_too_large_is_refused_with_what_is_short():
    large = replace(load_config("kv260"), banks=10)
    with pytest.raises(ConfigurationError, match=r"80 UltraRAM blocks, 64 are there: 16 short"):
        check_fits(large, Device("xck26", 64, 144))


def test_an_array_for_simulation_has_no_device():
    assert load_device("sim-small") is None
