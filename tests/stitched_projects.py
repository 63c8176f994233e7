"""What `make hls` leaves, as far as the tools need it that put the projects together."""

from __future__ import annotations

import json
from pathlib import Path

from driver.streamed import Port, StreamedNetwork
from hls.vitis.ports import Stream, top_function
from hw.board import Board

CHAIN = [
    ("network_graph1_axi", "image", "layer20_out"),
    ("network_graph2_axi", "s2b0relu_input", "layer31_out"),
    ("network_graph3_axi", "s2b1relu_input", "layer196_out"),
]
"""Kernels, and the streams that they read and write."""
NETWORK = StreamedNetwork((16, 16, 3), Port(256, 3, 8, 8, False), Port(1, 512, 16, 7, False))
WIDTHS = (32, 512, 512, 32)


def written(out: Path, board: Board) -> Path:
    """Projects for ``board`` in ``out``."""
    assert board.device
    for number, (name, reads, writes) in enumerate(CHAIN, 1):
        project, inner = out / f"graph{number}", name.removesuffix("_axi")
        (project / "firmware").mkdir(parents=True)
        (project / "ports").mkdir()
        (project / "project.tcl").write_text(f'set project_name "{inner}"\n')
        (project / "firmware" / f"{inner}.cpp").write_text("")
        ends = [
            Stream(stream, "t", Port(1, 64, 8, 4, False), WIDTHS[at])
            for stream, at in ((reads, number - 1), (writes, number))
        ]
        (project / "ports" / f"{name}.cpp").write_text(top_function(inner, *ends))
    (out / "report.json").write_text(json.dumps({"part": board.device.part, "clock_ns": 5.0}))
    (out / "network.json").write_text(NETWORK.json())
    return out
