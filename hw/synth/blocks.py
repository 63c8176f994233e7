"""Takes an NPU apart: each RTL module with each set of parameters that it is built with, and how many there are of it.

Elaborated by yosys from the top, with the hierarchy kept, so a block has exactly the parameters that it has in the whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hw.isa import ArrayConfig
from hw.sources import npu_parameters
from hw.synth.process import SynthesisError
from hw.synth.yosys import read_commands, run_yosys

TOP = "npu"


@dataclass(frozen=True)
class Block:
    """An RTL module with one set of parameters; what it instantiates are blocks of their own."""

    label: str
    """The module's name; with an instance's behind it where there are several sets of parameters."""
    module: str
    """The RTL module."""
    first: str
    """One instance of it, by yosys's name."""
    count: int
    """Instances in the NPU."""


def elaborate(config: ArrayConfig, sources: Sequence[Path], work: Path) -> tuple[Path, list[Block]]:
    """yosys's RTLIL of the whole NPU of ``config``, before any synthesis, and its blocks in alphabetical order. Raises SynthesisError."""
    netlist = work / "npu.il"
    read = [f"{c} --keep-hierarchy" for c in read_commands(sources, TOP, npu_parameters(config))]
    run_yosys("reading", {**dict.fromkeys(read, ""), f"write_rtlil {netlist}": ""}, work, quiet=True)
    return netlist, group(netlist.read_text())


def group(rtlil: str) -> list[Block]:
    """The blocks of a design in RTLIL. Two instances are one block when they have the same lines but for generated numbers."""
    instances: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, body in re.findall(r"^module \\(\S+)\n(.*?)^end\n", rtlil, re.DOTALL | re.MULTILINE):
        module, _, path = name.partition("$")
        plain = re.sub(r"^ *attribute \\src .*\n", "", body, flags=re.MULTILINE)
        plain = re.sub(r"\$\d+", "$", plain.replace(path, "") if path else plain)
        instances.setdefault((module, tuple(sorted(plain.splitlines()))), []).append(name)
    if not instances:
        raise SynthesisError("yosys has written no module")
    forms: dict[str, list[list[str]]] = {}
    for (module, _), names in instances.items():
        forms.setdefault(module, []).append(names)
    blocks = []
    for module, alike in sorted(forms.items()):
        last = [names[0].rpartition(".")[2] for names in alike]
        for names, instance in zip(alike, last, strict=True):
            alone = instance if last.count(instance) == 1 else names[0].partition("$")[2]
            label = module if len(alike) == 1 else f"{module} {alone}"
            blocks.append(Block(label, module, names[0], len(names)))
    return sorted(blocks, key=lambda block: block.label)
