"""Blocks of a stitched network, for the model of Vivado: AXI DMA, packaged HLS projects.

Typed from PG021 (AXI DMA) and UG1399 (ports of an IP with ap_ctrl_none).
"""

from __future__ import annotations

import re

from vivado_blocks import BlockError, Cell, Pins
from vivado_model import Call, Vivado, VivadoError

DMA_PARAMETERS = (
    r"c_(include_sg|sg_include_stscntrl_strm|sg_length_width|m_axi_mm2s_data_width|m_axis_mm2s_tdata_width"
    r"|m_axi_s2mm_data_width|s_axis_s2mm_tdata_width)"
)


class StreamCell(Cell):
    """A block with streams."""

    def set(self, key: str, value: str) -> None:
        """Set a parameter. Raises BlockError."""
        name = key.removeprefix("CONFIG.")
        if self.kind != "axi_dma" or not re.fullmatch(DMA_PARAMETERS, name):
            raise BlockError(f"{self.kind} has no parameter {key}")
        self.config[name] = value

    def pins(self) -> Pins:
        """The pins in the present configuration."""
        if self.kind == "axi_dma":
            clocks = {"s_axi_lite_aclk", "m_axi_mm2s_aclk", "m_axi_s2mm_aclk"}
            interfaces = {"S_AXI_LITE": False, "M_AXI_MM2S": True, "M_AXI_S2MM": True}
            interfaces |= {"M_AXIS_MM2S": True, "S_AXIS_S2MM": False}
            if self.config.get("c_include_sg") != "0":
                clocks.add("m_axi_sg_aclk")
                interfaces["M_AXI_SG"] = True
            return Pins(frozenset({*clocks, "axi_resetn"}), frozenset({"mm2s_introut", "s2mm_introut"}), interfaces)
        streams = {name: kind == "master" for name, kind in self.bus_interfaces.items()}
        return Pins(frozenset({"ap_clk", "ap_rst_n"}), frozenset(), streams)


class StreamVivado(Vivado):
    """The model, with these blocks. ``projects``: those that are packaged, (name, stream in, stream out)."""

    def __init__(self, board_parts: tuple[str, ...], projects: list[tuple[str, str, str]]) -> None:
        super().__init__(board_parts)
        self.projects = {
            f"xilinx.com:hls:{name}:1.0": {reads: "slave", writes: "master"} for name, reads, writes in projects
        }

    def _create_bd_cell(self, call: Call) -> str:
        name, vlnv = call.arguments[0], call.options["-vlnv"]
        if vlnv not in self.projects and vlnv != "xilinx.com:ip:axi_dma":
            return super()._create_bd_cell(call)
        if name in self.cells or call.options.get("-type") != "ip":
            raise VivadoError(f"cannot create {name} as {vlnv}")
        self.cells[name] = StreamCell(vlnv, self.projects.get(vlnv, {}))
        return f"/{name}"

    def _get_bd_addr_segs(self, call: Call) -> str:
        if call.arguments == ("dma/S_AXI_LITE/Reg",):
            self._find("dma/S_AXI_LITE", interface=True)
            return call.arguments[0]
        return super()._get_bd_addr_segs(call)
