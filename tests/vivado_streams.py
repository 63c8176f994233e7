"""Blocks of a stitched network, for the model of Vivado: AXI DMA, width converter, packaged HLS projects, a module of ours.

Typed from PG021 (AXI DMA), PG085 (AXI4-Stream infrastructure) and UG1399 (ports of an IP with ap_ctrl_hs); the module's from its source.
"""

from __future__ import annotations

import re
from pathlib import Path

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
        known = {
            "axi_dma": DMA_PARAMETERS,
            "axis_dwidth_converter": r"[SM]_TDATA_NUM_BYTES",
            "xlconstant": r"CONST_(WIDTH|VAL)",
            "features_to_beats": r"WORD_BYTES|WORDS",
        }
        name = key.removeprefix("CONFIG.")
        if not re.fullmatch(known.get(self.kind, r"(?!)"), name):
            raise BlockError(f"{self.kind} has no parameter {key}")
        if name.endswith("TDATA_NUM_BYTES") and not 1 <= int(value) <= 512:
            raise BlockError(f"{key} is 1 to 512, not {value}")
        self.config[name] = value

    def pins(self) -> Pins:
        """The pins in the present configuration."""
        match self.kind:
            case "axi_dma":
                clocks = {"s_axi_lite_aclk", "m_axi_mm2s_aclk", "m_axi_s2mm_aclk"}
                interfaces = {"S_AXI_LITE": False, "M_AXI_MM2S": True, "M_AXI_S2MM": True}
                interfaces |= {"M_AXIS_MM2S": True, "S_AXIS_S2MM": False}
                if self.config.get("c_include_sg") != "0":
                    clocks.add("m_axi_sg_aclk")
                    interfaces["M_AXI_SG"] = True
                return Pins(frozenset({*clocks, "axi_resetn"}), frozenset({"mm2s_introut", "s2mm_introut"}), interfaces)
            case "axis_dwidth_converter":
                return Pins(frozenset({"aclk", "aresetn"}), frozenset(), {"S_AXIS": False, "M_AXIS": True})
            case "xlconstant":
                return Pins(frozenset(), frozenset({"dout"}), {})
            case "features_to_beats":
                return Pins(frozenset({"aclk", "aresetn"}), frozenset(), {"s_axis": False, "m_axis": True})
        streams = {name: kind == "master" for name, kind in self.bus_interfaces.items()}
        return Pins(
            frozenset({"ap_clk", "ap_rst_n", "ap_start"}), frozenset({"ap_done", "ap_idle", "ap_ready"}), streams
        )


class StreamVivado(Vivado):
    """The model, with these blocks. ``projects``: the streams of each HLS project, and how many bytes they are wide."""

    def __init__(self, board_parts: tuple[str, ...], projects: dict[str, dict[str, tuple[str, int]]]) -> None:
        super().__init__(board_parts)
        self.projects = projects

    def _create_bd_cell(self, call: Call) -> str:
        name = call.arguments[0]
        vlnv = call.options.get("-vlnv", "")
        kind = vlnv.split(":")[2] if vlnv else call.options.get("-reference", "")
        streams: dict[str, str] = {}
        if kind in self.projects and vlnv == f"xilinx.com:hls:{kind}:1.0":
            streams = {stream: direction for stream, (direction, _) in self.projects[kind].items()}
        elif call.options.get("-type") == "module":
            if f"{kind}.v" not in {Path(path).name for path in self.files}:
                raise VivadoError(f"no module {kind} in the sources")
            vlnv = f"quarkwave:module:{kind}:1.0"
        elif vlnv.rpartition(":")[0] != "xilinx.com:ip" or kind not in (
            "axi_dma",
            "axis_dwidth_converter",
            "xlconstant",
        ):
            return super()._create_bd_cell(call)
        if name in self.cells:
            raise VivadoError(f"there is a cell {name} already")
        self.cells[name] = StreamCell(vlnv if vlnv.count(":") > 2 else f"{vlnv}:1.0", streams)
        return f"/{name}"

    def _get_property(self, call: Call) -> str:
        key, path = call.arguments
        cell, _, pin = path.partition("/")
        if key != "CONFIG.TDATA_NUM_BYTES" or pin not in self.projects.get(self.cells[cell].kind, {}):
            raise VivadoError(f"{path} has no property {key}")
        return str(self.projects[self.cells[cell].kind][pin][1])

    def _get_bd_addr_segs(self, call: Call) -> str:
        if call.arguments == ("dma/S_AXI_LITE/Reg",):
            self._find("dma/S_AXI_LITE", interface=True)
            return call.arguments[0]
        return super()._get_bd_addr_segs(call)
