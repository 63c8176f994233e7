"""Area block by block: the figures, the rules that hold of every array, and the comparison with the committed figures."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hw.board import load_board
from hw.isa import ConfigurationError
from hw.sources import rtl_sources
from hw.synth import area_rules, area_table
from hw.synth.area import BlockArea, count, measure
from hw.synth.area_table import grown, page_text, read_reference, referenced, write_reference
from hw.synth.blocks import Block, elaborate, group
from hw.synth.process import SynthesisError
from hw.synth.report import Utilisation

ARRAYS: dict[str, tuple[str, ...] | None] = {
    "pynq-z2": None,
    "zcu104": ("act_bank", "dot_pair", "adder_tree", "param_buffer", "sync_fifo", "accumulator"),
}
"""Boards and the modules that are measured here: all of a small 7 series array; of a large one with UltraRAM and DSP48E2 those that have
memories or multipliers in number (`make area` measures the others, too)."""


# ---------------------------------------------------------------------------------------------------------------------
# Blocks
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", ARRAYS)
def test_every_module_of_the_rtl_is_a_block(board: str, tmp_path: Path):
    array = load_board(board).array
    _, blocks = elaborate(array, rtl_sources("npu"), tmp_path)
    modules = {path.stem for path in rtl_sources("npu") if not path.stem.endswith("_pkg")}
    assert {block.module for block in blocks} == modules
    counts = {block.label: block.count for block in blocks}
    assert counts["npu"] == 1
    assert counts["dot_pair"] == array.kp // 2
    assert counts["act_bank"] == array.banks
    assert counts["sync_fifo u_fifo"] == array.ports + 1  # the image's reads, too


def test_instances_that_differ_only_in_generated_numbers_are_one_block():
    module = 'module \\{name}\n  attribute \\src "a.sv:{line}"\n  wire width {width} $procmux${number}_Y\nend\n'
    rtlil = "".join(
        module.format(name=name, line=number, number=number, width=width)
        for name, number, width in (("a$npu.x[9].u_a", 9, 4), ("a$npu.x[10].u_a", 10, 4), ("a$npu.u_wide", 11, 5))
    )
    assert [(block.label, block.count) for block in group(rtlil)] == [("a u_a", 2), ("a u_wide", 1)]


# ---------------------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------------------


def test_cells_are_counted_as_the_sites_they_take():
    cells = {
        "LUT6": 10,
        "INV": 1,
        "FDRE": 7,
        "FDSE": 1,
        "CARRY4": 3,
        "DSP48E2": 2,
        "RAMB36E2": 1,
        "RAMB18E2": 1,
        "URAM288": 4,
    }
    area = count(Block("b", "b", "b", 3), {**cells, "RAM32M16": 2, "SRL16E": 5, "adder_tree$npu.u_sum": 6}, 1234)
    assert area.each == Utilisation(lut=10 + 1 + 16 + 5, ff=8, dsp=2, block_ram=1.5, ultra_ram=4, lut_ram=16)
    assert (area.shift_lut, area.delay_ps) == (5, 1234)
    assert area.all == area.each * 3


def test_a_cell_that_nobody_counts_is_refused():
    with pytest.raises(SynthesisError, match=r"yosys used BUFG, which hw/synth/area\.py does not count"):
        count(Block("b", "b", "b", 1), {"LUT2": 1, "BUFG": 1}, 0)


def test_an_array_without_a_device_is_refused():
    with pytest.raises(ConfigurationError, match=r"sim-small: blocks are measured for boards with a device"):
        measure(load_board("sim-small"))


def test_an_unknown_module_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="the NPU has no module 'systolic'"):
        measure(load_board("pynq-z2"), only=["systolic"], work=tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Rules, on what yosys makes of the RTL
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ARRAYS)
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[BlockArea]]:
    """A board, and its blocks as yosys synthesises them now."""
    name = request.param
    return name, measure(load_board(name), only=ARRAYS[name], work=tmp_path_factory.mktemp(name))


def test_two_macs_share_a_dsp_slice_banks_are_in_their_memory_and_no_other_is_distributed(measured):
    name, areas = measured
    assert area_rules.broken(areas, load_board(name)) == []


def test_no_block_has_grown_against_the_committed_figures(measured):
    name, areas = measured
    reference, labels = read_reference(name), {area.label for area in areas}
    assert (
        grown(areas, reference if ARRAYS[name] is None else [area for area in reference if area.label in labels]) == []
    )


def with_block(areas: list[BlockArea], label: str, **figures: float) -> list[BlockArea]:
    """The same blocks, but one with other figures."""
    return [replace(a, each=replace(a.each, **figures)) if a.label == label else a for a in areas]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda areas: with_block(areas, "dot_pair", dsp=128), "the array takes 2048 DSP for 2048 MACs, not 1024"),
        (lambda areas: with_block(areas, "act_bank", ultra_ram=0), "the activation banks take 0 UltraRAM, not 64"),
        (lambda areas: with_block(areas, "act_bank", block_ram=57), "the activation banks take 456 block RAM, not 0"),
        (lambda areas: with_block(areas, "pool", lut_ram=40), "pool: a memory became 40 LUT of distributed RAM"),
        (lambda areas: with_block(areas, "pool", ff=500_000), r"FF: [\d,]+ used, 460,800 are there"),
    ],
    ids=["a slice for each MAC", "banks elsewhere", "banks in block RAM", "distributed RAM", "too large"],
)
def test_a_broken_rule_is_named(change: Callable, complaint: str):
    board, areas = load_board("zcu104"), read_reference("zcu104")
    assert area_rules.broken(areas, board) == []
    sentences = area_rules.broken(change(areas), board)
    assert re.fullmatch(complaint, sentences[0])


# ---------------------------------------------------------------------------------------------------------------------
# Against the committed figures
# ---------------------------------------------------------------------------------------------------------------------

BLOCK = BlockArea(
    "block", 2, Utilisation(lut=100, ff=1000, dsp=4, block_ram=1.5, lut_ram=16), shift_lut=3, delay_ps=4000
)


def test_a_tenth_of_everything_is_too_much():
    now = replace(BLOCK, each=Utilisation(lut=110, ff=1100, dsp=5, block_ram=2, lut_ram=18), delay_ps=4400)
    assert grown([now], [BLOCK]) == [
        "block: Block RAM 4, was 3",
        "block: DSP 10, was 8",
        "block: FF 2,200, was 2,000",
        "block: LUT 220, was 200",
        "block: LUT RAM 36, was 32",
        "block: delay in ps 4,400, was 4,000",
    ]


def test_a_twentieth_and_the_slack_are_not():
    now = replace(BLOCK, each=replace(BLOCK.each, lut=105 + 4, ff=1050 + 4), delay_ps=4200 + 100)
    assert grown([now], [BLOCK]) == []


def test_more_instances_are_more_area():
    assert "block: DSP 12, was 8" in grown([replace(BLOCK, count=3)], [BLOCK])


def test_a_new_block_and_a_lost_one_want_new_figures():
    assert grown([replace(BLOCK, label="new")], [BLOCK]) == [
        "block: has committed figures, but is no longer there",
        "new: has no committed figures",
    ]


LARGER = (
    "assign value[i] = $signed(values_i[i]);",
    "always_ff @(posedge clk_i) value[i] <= $signed(values_i[i]);",
)
SLOWER = (
    "always_ff @(posedge clk_i) begin\n          value[i] <=",
    "always_comb begin\n          value[i] =",
)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [(LARGER, "adder_tree: FF"), (SLOWER, "adder_tree: delay in ps")],
    ids=["registers more", "registers less"],
)
def test_a_block_that_grows_in_the_rtl_is_found(change: tuple[str, str], complaint: str, tmp_path: Path):
    sources = {path.name: path for path in rtl_sources("npu")}
    text = sources["adder_tree.sv"].read_text()
    assert change[0] in text
    sources["adder_tree.sv"] = tmp_path / "adder_tree.sv"
    sources["adder_tree.sv"].write_text(text.replace(*change))
    areas = measure(load_board("pynq-z2"), only=["adder_tree"], sources=list(sources.values()), work=tmp_path)
    reference = [area for area in read_reference("pynq-z2") if area.label == "adder_tree"]
    assert any(sentence.startswith(complaint) for sentence in grown(areas, reference))


def test_committed_figures_are_read_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(area_table, "REFERENCES", tmp_path)
    monkeypatch.setattr(area_table, "PAGE", tmp_path / "area.md")
    write_reference("zcu104", [BLOCK])
    assert referenced() == ["zcu104"]
    assert read_reference("zcu104") == [BLOCK]
    assert "| block | 2 | 200 | 32 | 6 | 2,000 | 8 | 3 | 0 | 4.00 |" in (tmp_path / "area.md").read_text()


def test_figures_of_another_yosys_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(area_table, "REFERENCES", tmp_path)
    monkeypatch.setattr(area_table, "PAGE", tmp_path / "area.md")
    write_reference("zcu104", [BLOCK])
    monkeypatch.setattr(area_table, "version", lambda package: "0.71")
    with pytest.raises(ConfigurationError, match=r"pyosys 0\.70 made the committed figures of zcu104, this is 0\.71"):
        read_reference("zcu104")


def test_a_board_without_committed_figures_is_told_how_to_make_them():
    with pytest.raises(ConfigurationError, match="make area BOARD=elsewhere ARGS=--update"):
        read_reference("elsewhere")


def test_the_page_is_that_of_the_committed_figures():
    assert area_table.PAGE.read_text() == page_text()
