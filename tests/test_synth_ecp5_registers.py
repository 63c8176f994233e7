"""Registers that move into an ECP5's multipliers and block RAMs: the netlist before and after does the same, proven by SAT."""

import copy
import json
from collections import Counter
from pathlib import Path

import pytest

from hw.sources import rtl_sources
from hw.synth.ecp5 import map_to_cells
from hw.synth.ecp5_registers import Moved, move_registers
from hw.synth.process import SynthesisError
from hw.synth.yosys import run_yosys

CELLS = Path(__file__).with_name("ecp5_cells.v")
REGISTERS = ("REG_INPUTA_CLK", "REG_INPUTB_CLK", "REG_OUTPUT_CLK", "REGMODE_A", "REGMODE_B")
CYCLES = 8
"""Longer than any of the pipelines here."""

MULTIPLIER = """
module sample (input logic clk_i, en_i, input logic signed [8:0] a_i, b_i, output logic signed [17:0] p_o, output logic [8:0] a_o);
  logic signed [8:0] a_q, b_q;
  assign a_o = TAP ? a_q : '0;
  always_ff @(posedge clk_i) begin
    if (en_i || !ENABLE) begin
      a_q <= a_i;
      b_q <= b_i;
    end
    p_o <= a_q * b_q;
  end
endmodule
"""
MEMORY = """
module sample (input logic clk_i, en_i, we_i, input logic [8:0] raddr_i, waddr_i, input logic [35:0] d_i, output logic [35:0] d_o);
  (* ram_style = "block", no_rw_check *) logic [35:0] mem[512];
  logic [35:0] array_q;
  always_ff @(posedge clk_i) begin
    if (we_i) mem[waddr_i] <= d_i;
    if (en_i || !ENABLE) array_q <= mem[raddr_i];
    d_o <= array_q;
  end
endmodule
"""


def sample(text: str, folder: Path, *, enable: bool = False, tap: bool = False) -> dict:
    """One of the modules above in an ECP5's cells: with an enable at the first registers, with their value as an output."""
    source = folder / "sample.sv"
    source.write_text(text.replace("ENABLE", str(int(enable))).replace("TAP", str(int(tap))))
    return netlist([source], "sample", {}, folder)


def netlist(sources: list[Path], top: str, parameters: dict[str, int], folder: Path) -> dict:
    return json.loads(map_to_cells(sources, top, parameters, folder).read_text())["modules"][top]


def moved(before: dict) -> tuple[dict, Moved]:
    """The netlist after the registers have moved, and how many."""
    after = copy.deepcopy(before)
    return after, move_registers(after)


def prove_equal(before: dict, after: dict, folder: Path):
    """Raise SynthesisError unless both show the same outputs in each of CYCLES cycles, whatever the inputs are."""
    commands = ["read_verilog -overwrite +/ecp5/cells_sim.v", f"read_verilog -overwrite {CELLS}"]
    for name, module in (("before", before), ("after", after)):
        path = folder / f"{name}.json"
        path.write_text(json.dumps({"modules": {name: modelled(module)}}))
        commands.append(f"read_json {path}")
    commands += [
        "hierarchy -check",
        "proc",
        "flatten before after",
        "miter -equiv -flatten before after miter",
        "opt -full miter",
        f"sat -verify -seq {CYCLES} -set-init-zero -prove trigger 0 miter",
    ]
    run_yosys("proof", dict.fromkeys(commands, ""), folder / "proof", quiet=True)


def modelled(module: dict) -> dict:
    """The module with those parameters of multipliers and block RAMs alone that CELLS knows: where their registers are."""
    module = {**copy.deepcopy(module), "attributes": {}}
    for cell in module["cells"].values():
        if cell["type"] in ("MULT18X18D", "DP16KD"):
            cell["parameters"] = {name: value for name, value in cell["parameters"].items() if name in REGISTERS}
    return module


def flip_flops(module: dict) -> int:
    return Counter(cell["type"] for cell in module["cells"].values())["TRELLIS_FF"]


def test_a_multiplier_takes_in_the_registers_around_it(tmp_path: Path):
    before = sample(MULTIPLIER, tmp_path)
    after, what = moved(before)
    assert what == Moved(multiplier_inputs=1, multiplier_outputs=1)
    assert (flip_flops(before), flip_flops(after)) == (9 + 9 + 18, 0)
    prove_equal(before, after, tmp_path)


def test_a_register_that_others_read_stays_beside_its_copy_in_the_multiplier(tmp_path: Path):
    before = sample(MULTIPLIER, tmp_path, tap=True)
    after, what = moved(before)
    assert (what.multiplier_inputs, flip_flops(after)) == (1, 9)
    prove_equal(before, after, tmp_path)


def test_registers_with_an_enable_stay(tmp_path: Path):
    before = sample(MULTIPLIER, tmp_path, enable=True)
    after, what = moved(before)
    assert what == Moved(multiplier_outputs=1)
    prove_equal(before, after, tmp_path)


def test_a_block_ram_takes_in_its_output_register(tmp_path: Path):
    before = sample(MEMORY, tmp_path)
    after, what = moved(before)
    assert what == Moved(memory_outputs=1)
    assert (flip_flops(before), flip_flops(after)) == (36, 0)
    prove_equal(before, after, tmp_path)


def test_a_block_ram_whose_reads_can_stop_keeps_its_output_register_outside(tmp_path: Path):
    before = sample(MEMORY, tmp_path, enable=True)
    after, what = moved(before)
    assert what == Moved()
    assert after == before


def test_dot_products_do_the_same_with_registers_in_their_multipliers(tmp_path: Path):
    before = netlist(rtl_sources("dot_pair"), "dot_pair", {"CP": 4, "FIELD_BITS": 0}, tmp_path)
    after, what = moved(before)
    assert what == Moved(multiplier_outputs=2 * 4)
    prove_equal(before, after, tmp_path)


@pytest.mark.parametrize(
    ("text", "parameter", "value"),
    [(MULTIPLIER, "REG_OUTPUT_CLK", "NONE"), (MULTIPLIER, "REG_INPUTA_CLK", "NONE"), (MEMORY, "REGMODE_B", "NOREG")],
    ids=["output register lost", "input register lost", "memory register lost"],
)
def test_the_proof_finds_a_register_that_got_lost(text: str, parameter: str, value: str, tmp_path: Path):
    before = sample(text, tmp_path)
    after, _ = moved(before)
    for cell in after["cells"].values():
        if parameter in cell["parameters"]:
            cell["parameters"][parameter] = value
    with pytest.raises(SynthesisError, match="proof did fail"):
        prove_equal(before, after, tmp_path)
