"""Finds a vendor's tool and checks its version; ``hw.synth.process`` runs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hw.synth.process import SynthesisError

VERSION_SECONDS = 120


@dataclass(frozen=True)
class Tool:
    """One vendor tool."""

    command: str
    product: str
    home: str
    """Environment variable that names its installation."""
    version_argument: str
    supported: tuple[str, ...]
    """Releases whose commands and options the scripts keep to."""


VIVADO = Tool(
    command="vivado",
    product="AMD Vivado",
    home="XILINX_VIVADO",
    version_argument="-version",
    supported=("2022.1", "2022.2", "2023.1", "2023.2", "2024.1", "2024.2", "2025.1", "2025.2"),
)
VPP = Tool(
    command="v++",
    product="AMD Vitis",
    home="XILINX_VITIS",
    version_argument="--version",
    supported=("2022.1", "2022.2", "2023.1", "2023.2"),
)


def find(tool: Tool) -> Path:
    """The executable, on the PATH or in the installation that the environment names, of a supported release.

    Raises SynthesisError with what to install or set.
    """
    found = shutil.which(tool.command)
    home = os.environ.get(tool.home)
    if found is None and home:
        found = shutil.which(tool.command, path=str(Path(home) / "bin"))
    if found is None:
        raise SynthesisError(
            f"{tool.command} was not found: install {tool.product} ({tool.supported[0]} to {tool.supported[-1]}) and source its "
            f"settings64.sh, or set {tool.home}; `make synth` without BOARD runs the open flow, which needs neither"
        )
    _check_version(tool, Path(found))
    return Path(found)


def _check_version(tool: Tool, executable: Path) -> None:
    try:
        done = subprocess.run(
            [str(executable), tool.version_argument],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SynthesisError(f"{executable} does not say its version: {error}") from error
    match = re.search(r"\bv(\d{4}\.\d)", done.stdout)
    if match is None:
        said = (done.stdout + done.stderr).strip()[:200]
        raise SynthesisError(f"{executable} {tool.version_argument} names no version; it said: {said!r}")
    if match[1] not in tool.supported:
        raise SynthesisError(f"{executable} is version {match[1]}; supported are {', '.join(tool.supported)}")
