"""The hardware handoff (.hwh) of a Zynq board, from its board file: what Vivado would write beside the bitstream, as far as PYNQ reads it.

It describes the block design of tcl/zynq.tcl: cells, buses, clock, interrupt, addresses, the NPU's registers. A test compares it with
what the script builds. With it the board's software runs where there is no Vivado and no board (``sim.board``); a board gets Vivado's own.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hw.board import Board, VivadoBuild
from hw.isa import REGISTER_BITS
from hw.synth.kernel import VLNV, register_list
from hw.synth.processing_system import ProcessingSystem, port_number, processing_system
from hw.synth.wrapper import CLOCK, INTERRUPT, REGISTER_INTERFACE, RESET, masters

DESIGN = "npu_system"
AXI = "xilinx.com:interface:aximm:1.0"
CONTROLLER, LINES = "interrupts", "interrupt_lines"
"""Cells of a design with several NPUs: the AXI interrupt controller, and what bundles its inputs."""
REGISTER_STRIDE = 1 << 16
"""Between the registers of two cells."""
MEMORY_BYTES = {"ultrascale+": 1 << 31, "7series": 1 << 29}
"""What the masters reach of the memory, from address 0."""


def hwh_text(board: Board) -> str:
    """``npu.hwh`` of a Zynq board. Raises ConfigurationError when the board has none."""
    ps = processing_system(board)
    assert board.device
    root = ElementTree.Element("EDKSYSTEM", EDWVERSION="1.2")
    ElementTree.SubElement(root, "SYSTEMINFO", ARCH=ps.arch, NAME=DESIGN, DEVICE=board.device.part)
    for empty in ("EXTERNALPORTS", "EXTERNALINTERFACES"):
        ElementTree.SubElement(root, empty)
    modules = ElementTree.SubElement(root, "MODULES")
    for cell in _cells(board, ps):
        _write_cell(modules, cell)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


# The block design ----------------------------------------------------------------------------------------------------


class _Range(NamedTuple):
    """A stretch of addresses that ``master`` of a cell sees."""

    master: str
    cell: str
    slave: str
    block: str
    base: int
    size: int
    kind: str


@dataclass(frozen=True)
class _Cell:
    """A block of the design. Nets: pin -> (driver or not, the pins at the other end); buses: interface -> (master or not, bus)."""

    name: str
    vlnv: str
    nets: dict[str, tuple[bool, list[str]]]
    buses: dict[str, tuple[bool, str]]
    parameters: dict[str, object] = field(default_factory=dict)
    ranges: tuple[_Range, ...] = ()
    registers: tuple[tuple[str, int, int, str], ...] = ()


def npu_names(board: Board) -> list[str]:
    """The cells of a Zynq board's NPUs."""
    assert isinstance(board.build, VivadoBuild)
    return ["npu"] if board.build.npus == 1 else [f"npu_{number}" for number in range(board.build.npus)]


def _cells(board: Board, ps: ProcessingSystem) -> list[_Cell]:
    """The cells of zynq.tcl, in its order, with its names."""
    assert board.device and isinstance(board.build, VivadoBuild)
    names = npu_names(board)
    axi_masters = [interface.name for interface in masters(board.array)]
    served = [
        (f"{npu}_{m}", port) for npu in names for m, port in zip(axi_masters, board.build.memory_ports, strict=True)
    ]
    ports = sorted(set(board.build.memory_ports))
    controlled = [*names, *([CONTROLLER] if len(names) > 1 else [])]
    bases = {name: ps.base + number * REGISTER_STRIDE for number, name in enumerate(controlled)}
    memory = MEMORY_BYTES[board.device.family]
    smart = "xilinx.com:ip:smartconnect:1.0"
    wires = _wires(board, ps, names, ports)

    def cell(name: str, vlnv: str, buses: dict[str, tuple[bool, str]], **more: Any) -> _Cell:
        return _Cell(name, vlnv, dict(_pins_of(name, wires)), buses, **more)

    def registers_of(name: str) -> _Range:
        if name == CONTROLLER:
            return _Range(ps.control, name, "s_axi", "Reg", bases[name], REGISTER_STRIDE, "REGISTER")
        return _Range(ps.control, name, REGISTER_INTERFACE, "reg0", bases[name], 1 << REGISTER_BITS, "REGISTER")

    def npu(number: int, name: str) -> _Cell:
        return cell(
            name,
            VLNV,
            {
                REGISTER_INTERFACE: (False, f"control_M{number:02d}"),
                **{master: (True, f"{name}_{master}") for master in axi_masters},
            },
            ranges=tuple(
                _Range(m, "ps", port, "DDR", 0, memory, "MEMORY")
                for m, port in zip(axi_masters, board.build.memory_ports, strict=True)  # type: ignore[union-attr]
            ),
            registers=tuple(register_list(board.array)),
        )

    def memory_of(port: str) -> _Cell:
        members = [bus for bus, p in served if p == port]
        slaves = {f"S{number:02d}_AXI": (False, bus) for number, bus in enumerate(members)}
        return cell(f"memory_{port}", smart, {**slaves, "M00_AXI": (True, f"memory_{port}_M00")})

    return [
        cell(
            "ps",
            f"xilinx.com:ip:{ps.name}:{ps.version}",
            {ps.control: (True, "ps_control"), **{port: (False, f"memory_{port}_M00") for port in ports}},
            parameters=ps.parameters(board),
            ranges=tuple(registers_of(name) for name in controlled),
        ),
        *(npu(number, name) for number, name in enumerate(names)),
        cell("reset", "xilinx.com:ip:proc_sys_reset:5.0", {}),
        cell(
            "control",
            smart,
            {
                "S00_AXI": (False, "ps_control"),
                **{f"M{number:02d}_AXI": (True, f"control_M{number:02d}") for number in range(len(controlled))},
            },
        ),
        *map(memory_of, ports),
        *(
            [
                cell(LINES, "xilinx.com:ip:xlconcat:2.1", {}),
                cell(CONTROLLER, "xilinx.com:ip:axi_intc:4.1", {"s_axi": (False, f"control_M{len(names):02d}")}),
            ]
            if len(names) > 1
            else []
        ),
    ]


