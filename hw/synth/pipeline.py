"""The pipeline stage by stage, and the logic depth in front of each stage's registers: docs/pipeline.md is written from here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hw.files import write_if_changed
from hw.sources import ROOT
from hw.synth.depth import LIMIT, Depth
from hw.synth.process import SynthesisError
from hw.synth.report import aligned, markdown

PAGE = ROOT / "docs" / "pipeline.md"
BEGIN, END = "<!-- written by make pipeline: begin -->", "<!-- end -->"


DEEPER = {r"u_regs\.u_csr\.readback_data_rt": 8}
"""Registers that may have more levels: the multiplexer of all registers in PeakRDL's block is one stage, in generated code."""


@dataclass(frozen=True)
class Stage:
    """Registers that are loaded together."""

    cycle: str
    """Counted from the step that leaves the sequencer, for an array of 64 x 32 with fields of 18 bits; or the part of the NPU."""
    what: str
    registers: tuple[str, ...]
    """Regular expressions of their names in the flattened NPU."""


_DATA = r"u_datapath\."
_PAIR = r"u_datapath\.u_array\.gen_pair\[\]\.u_dot_pair\."
_BANK = r"u_datapath\.u_memory\.gen_bank\[\]\."
_LANE = r"u_datapath\.u_output\.gen_lane\[\]\."

STEP = (
    Stage("-3", "pixel counters of the pass, addresses", (r"u_sequencer\.(addr|index|pixel_ix|conv_now|last_step)_q",)),
    Stage("-2", "is the pixel inside the input?", (r"u_sequencer\.found_q",)),
    Stage("-1", "has its image word arrived?", (r"u_sequencer\.checked_q", "image_wait")),
    Stage("0", "the step", ("step",)),
    Stage("1", "each bank's port: whose address, whose enable", (_BANK + "read_(addr_)?q",)),
    Stage("2", "UltraRAM or block RAM", (_BANK + r"u_bank\.gen_group\[\]\.array_q",)),
    Stage("3", "its output register", (_DATA + r"u_memory\.bank_data",)),
    Stage("4", "the bank that was asked", (_DATA + "conv_data", "store_data")),
    Stage("5 to 9", "zeros for padding, sign, lateness by phase; copies", (_DATA + r"u_array\.late\[\]",)),
    Stage("7 to 10", "DSP: activation; pair of weights, added", (_PAIR + r"(activation_q|gen_shared\.pair_q)\[\]",)),
    Stage("8 to 11", "DSP: product", (_PAIR + r"gen_shared\.product_q\[\]",)),
    Stage("9 to 12", "DSP: chain of four products", (_PAIR + r"gen_shared\.packed_q\[\]",)),
    Stage("13", "the two weights' fields apart", (_PAIR + "(low|high)_q",)),
    Stage("14 to 17", "adder tree", (_PAIR + r"u_(low|high)\.gen_level\[\]\.value\[\]",)),
    Stage("16, 17", "accumulators: block RAM, its output register", (_DATA + r"(u_accumulator\.read_q|drained)",)),
    Stage("18", "accumulators: the new value", (_DATA + r"u_accumulator\.new_q",)),
    Stage("18", "output stage: bias added, residual shifted", (_LANE + "(biased|residual)_q",)),
    Stage("19", "total; what is just below half", (_LANE + "(total|below_half)_q",)),
    Stage("20", "is the last place odd?", (_LANE + "(settled|odd)_q",)),
    Stage("21", "rounded", (_LANE + "rounded_q",)),
    Stage("22", "shifted", (_LANE + "shifted_q",)),
    Stage("23", "compared with the clip's ends", (_LANE + "(under|over|value)_q",)),
    Stage("24", "clipped", (_DATA + "active",)),
    Stage("25", "no pool: through; global sum: added", (_DATA + "(pooled|sum)",)),
    Stage("25 to 27", "window: pixel, two columns, three", (_DATA + r"u_pool\.(pixel|two|across)_q",)),
    Stage("28, 29", "window: line buffer, the rows above", (_DATA + r"u_pool\.(lines|above)_q",)),
    Stage("30, 31", "window: two rows, three", (_DATA + r"u_pool\.(down_two|reduced)_q",)),
    Stage("32, 33", "average: last place, rounded", (_DATA + r"u_pool\.(odd|rounded)_q",)),
    Stage("26", "writer (without a window): address, lanes, data", (_DATA + r"u_memory\.out_(addr|data|en)_i",)),
    Stage("27", "each bank's port", (_BANK + r"(write_q|u_bank\.write_addr_i)",)),
)

