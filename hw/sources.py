"""Which files an RTL module is made of, for every tool that reads them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hw.isa import ArrayConfig
from hw.register_map import write_rtl
from hw.sv_package import write_package

ROOT = Path(__file__).resolve().parents[1]
RTL = ROOT / "hw" / "rtl"
BUILD = Path(os.environ.get("QUARKWAVE_BUILD", ROOT / "build"))
"""Where what is made goes; an installed package has no folder of its own for it, so the variable names one."""


def generated_sources(folder: Path = BUILD / "rtl") -> list[Path]:
    """The files that are generated, up to date: the package from ``hw.isa``, the registers from ``hw/regs/npu.rdl``."""
    return [write_package(folder / "npu_pkg.sv"), *write_rtl(folder)]


def rtl_sources(top: str) -> list[Path]:
    """The files of module ``top`` and all it uses, packages first. Raises FileNotFoundError for an unknown module."""
    known = {path.stem: path for path in [*generated_sources(), *RTL.glob("*.sv")]}
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


def npu_parameters(config: ArrayConfig) -> dict[str, int]:
    """The parameters of module npu that build the array ``config``."""
    return {
        "CP": config.cp,
        "KP": config.kp,
        "BANKS": config.banks,
        "BANK_WORDS": config.bank_words,
        "ACC_DEPTH": config.acc_depth,
        "PORTS": config.ports,
        "PORT_BYTES": config.port_bytes,
        "POOL_COLUMNS": config.pool_columns,
        "FIELD_BITS": config.field_bits,
        "ULTRA_RAM": int(config.ultra_ram),
    }