def _wires(board: Board, ps: ProcessingSystem, names: list[str], ports: list[str]) -> dict[str, list[str]]:
    """Clock, resets and interrupts: driver -> the pins it drives."""
    clocked = [*(f"{npu}/{CLOCK}" for npu in names), "reset/slowest_sync_clk", "control/aclk", f"ps/{ps.control_clock}"]
    for port in ports:
        clocked += [f"memory_{port}/aclk", f"ps/{ps.memory_clock.format(port_number(port))}"]
    resets = ["control/aresetn", *(f"memory_{port}/aresetn" for port in ports)]
    if len(names) == 1:
        interrupts = {f"{names[0]}/{INTERRUPT}": [f"ps/{ps.interrupt}"]}
    else:
        interrupts = {f"{npu}/{INTERRUPT}": [f"{LINES}/In{number}"] for number, npu in enumerate(names)}
        interrupts |= {f"{LINES}/dout": [f"{CONTROLLER}/intr"], f"{CONTROLLER}/irq": [f"ps/{ps.interrupt}"]}
        clocked.append(f"{CONTROLLER}/s_axi_aclk")
        resets.append(f"{CONTROLLER}/s_axi_aresetn")
    return {
        f"ps/{ps.clock}": clocked,
        f"ps/{ps.reset}": ["reset/ext_reset_in"],
        "reset/interconnect_aresetn": resets,
        "reset/peripheral_aresetn": [f"{npu}/{RESET}" for npu in names],
        **interrupts,
    }


def _pins_of(cell: str, wires: dict[str, list[str]]) -> Iterator[tuple[str, tuple[bool, list[str]]]]:
    """The pins of ``cell`` on ``wires`` (driver -> pins), with what each is connected to."""
    for driver, sinks in wires.items():
        for pin in (driver, *sinks):
            name, _, port = pin.partition("/")
            if name == cell:
                yield port, (pin == driver, sinks if pin == driver else [driver])


# As XML --------------------------------------------------------------------------------------------------------------


def _write_cell(modules: ElementTree.Element, cell: _Cell) -> None:
    kind, version = cell.vlnv.split(":")[2:]
    module = ElementTree.SubElement(
        modules,
        "MODULE",
        FULLNAME=f"/{cell.name}",
        INSTANCE=cell.name,
        MODTYPE=kind,
        VLNV=cell.vlnv,
        HWVERSION=version,
        IS_PL="FALSE" if cell.name == "ps" else "TRUE",
    )
    if cell.registers:
        blocks = ElementTree.SubElement(module, "ADDRESSBLOCKS")
        block = ElementTree.SubElement(
            blocks,
            "ADDRESSBLOCK",
            NAME="reg0",
            INTERFACE=REGISTER_INTERFACE,
            USAGE="register",
            RANGE=str(1 << REGISTER_BITS),
        )
        registers = ElementTree.SubElement(block, "REGISTERS")
        for name, offset, bits, _ in cell.registers:
            register = ElementTree.SubElement(registers, "REGISTER", NAME=name)
            properties = {
                "DESCRIPTION": name,
                "ADDRESS_OFFSET": hex(offset),
                "SIZE": str(bits),
                "ACCESS": "read-write",
                "IS_ENABLED": "true",
            }
            for key, value in properties.items():
                ElementTree.SubElement(register, "PROPERTY", NAME=key, VALUE=value)
    parameters = ElementTree.SubElement(module, "PARAMETERS")
    for key, item in cell.parameters.items():
        ElementTree.SubElement(parameters, "PARAMETER", NAME=key, VALUE=str(item))
    _write_ports(module, cell)
    buses = ElementTree.SubElement(module, "BUSINTERFACES")
    for name, (master, bus) in cell.buses.items():
        mode = "MASTER" if master else "SLAVE"
        ElementTree.SubElement(buses, "BUSINTERFACE", NAME=name, BUSNAME=bus, TYPE=mode, VLNV=AXI)
    memory = ElementTree.SubElement(module, "MEMORYMAP")
    for r in cell.ranges:
        ElementTree.SubElement(
            memory,
            "MEMRANGE",
            ADDRESSBLOCK=r.block,
            BASEVALUE=f"0x{r.base:08X}",
            HIGHVALUE=f"0x{r.base + r.size - 1:08X}",
            INSTANCE=r.cell,
            MASTERBUSINTERFACE=r.master,
            MEMTYPE=r.kind,
            SLAVEBUSINTERFACE=r.slave,
        )


def _write_ports(module: ElementTree.Element, cell: _Cell) -> None:
    ports = ElementTree.SubElement(module, "PORTS")
    for pin, (driver, others) in cell.nets.items():
        signal = f"{cell.name}_{pin}" if driver else others[0].replace("/", "_")
        port = ElementTree.SubElement(ports, "PORT", NAME=pin, DIR="O" if driver else "I", SIGNAME=signal)
        connections = ElementTree.SubElement(port, "CONNECTIONS")
        for other in others:
            name, _, their_pin = other.partition("/")
            ElementTree.SubElement(connections, "CONNECTION", INSTANCE=name, PORT=their_pin)
