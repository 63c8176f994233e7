"""A board: the array that is built on it, the device, and how its bitstream is made. One file in hw/boards each, and its constraints.

``load_board("zcu104")`` reads ``hw/boards/zcu104.toml``. Adding a board is adding that file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hw.isa import BOARDS, ArrayConfig, ConfigurationError, board_file, from_table, load_config

FAMILIES = ("ultrascale+", "7series", "ecp5")


@dataclass(frozen=True)
class Device:
    """What one core may use of an FPGA: the whole device, or one SLR of a stacked one."""

    part: str
    """The vendor's full part number."""
    family: str
    """One of FAMILIES."""
    lut: int
    ff: int
    dsp: int
    """DSP48E1/E2; MULT18X18D on an ECP5."""
    block_ram: int
    """RAMB36; DP16KD on an ECP5."""
    ultra_ram: int = 0
    """URAM288; 0 where the family has none, then the activation banks are block RAM."""

    def __post_init__(self) -> None:
        """Refuse a family that nothing here knows."""
        if self.family not in FAMILIES:
            raise ConfigurationError(f"{self.part}: family {self.family!r} is none of {', '.join(FAMILIES)}")


@dataclass(frozen=True)
class VivadoBuild:
    """A Zynq board: block design, bitstream and hardware handoff by Vivado."""

    board_part: str
    """Vendor, name and part of the vendor's board files, without a version: Vivado takes the newest installed."""
    memory_ports: tuple[str, ...]
    """The processing system's slave port for each AXI master of the NPU: weights 0.., image, features. A port may serve several."""
    npus: int = 1
    """Cores in the design, all alike and on the same memory ports; several signal through an AXI interrupt controller."""
    tool: str = "vivado"

    def __post_init__(self) -> None:
        """Refuse what the block design cannot connect."""
        if not 1 <= self.npus <= 3:  # SmartConnect takes 16 masters, of which a core has up to 5 on one port
            raise ConfigurationError(f"{self.board_part}: npus = {self.npus} should be 1 to 3")


@dataclass(frozen=True)
class VitisBuild:
    """An Alveo card: RTL kernel, linked to a platform by Vitis."""

    platform: str
    cores: tuple[str, ...]
    """One ``SLR:memory`` for each core, such as ``SLR0:DDR[0]``."""
    tool: str = "vitis"

    def __post_init__(self) -> None:
        """Refuse what is not a place."""
        for core in self.cores:
            if not re.fullmatch(r"SLR\d+:\w+\[\d+\]", core):
                raise ConfigurationError(f"{self.platform}: core {core!r} should be SLR:memory, such as 'SLR0:DDR[0]'")


@dataclass(frozen=True)
class Ecp5Build:
    """A bare ECP5: yosys, nextpnr and ecppack."""

    package: str
    """As nextpnr names it."""
    speed: int
    """Speed grade."""
    seed: int = 1
    """Of nextpnr's placement: one with which the design reaches its clock."""
    tool: str = "ecp5"


Build = VivadoBuild | VitisBuild | Ecp5Build
_BUILDS: dict[str, type[VivadoBuild] | type[VitisBuild] | type[Ecp5Build]] = {
    "vivado": VivadoBuild,
    "vitis": VitisBuild,
    "ecp5": Ecp5Build,
}


@dataclass(frozen=True)
class Board:
    """What ``hw/boards/<name>.toml`` says."""

    name: str
    array: ArrayConfig
    device: Device | None
    """None for an array that is only simulated."""
    build: Build | None
    """None where no flow makes a bitstream."""

    @property
    def constraints(self) -> Path:
        """The board's constraints file, beside the board file; it need not exist."""
        return BOARDS / f"{self.name}.{'lpf' if isinstance(self.build, Ecp5Build) else 'xdc'}"


def board_names() -> list[str]:
    """Every board in hw/boards."""
    return sorted(path.stem for path in BOARDS.glob("*.toml"))


def load_board(name: str) -> Board:
    """The board called ``name``. Raises ConfigurationError that names the file and the key."""
    tables = board_file(name)
    unknown = sorted(tables.keys() - {"array", "device", "build"})
    if unknown:
        raise ConfigurationError(
            f"{name}.toml has no use for [{unknown[0]}]; its tables are [array], [device], [build]"
        )
    device = from_table(Device, tables["device"], f"{name}.toml, [device]") if "device" in tables else None
    build = _load_build(name, tables["build"]) if "build" in tables else None
    if build and not device:
        raise ConfigurationError(f"{name}.toml has [build] but no [device]")
    board = Board(name, load_config(name), device, build)
    masters = board.array.ports + 2
    if isinstance(build, VivadoBuild) and len(build.memory_ports) != masters:
        raise ConfigurationError(
            f"{name}.toml, [build]: {len(build.memory_ports)} memory_ports for {masters} AXI masters "
            f"({board.array.ports} of the weights, image, features)"
        )
    return board


def _load_build(name: str, table: dict[str, object]) -> Build:
    where = f"{name}.toml, [build]"
    record = _BUILDS.get(str(table.get("tool")))
    if record is None:
        raise ConfigurationError(f"{where}: tool {table.get('tool')!r} is none of {', '.join(_BUILDS)}")
    return from_table(record, table, where)
