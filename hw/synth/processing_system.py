"""The processing system of a Zynq board: the one place where Zynq UltraScale+ and Zynq-7000 differ, as in tcl/processing_system.tcl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hw.board import Board, VivadoBuild
from hw.isa import ConfigurationError

PL_CLOCKS = 4
"""Clocks that a processing system can give the programmable logic; the NPU's is the first."""
DIVISOR_MAX = 63


@dataclass(frozen=True)
class ProcessingSystem:
    """One of the two processing systems, in the names of its product guide (PG201, PG082)."""

    arch: str
    name: str
    version: str
    control: str
    """AXI master to the registers."""
    base: int
    """Where the registers go."""
    interrupt: str
    clock: str
    reset: str
    control_clock: str
    memory_clock: str
    """Clock pin of a memory port, with the port's number to be filled in."""
    pll_mhz: float
    """Nominal clock that the logic's clock is divided from, as the boards' presets set it."""

    def parameters(self, board: Board) -> dict[str, object]:
        """Those that PYNQ reads: clocks and widths of the ports."""
        product = divisors(self.pll_mhz, board.array.clock_mhz)
        clocks = [_PlClock(number, number == 0, *(product if number == 0 else (1, 1))) for number in range(PL_CLOCKS)]
        assert isinstance(board.build, VivadoBuild)
        ports, bits = sorted(set(board.build.memory_ports)), 8 * board.array.port_bytes
        if self.name == "zynq_ultra_ps_e":
            rows: dict[str, object] = {"C_MAXIGP0_DATA_WIDTH": 32}
            rows |= {f"C_SAXIGP{port_number(port) + 2}_DATA_WIDTH": bits for port in ports}
            for c in clocks:
                prefix = f"PSU__CRL_APB__PL{c.number}_REF_CTRL"
                rows |= {f"PSU__FPGA_PL{c.number}_ENABLE": int(c.enabled), f"{prefix}__SRCSEL": "IOPLL"}
                rows |= {f"{prefix}__DIVISOR0": c.divisor0, f"{prefix}__DIVISOR1": c.divisor1}
                rows |= {f"{prefix}__ACT_FREQMHZ": f"{self.pll_mhz / (c.divisor0 * c.divisor1):.6f}"}
            return rows
        rows = {f"C_S_AXI_HP{port_number(port)}_DATA_WIDTH": bits for port in ports}
        for c in clocks:
            prefix = f"PCW_FCLK{c.number}_PERIPHERAL"
            rows |= {f"PCW_FPGA_FCLK{c.number}_ENABLE": int(c.enabled), f"{prefix}_CLKSRC": "IO PLL"}
            rows |= {f"{prefix}_DIVISOR0": c.divisor0, f"{prefix}_DIVISOR1": c.divisor1}
        return rows


class _PlClock(NamedTuple):
    number: int
    enabled: bool
    divisor0: int
    divisor1: int


SYSTEMS = {
    "ultrascale+": ProcessingSystem(
        arch="zynquplus",
        name="zynq_ultra_ps_e",
        version="3.5",
        control="M_AXI_HPM0_FPD",
        base=0xA000_0000,
        interrupt="pl_ps_irq0",
        clock="pl_clk0",
        reset="pl_resetn0",
        control_clock="maxihpm0_fpd_aclk",
        memory_clock="saxihp{}_fpd_aclk",
        pll_mhz=1500.0,
    ),
    "7series": ProcessingSystem(
        arch="zynq",
        name="processing_system7",
        version="5.5",
        control="M_AXI_GP0",
        base=0x43C0_0000,
        interrupt="IRQ_F2P",
        clock="FCLK_CLK0",
        reset="FCLK_RESET0_N",
        control_clock="M_AXI_GP0_ACLK",
        memory_clock="S_AXI_HP{}_ACLK",
        pll_mhz=1000.0,
    ),
}
"""By the family of the board's device."""


def processing_system(board: Board) -> ProcessingSystem:
    """The processing system of a Zynq board. Raises ConfigurationError for any other board."""
    if board.device is None or not isinstance(board.build, VivadoBuild) or board.device.family not in SYSTEMS:
        raise ConfigurationError(f"{board.name} is no Zynq board, so it has no hardware handoff")
    return SYSTEMS[board.device.family]


def divisors(pll_mhz: float, clock_mhz: float) -> tuple[int, int]:
    """The two divisors that make ``clock_mhz`` of ``pll_mhz``. Raises ConfigurationError when they miss it by more than 1 %."""
    product = max(1, round(pll_mhz / clock_mhz)) if clock_mhz > 0 else 0
    if not product or abs(pll_mhz / product - clock_mhz) > 0.01 * clock_mhz:
        raise ConfigurationError(f"a clock of {clock_mhz:g} MHz cannot be divided from {pll_mhz:g} MHz")
    for second in range(1, DIVISOR_MAX + 1):
        if product % second == 0 and product // second <= DIVISOR_MAX:
            return product // second, second
    raise ConfigurationError(
        f"a clock of {clock_mhz:g} MHz needs the divisor {product}, which two of 6 bits cannot make"
    )


def port_number(port: str) -> int:
    """The digit of S_AXI_HP1 or S_AXI_HP1_FPD."""
    return int(port.removeprefix("S_AXI_HP")[0])
