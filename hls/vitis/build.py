"""``make hls``: from a network to its sized Vitis HLS projects, their report, and the script that stitches them."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hls.vitis import report
from hls.vitis.design import Design, assess, design
from hls.vitis.ports import write_ports
from hls.vitis.pragmas import bind_shallow_fifos
from hls.vitis.project import convert_sized, write_project
from hls.vitis.sizing import Sizing
from hls.vitis.split import cuts, legal_cuts, split
from hls.vitis.stages import read_graph

SIZING = "sizing.json"
LOG = "hls4ml.log"


def build(
    model: Any,
    out: Path,
    part: str,
    target_ms: float,
    clock_ns: float,
    projects: int,
    name: str = "network",
    tell: Callable[[str], None] = lambda step: None,
    sizing: Sizing | None = None,
) -> Design:
    """Size ``model`` and write its ``projects`` (at most as many as it can be cut into) into ``out``, beside sizing and report.

    ``tell`` is told what begins. What hls4ml prints goes into ``out``/hls4ml.log. With a ``sizing`` (whose part and clock count) nothing is
    chosen. Raises CompileError, SizingError, DeadlockError for FIFOs in it that are too shallow.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOG).open("w") as log, contextlib.redirect_stdout(log), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hls4ml's own about attributes that it sets itself
        tell("reading the network with hls4ml")
        graph = convert_sized(model, out, name)
        network = read_graph(graph)
        if sizing is None:
            tell("choosing reuse factors and FIFO depths")
            found = design(network, graph.config.backend, part, clock_ns, target_ms)
        else:
            tell("simulating the schedule")
            found = assess(network, sizing, target_ms)
        found.sizing.to_json(out / SIZING)
        report.write(found, out)
        projects = min(projects, len(legal_cuts(network)) + 1)
        before = cuts(network, found.sizing, projects)
        tell(f"writing {projects} HLS project(s)")
        for old in out.glob("graph[0-9]*"):
            shutil.rmtree(old)
        sized = convert_sized(model, out / "graph1" if projects == 1 else out, name, found.sizing)
        pieces = split(sized, before, found.sizing)
        folders = [write_project(piece) for piece in pieces]
        for folder in folders:
            bind_shallow_fifos(folder)
        write_ports(pieces, folders, out)
    return found
