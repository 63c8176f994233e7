"""Runs yosys (its native Python wheel) on a script, in a process of its own.

``python -m hw.synth.yosys SCRIPT`` is that process: one command a line.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hw.synth.process import SynthesisError, run_tool


def read_commands(sources: Sequence[Path], top: str, parameters: Mapping[str, int]) -> list[str]:
    """The commands that elaborate module ``top`` of SystemVerilog ``sources``."""
    overrides = " ".join(f"-G {name}={value}" for name, value in parameters.items())
    return [f"read_slang --top {top} {overrides} {' '.join(map(str, sources))}"]


def run_yosys(title: str, commands: Mapping[str, str], work: Path, *, quiet: bool = False) -> None:
    """Run the commands (in order; the values name the phases) with ``work`` for script and log. Raises SynthesisError.

    ``quiet`` shows no progress: for many at once.
    """
    if importlib.util.find_spec("pyosys") is None:
        raise SynthesisError("yosys is not installed: pip install 'quarkwave[synth]'")
    work.mkdir(parents=True, exist_ok=True)
    script = work / "yosys.ys"
    script.write_text("".join(f"{command}\n" for command in commands))
    run_tool(
        title,
        [sys.executable, "-m", "hw.synth.yosys", script],
        work / "yosys.log",
        {f"-- Running command `{command}'": name for command, name in commands.items()},
        error=r"^(\S+:\d+: )?ERROR: ",
        quiet=quiet,
    )


def main(script: Path) -> None:
    """Run the script's commands."""
    from pyosys import libyosys

    design = libyosys.Design()
    for command in script.read_text().splitlines():
        libyosys.run_pass(command, design)  # the method of Design would not announce the command
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
