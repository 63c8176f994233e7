"""Blocks of a Zynq's block design: the parameters that the scripts may set, and the pins that follow from them.

Typed from the product guides: PG201 (Zynq UltraScale+ processing system), PG082 (Zynq-7000 processing system), PG247 (SmartConnect), PG164
(processor system reset), PG099 (interrupt controller), PG041 (concat). Parameters and pins that no script uses are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

PARAMETERS = {
    "zynq_ultra_ps_e": (
        r"PSU__(FPGA_PL0_ENABLE|USE__(M_AXI_GP[0-2]|S_AXI_GP[0-6]|IRQ[01])|[MS]AXIGP[0-6]__DATA_WIDTH"
        r"|CRL_APB__PL0_REF_CTRL__FREQMHZ)"
    ),
    "processing_system7": (
        r"PCW_(EN_CLK0_PORT|FPGA0_PERIPHERAL_FREQMHZ|USE_M_AXI_GP[01]|USE_S_AXI_HP[0-3]|S_AXI_HP[0-3]_DATA_WIDTH"
        r"|USE_FABRIC_INTERRUPT|IRQ_F2P_INTR)"
    ),
    "smartconnect": r"NUM_(SI|MI|CLKS)",
    "proc_sys_reset": r"(?!)",
    "xlconcat": r"NUM_PORTS",
    "axi_intc": r"C_IRQ_CONNECTION",
    "npu": r"(?!)",
}
"""The IPs of the catalog, ours included, and the names of their parameters."""
WIDTHS = {"zynq_ultra_ps_e": {"32", "64", "128"}, "processing_system7": {"32", "64"}}


class BlockError(Exception):
    """A block has no such parameter, or not that value of it."""


@dataclass(frozen=True)
class Pins:
    """What a cell shows to the outside. Interfaces: True for a master."""

    inputs: frozenset[str]
    outputs: frozenset[str]
    interfaces: dict[str, bool]


@dataclass
class Cell:
    """A block of the design: its type and configuration, from which its pins follow."""

    vlnv: str
    bus_interfaces: dict[str, str]
    """Of the NPU: name and type ("clock", "reset", "interrupt", "slave", "master")."""
    config: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The IP's name."""
        return self.vlnv.split(":")[2]

    def set(self, key: str, value: str) -> None:
        """Set a parameter. Raises BlockError."""
        name = key.removeprefix("CONFIG.")
        if not re.fullmatch(PARAMETERS[self.kind], name):
            raise BlockError(f"{self.kind} has no parameter {key}")
        if name.endswith("DATA_WIDTH") and value not in WIDTHS[self.kind]:
            raise BlockError(f"{key} cannot be {value}")
        self.config[name] = value

    def _on(self, name: str) -> bool:
        return self.config.get(name) == "1"

    def pins(self) -> Pins:
        """The pins in the present configuration."""
        match self.kind:
            case "zynq_ultra_ps_e":
                return self._ultrascale_pins()
            case "processing_system7":
                return self._zynq7_pins()
            case "smartconnect":
                slaves = {f"S{n:02d}_AXI": False for n in range(int(self.config.get("NUM_SI", "1")))}
                masters = {f"M{n:02d}_AXI": True for n in range(int(self.config.get("NUM_MI", "1")))}
                return Pins(frozenset({"aclk", "aresetn"}), frozenset(), slaves | masters)
            case "proc_sys_reset":
                outputs = {
                    "mb_reset",
                    "bus_struct_reset",
                    "peripheral_reset",
                    "interconnect_aresetn",
                    "peripheral_aresetn",
                }
                return Pins(frozenset({"slowest_sync_clk", "ext_reset_in"}), frozenset(outputs), {})
            case "xlconcat":
                inputs = {f"In{n}" for n in range(int(self.config.get("NUM_PORTS", "2")))}
                return Pins(frozenset(inputs), frozenset({"dout"}), {})
            case "axi_intc":  # with C_IRQ_CONNECTION 0 its output is an interface
                single = self.config.get("C_IRQ_CONNECTION") == "1"
                inputs = {"s_axi_aclk", "s_axi_aresetn", "intr"}
                return Pins(frozenset(inputs), frozenset({"irq"} if single else ()), {"s_axi": False})
        kinds = self.bus_interfaces.items()
        return Pins(
            frozenset(name for name, kind in kinds if kind in ("clock", "reset")),
            frozenset(name for name, kind in kinds if kind == "interrupt"),
            {name: kind == "master" for name, kind in kinds if kind in ("master", "slave")},
        )

    def _ultrascale_pins(self) -> Pins:
        ports = [n for n in range(4) if self._on(f"PSU__USE__S_AXI_GP{n + 2}")]
        inputs = {f"saxihp{n}_fpd_aclk" for n in ports}
        interfaces = {f"S_AXI_HP{n}_FPD": False for n in ports}
        if self._on("PSU__USE__M_AXI_GP0"):
            inputs.add("maxihpm0_fpd_aclk")
            interfaces["M_AXI_HPM0_FPD"] = True
        if self._on("PSU__USE__IRQ0"):
            inputs.add("pl_ps_irq0")
        outputs = {"pl_clk0", "pl_resetn0"} if self._on("PSU__FPGA_PL0_ENABLE") else set()
        return Pins(frozenset(inputs), frozenset(outputs), interfaces)

    def _zynq7_pins(self) -> Pins:
        ports = [n for n in range(4) if self._on(f"PCW_USE_S_AXI_HP{n}")]
        inputs = {f"S_AXI_HP{n}_ACLK" for n in ports}
        interfaces = {f"S_AXI_HP{n}": False for n in ports}
        if self._on("PCW_USE_M_AXI_GP0"):
            inputs.add("M_AXI_GP0_ACLK")
            interfaces["M_AXI_GP0"] = True
        if self._on("PCW_USE_FABRIC_INTERRUPT") and self._on("PCW_IRQ_F2P_INTR"):
            inputs.add("IRQ_F2P")
        outputs = {"FCLK_CLK0", "FCLK_RESET0_N"} if self._on("PCW_EN_CLK0_PORT") else set()
        return Pins(frozenset(inputs), frozenset(outputs), interfaces)
