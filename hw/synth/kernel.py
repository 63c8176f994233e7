"""What Vitis wants to know of the NPU: ``kernel.xml`` (registers and ports, from ``hw.isa``) and ``link.cfg`` (where the cores go)."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from hw.board import Board, VitisBuild
from hw.isa import REGISTER_BITS, ArrayConfig, Register
from hw.synth.wrapper import REGISTER_INTERFACE, interfaces, masters

VENDOR, LIBRARY, NAME, IP_VERSION = "quarkwave", "npu", "npu", "1.0"
VLNV = f"{VENDOR}:{LIBRARY}:{NAME}:{IP_VERSION}"
POINTER_BYTES, SCALAR_BYTES = 8, 4
CONTROL_PROTOCOL = "ap_ctrl_hs"
SCALARS = (Register.PROGRAM_BEATS, Register.WATCHDOG)


@dataclass(frozen=True)
class Argument:
    """One argument of the kernel: a 64-bit pointer that an AXI master follows, or a 32-bit number."""

    name: str
    offset: int
    port: str
    pointer: bool


def arguments(config: ArrayConfig) -> tuple[Argument, ...]:
    """What the host sets before a start, in the order of the registers."""
    pointers = [
        Argument(f"program_{i}", Register.PROGRAM_ADDRESS + POINTER_BYTES * i, f"m_axi_weights_{i}", True)
        for i in range(config.ports)
    ]
    pointers.append(Argument("image", Register.IMAGE_ADDRESS, "m_axi_image", True))
    pointers.append(Argument("features", Register.FEATURE_ADDRESS, "m_axi_features", True))
    return (*pointers, *(Argument(r.name.lower(), r, REGISTER_INTERFACE, False) for r in SCALARS))


def register_list(config: ArrayConfig) -> list[tuple[str, int, int, str]]:
    """(name, byte offset, bits, master that follows the address or "") of every register, for the IP's memory map.

    The first register is called CTRL, as Vitis wants it. The layer counters are a memory and stay out.
    """
    rows = []
    pointers = {argument.offset: argument for argument in arguments(config) if argument.pointer}
    for offset, argument in pointers.items():
        rows.append((argument.name.upper(), offset, 8 * POINTER_BYTES, argument.port))
    for register in Register:
        if register not in (
            Register.PROGRAM_ADDRESS,
            Register.IMAGE_ADDRESS,
            Register.FEATURE_ADDRESS,
            Register.LAYER_COUNTERS,
        ):
            name = "CTRL" if register is Register.CONTROL else register.name
            rows.append((name, int(register), 8 * SCALAR_BYTES, ""))
    return sorted(rows, key=lambda row: row[1])


def kernel_xml(config: ArrayConfig) -> str:
    """``kernel.xml`` by the rules of UG1393 (Vitis, "RTL Kernel XML File").

    The control protocol is ap_ctrl_hs: the runtime starts one run and waits for its end. (The NPU would also take a start during a run.)
    """
    root = ElementTree.Element("root", versionMajor="1", versionMinor="6")
    kernel = ElementTree.SubElement(
        root,
        "kernel",
        name=NAME,
        language="ip_c",
        vlnv=VLNV,
        attributes="",
        preferredWorkGroupSizeMultiple="0",
        workGroupSize="1",
        interrupt="true",
        hwControlProtocol=CONTROL_PROTOCOL,
    )
    ports = ElementTree.SubElement(kernel, "ports")
    for interface in interfaces(config):
        ElementTree.SubElement(
            ports,
            "port",
            name=interface.name,
            mode="master" if interface.master else "slave",
            range="0xFFFFFFFFFFFFFFFF" if interface.master else hex(1 << REGISTER_BITS),
            dataWidth=str(interface.data_bits),
            portType="addressable",
            base="0x0",
        )
    args = ElementTree.SubElement(kernel, "args")
    for number, argument in enumerate(arguments(config)):
        size = hex(POINTER_BYTES if argument.pointer else SCALAR_BYTES)
        ElementTree.SubElement(
            args,
            "arg",
            name=argument.name,
            addressQualifier="1" if argument.pointer else "0",
            id=str(number),
            port=argument.port,
            size=size,
            offset=hex(argument.offset),
            type="void*" if argument.pointer else "uint",
            hostOffset="0x0",
            hostSize=size,
        )
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def link_configuration(board: Board) -> str:
    """``link.cfg`` of ``v++ --link``: one compute unit a core, in its SLR, with all its masters on the memory beside it."""
    assert isinstance(board.build, VitisBuild)
    names = [f"{NAME}_{i + 1}" for i in range(len(board.build.cores))]  # as v++ names them by itself
    lines = ["[connectivity]", f"nk={NAME}:{len(names)}"]
    for name, core in zip(names, board.build.cores, strict=True):
        slr, memory = core.split(":")
        lines.append(f"slr={name}:{slr}")
        lines += [f"sp={name}.{master.name}:{memory}" for master in masters(board.array)]
    return "\n".join([*lines, ""])
