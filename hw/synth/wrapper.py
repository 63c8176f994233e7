"""Module ``npu_top``: the NPU with one flat group of ports for each AXI interface, as IP packagers and block designs want it.

``npu.sv`` keeps the weight ports as one packed array, so that it can be built for any number of them; vendor tools want an interface for
each port, named and annotated. One generator serves the Zynq flow, the Alveo flow and the tests: whatever lists the NPU's interfaces reads
``interfaces()``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hw.isa import REGISTER_BITS, ArrayConfig
from hw.sources import npu_parameters

TOP = "npu_top"
CLOCK, RESET, INTERRUPT = "ap_clk", "ap_rst_n", "interrupt"
"""The names that Vitis wants (UG1393, kernel interface requirements)."""
BURST_BEATS = 64
"""Longest burst of axi_read_dma and axi_write_dma."""
REGISTER_INTERFACE = "s_axi_control"
ADDRESS_BITS = 64


@dataclass(frozen=True)
class Port:
    """One port of the wrapper."""

    name: str
    output: bool
    width: int = 1


@dataclass(frozen=True)
class Interface:
    """One AXI interface of the wrapper."""

    name: str
    npu_prefix: str
    """Its ports' prefix in npu.sv."""
    lane: int | None
    """Which lane of npu.sv's packed arrays; None where they are plain."""
    master: bool
    mode: str
    """READ_ONLY, WRITE_ONLY or READ_WRITE."""
    data_bits: int
    address_bits: int

    @property
    def signals(self) -> tuple[Port, ...]:
        """AXI signals without prefix; ``output`` as the NPU sees them."""
        rows = _LITE if not self.master else (_READ if self.mode == "READ_ONLY" else _WRITE)
        width = {"address": self.address_bits, "data": self.data_bits, "strobe": self.data_bits // 8}
        return tuple(Port(name, output, width[w] if isinstance(w, str) else w) for name, output, w in rows)

    @property
    def parameters(self) -> dict[str, object]:
        """What the interface tells the interconnect (AXI reference guide, UG1037)."""
        common: dict[str, object] = {
            "XIL_INTERFACENAME": self.name,
            "PROTOCOL": "AXI4" if self.master else "AXI4LITE",
            "READ_WRITE_MODE": self.mode,
            "ADDR_WIDTH": self.address_bits,
            "DATA_WIDTH": self.data_bits,
            "ID_WIDTH": 0,
            "SUPPORTS_NARROW_BURST": 0,
        }
        return {**common, "MAX_BURST_LENGTH": BURST_BEATS} if self.master else common


_Row = tuple[str, bool, int | str]
_READ: tuple[_Row, ...] = (
    ("araddr", True, "address"),
    ("arlen", True, 8),
    ("arsize", True, 3),
    ("arburst", True, 2),
    ("arcache", True, 4),
    ("arprot", True, 3),
    ("arvalid", True, 1),
    ("arready", False, 1),
    ("rdata", False, "data"),
    ("rresp", False, 2),
    ("rlast", False, 1),
    ("rvalid", False, 1),
    ("rready", True, 1),
)
_WRITE: tuple[_Row, ...] = (
    ("awaddr", True, "address"),
    ("awlen", True, 8),
    ("awsize", True, 3),
    ("awburst", True, 2),
    ("awcache", True, 4),
    ("awprot", True, 3),
    ("awvalid", True, 1),
    ("awready", False, 1),
    ("wdata", True, "data"),
    ("wstrb", True, "strobe"),
    ("wlast", True, 1),
    ("wvalid", True, 1),
    ("wready", False, 1),
    ("bresp", False, 2),
    ("bvalid", False, 1),
    ("bready", True, 1),
)
_LITE: tuple[_Row, ...] = (
    ("awaddr", False, "address"),
    ("awprot", False, 3),
    ("awvalid", False, 1),
    ("awready", True, 1),
    ("wdata", False, "data"),
    ("wstrb", False, "strobe"),
    ("wvalid", False, 1),
    ("wready", True, 1),
    ("bresp", True, 2),
    ("bvalid", True, 1),
    ("bready", False, 1),
    ("araddr", False, "address"),
    ("arprot", False, 3),
    ("arvalid", False, 1),
    ("arready", True, 1),
    ("rdata", True, "data"),
    ("rresp", True, 2),
    ("rvalid", True, 1),
    ("rready", False, 1),
)


def masters(config: ArrayConfig) -> tuple[Interface, ...]:
    """The AXI4 masters, in the order of a board's memory_ports: the weight ports, image, features."""
    bits = 8 * config.port_bytes
    weights = [
        Interface(f"m_axi_weights_{i}", "m_axi_weights", i, True, "READ_ONLY", bits, ADDRESS_BITS)
        for i in range(config.ports)
    ]
    return (
        *weights,
        Interface("m_axi_image", "m_axi_image", None, True, "READ_ONLY", bits, ADDRESS_BITS),
        Interface("m_axi_features", "m_axi_features", None, True, "WRITE_ONLY", bits, ADDRESS_BITS),
    )


def interfaces(config: ArrayConfig) -> tuple[Interface, ...]:
    """Every AXI interface: the register slave, then the masters."""
    return (Interface(REGISTER_INTERFACE, "s_axi", None, False, "READ_WRITE", 32, REGISTER_BITS), *masters(config))


def ports(config: ArrayConfig) -> tuple[Port, ...]:
    """Every port of ``npu_top``."""
    axi = [Port(f"{i.name}_{s.name}", s.output, s.width) for i in interfaces(config) for s in i.signals]
    return (Port(CLOCK, False), Port(RESET, False), Port(INTERRUPT, True), *axi)


def wrapper_text(config: ArrayConfig) -> str:
    """``npu_top`` as Verilog 2001 (block designs take no SystemVerilog at the top), annotated for Vivado's IP packager (UG1118)."""
    parameters = ",\n".join(f"    .{name}({value})" for name, value in npu_parameters(config).items())
    return "\n".join(
        [
            f"// Generated by hw/synth/wrapper.py for {config.name}: module npu with one group of ports for each AXI interface.",
            "// Only names and widths; no logic.",
            f"module {TOP} (",
            ",\n\n".join(_declarations(config)),
            ");",
            "",
            "  npu #(",
            parameters,
            "  ) u_npu (",
            ",\n".join(_connections(config)),
            "  );",
            "",
            "endmodule",
            "",
        ]
    )


def _declarations(config: ArrayConfig) -> Iterator[str]:
    names = ":".join(i.name for i in interfaces(config))
    yield _declare(
        Port(CLOCK, False),
        f"xilinx.com:signal:clock:1.0 {CLOCK} CLK",
        {"XIL_INTERFACENAME": CLOCK, "ASSOCIATED_BUSIF": names, "ASSOCIATED_RESET": RESET},
    )
    yield _declare(
        Port(RESET, False),
        f"xilinx.com:signal:reset:1.0 {RESET} RST",
        {"XIL_INTERFACENAME": RESET, "POLARITY": "ACTIVE_LOW"},
    )
    yield _declare(
        Port(INTERRUPT, True),
        f"xilinx.com:signal:interrupt:1.0 {INTERRUPT} INTERRUPT",
        {"XIL_INTERFACENAME": INTERRUPT, "SENSITIVITY": "LEVEL_HIGH"},
    )
    for interface in interfaces(config):
        # The first port of an interface carries the parameters of the whole.
        for number, signal in enumerate(interface.signals):
            port = Port(f"{interface.name}_{signal.name}", signal.output, signal.width)
            info = f"xilinx.com:interface:aximm:1.0 {interface.name} {signal.name.upper()}"
            yield _declare(port, info, {} if number else interface.parameters)


def _declare(port: Port, info: str, parameters: dict[str, object]) -> str:
    lines = [f'  (* X_INTERFACE_INFO = "{info}" *)']
    if parameters:
        lines.append(f'  (* X_INTERFACE_PARAMETER = "{", ".join(f"{k} {v}" for k, v in parameters.items())}" *)')
    span = f" [{port.width - 1}:0]" if port.width > 1 else ""
    return "\n".join([*lines, f"  {'output' if port.output else 'input'} wire{span} {port.name}"])


def _connections(config: ArrayConfig) -> Iterator[str]:
    yield from (f"    .clk_i({CLOCK})", f"    .rst_ni({RESET})", f"    .interrupt_o({INTERRUPT})")
    lanes: dict[str, list[str]] = {}
    for interface in interfaces(config):
        for signal in interface.signals:
            lanes.setdefault(f"{interface.npu_prefix}_{signal.name}", []).append(f"{interface.name}_{signal.name}")
    for name, outer in lanes.items():
        # A packed array's last lane stands first in a concatenation.
        yield f"    .{name}({outer[0] if len(outer) == 1 else '{' + ', '.join(reversed(outer)) + '}'})"
