"""The open flow on a design of a few cells: from SystemVerilog to a bitstream, with the board, pins and tools of the real one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hw.board import load_board
from hw.synth import ecp5, ecp5_paths
from hw.synth.ecp5 import implement, map_to_cells
from hw.synth.ecp5_registers import move_registers
from hw.synth.process import SynthesisError

SAMPLE = """
// Two numbers come in bit by bit, their product and a sum leave.
module ecp5_top (input logic clk_i, rst_ni, shift_i, scan_i, output logic scan_o);
  logic [31:0] in_q, product_q, sum_q;
  logic [15:0] a_q, b_q;
  always_ff @(posedge clk_i) begin
    if (shift_i) in_q <= {in_q[30:0], scan_i};
    {a_q, b_q} <= in_q;
    product_q <= a_q * b_q;
    sum_q <= rst_ni ? product_q + sum_q : '0;
    scan_o <= ^sum_q;
  end
endmodule
"""
BOARD = load_board("ecp5-85f")


@pytest.fixture(scope="module")
def netlist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample for nextpnr."""
    folder = tmp_path_factory.mktemp("sample")
    source = folder / "sample.sv"
    source.write_text(SAMPLE)
    path = map_to_cells([source], "ecp5_top", {}, folder)
    design = json.loads(path.read_text())
    move_registers(design["modules"]["ecp5_top"])
    path.write_text(json.dumps(design))
    return path


def at(megahertz: float):
    """The board with another clock."""
    return replace(BOARD, array=replace(BOARD.array, clock_mhz=megahertz))


def test_a_netlist_becomes_a_bitstream_with_its_figures(netlist: Path, tmp_path: Path):
    result = implement(BOARD, netlist, tmp_path)
    assert result.met
    assert result.fmax_mhz >= result.target_mhz == 100
    assert (result.utilisation.dsp, result.utilisation.block_ram) == (1, 0)
    # The registers around the multiplication are inside; the shift register, the sum and the output bit are not.
    assert result.utilisation.ff == 32 + 32 + 1
    assert result.part.dsp == BOARD.device.dsp
    assert result.part.lut == BOARD.device.lut
    bits = (tmp_path / "npu.bit").read_bytes()
    assert bits.startswith(b"\xff\x00")
    assert b"LFE5U-85F" in bits[:200]
    assert json.loads((tmp_path / "report.json").read_text())["fmax"]


def test_the_slowest_path_is_told_in_the_names_of_the_rtl(netlist: Path, tmp_path: Path):
    path = implement(BOARD, netlist, tmp_path).critical_path
    assert path[0].lstrip()[0].isdigit()
    assert any("sum_q" in step or "product_q" in step for step in path)


def test_a_missed_clock_is_reported_with_the_one_that_was_reached(netlist: Path, tmp_path: Path):
    result = implement(at(2000), netlist, tmp_path)
    assert not result.met
    assert 100 < result.fmax_mhz < result.target_mhz == 2000
    assert result.bitstream.is_file()


def test_the_same_seed_gives_the_same_bitstream(netlist: Path, tmp_path: Path):
    bits = [implement(BOARD, netlist, tmp_path / str(n), seed=7).bitstream.read_bytes() for n in range(2)]
    assert bits[0] == bits[1]


def test_nextpnrs_own_words_say_what_failed(netlist: Path, tmp_path: Path):
    design = json.loads(netlist.read_text())
    ports = design["modules"]["ecp5_top"]["ports"]
    ports["extra_o"] = {"direction": "output", "bits": ports["scan_o"]["bits"]}
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(design))
    with pytest.raises(SynthesisError, match=r"nextpnr-ecp5 failed.*\n.*ERROR: IO 'extra_o' is unconstrained in LPF"):
        implement(BOARD, broken, tmp_path)
    assert not (tmp_path / "npu.bit").exists()


def test_yosys_own_words_say_what_failed(tmp_path: Path):
    source = tmp_path / "wrong.sv"
    source.write_text("module ecp5_top (output logic scan_o);\n  assign scan_o = nowhere;\nendmodule\n")
    with pytest.raises(SynthesisError, match=r"wrong\.sv:2: ERROR: use of undeclared identifier 'nowhere'"):
        map_to_cells([source], "ecp5_top", {}, tmp_path)


def test_a_part_that_nextpnr_does_not_know_is_refused(netlist: Path, tmp_path: Path):
    unknown = replace(BOARD, device=replace(BOARD.device, part="LFE3-150EA"))
    with pytest.raises(SynthesisError, match="part LFE3-150EA is none of LFE5U-12F"):
        implement(unknown, netlist, tmp_path)


def test_the_estimate_names_the_slowest_path_into_each_register(netlist: Path):
    paths = ecp5_paths.slowest_paths(json.loads(netlist.read_text())["modules"]["ecp5_top"])
    by_end = {path.end.partition("[")[0]: path for path in paths}
    assert [path.ns for path in paths] == sorted((path.ns for path in paths), reverse=True)
    assert by_end["in_q"].levels <= 1
    assert by_end["sum_q"].ns > by_end["in_q"].ns  # a carry chain of 32 bits, and a select for reset
    text = ecp5_paths.text(paths, 100)
    assert text.startswith("estimated before placement: 0 of ")


def test_a_combinational_loop_is_refused():
    def lut(out: int, source: int) -> dict:
        return {
            "type": "LUT4",
            "parameters": {},
            "port_directions": {"A": "input", "Z": "output"},
            "connections": {"A": [source], "Z": [out]},
        }

    register = {
        "type": "TRELLIS_FF",
        "parameters": {},
        "port_directions": {"DI": "input", "Q": "output"},
        "connections": {"DI": [2], "Q": [4]},
    }
    module = {"cells": {"one": lut(2, 3), "two": lut(3, 2), "register": register}}
    with pytest.raises(SynthesisError, match="a combinational loop goes through"):
        ecp5_paths.slowest_paths(module)


def test_the_harness_has_the_parameters_of_the_npu():
    from hw.sources import npu_parameters

    text = ecp5.HARNESS.read_text()
    assert all(f"parameter int unsigned {name} " in text for name in npu_parameters(BOARD.array))