AROUND = (
    Stage("walker", "where the counters stand, what comes next", (r"u_sequencer\.(standing|next|move)_q",)),
    Stage("walker", "counters", (r"u_sequencer\.(kx|ky|in_block|tile|block|drain_pass)_q",)),
    Stage("walker", "addresses", (r"u_sequencer\.(kx_addr|tile_addr|ix|iy)_q",)),
    Stage("weights", "AXI beat and FIFO", (r"gen_port\[\]\.u_weights_dma\.(rdata_q|push|u_fifo\.\w+)",)),
    Stage("weights", "all ports together: skid buffer", ("beats.*", r"u_stream_skid\..*")),
    Stage("weights", "words in the ports' FIFOs: levels, the least", ("levels_q", "least_level_q")),
    Stage("weights", "a word and its row's select", (_DATA + r"u_weights\.(word|select|valid)_q",)),
    Stage("weights", "the tile; is it ready?", (_PAIR + "weights_i", "tile_ready")),
    Stage("parameters", "written, read", (_DATA + r"(u_params\..*|params)",)),
    Stage("records", "CRC, 32 bits a cycle", (r"u_loader\.u_crc32\..*",)),
    Stage("records", "checks, payload, counters", (r"u_loader\.(?!u_crc32).*", "stream_(error|finished)")),
    Stage("DMA", "burst: page, length, address", (r".*_dma\.(?!u_fifo).*",)),
    Stage("image", "words gathered, written", (r"u_image_loader\..*", "img_(valid|data)", "image_limit")),
    Stage("features", "read ahead, cut into beats", (r"u_feature_store\..*", "store_beat.*", "store_addr")),
    Stage("control", "states, errors, counters", (r"u_control\..*", "(image_)?abort", "idle|done")),
    Stage("registers", "AXI4-Lite, PeakRDL's block", (r"u_regs\..*",)),
)


def rows(stages: Sequence[Stage], depths: Sequence[Depth]) -> list[list[str]]:
    """Head, then a line for each stage with the most levels in front of its registers. Raises SynthesisError when a name matches none."""
    table = [["cycle" if stages is STEP else "part", "stage", "levels"]]
    for stage in stages:
        found = [d.levels for pattern in stage.registers for d in depths if re.fullmatch(pattern, d.end)]
        if not found:
            names = " or ".join(stage.registers)
            raise SynthesisError(f"the netlist has no register {names}: does hw/synth/pipeline.py still fit the RTL?")
        table.append([stage.cycle, stage.what, str(max(found))])
    return table


def too_deep(depths: Sequence[Depth]) -> list[Depth]:
    """Registers with more levels before them than are allowed."""

    def allowed(register: str) -> int:
        return next((levels for name, levels in DEEPER.items() if re.fullmatch(name, register)), LIMIT)

    return [d for d in depths if d.levels > allowed(d.end)]


def summary(depths: Sequence[Depth]) -> str:
    """For a terminal."""
    worst = "\n".join(f"too deep: {d.levels} levels from {d.start} to {d.end}" for d in too_deep(depths))
    verdict = worst or f"no register has more than {LIMIT} levels before it, but for {len(DEEPER)} that may"
    return "\n\n".join([aligned(rows(STEP, depths)), aligned(rows(AROUND, depths)), verdict])


def section(depths: Sequence[Depth]) -> str:
    """The part of the page that is measured."""
    most = depths[0].levels
    deepest = [f"- `{d.start}` to `{d.end}`" for d in depths if d.levels == most]
    counts = ", ".join(f"{sum(d.levels == n for d in depths)} have {n}" for n in range(most + 1))
    tables = [
        "### A step's way",
        "",
        markdown(rows(STEP, depths)),
        "",
        "### Around it",
        "",
        markdown(rows(AROUND, depths)),
    ]
    sentence = f"Of {len(depths)} registers {counts} levels before them; {LIMIT} are allowed. With {most}:"
    return "\n".join([BEGIN, *tables, "", sentence, "", *deepest, END])


def page_with(part: str) -> str:
    """The page with ``part`` between its marks."""
    before, rest = PAGE.read_text().split(BEGIN)
    return before + part + rest.split(END, 1)[1]


def write_page(depths: Sequence[Depth]) -> Path:
    """Put the measured part into docs/pipeline.md."""
    return write_if_changed(PAGE, page_with(section(depths)))
