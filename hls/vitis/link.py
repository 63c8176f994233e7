"""Put the synthesised sub-projects of a network together on an Alveo card: kernels between streams, by v++.

Each sub-project is a free-running kernel (UG1393, "Free-Running Kernel"); the two of cpp/movers.cpp, which the host starts, carry images
from the card's memory to the first and features from the last to the memory. Nobody has run it with the real tools here.
"""

from __future__ import annotations

import json
from pathlib import Path

from hls.vitis.csim import find_projects
from hls.vitis.ports import NETWORK, port_names, top_source
from hls.vitis.stitch import FOLDER, made_for
from hls.vitis.synth import TARGET, run_all
from hw.board import Board, VitisBuild
from hw.files import write_if_changed
from hw.isa import ConfigurationError
from hw.synth import tool
from hw.synth.process import SynthesisError, run_tool
from hw.synth.vitis import LINK_PHASES, link_command
from hw.synth.vivado import ERROR_LINE

MOVERS = Path(__file__).parent / "cpp" / "movers.cpp"
READER, WRITER = "image_reader", "feature_writer"
"""Kernels of movers.cpp; their compute units are called after them, with _1."""
XCLBIN = "network.xclbin"


def link(out: Path, board: Board, jobs: int = 1) -> Path:
    """Link the kernel objects of the projects in ``out`` for ``board``: ``out``/board/network.xclbin, network.json beside it.

    Raises SynthesisError, ConfigurationError for a board that is no Alveo card.
    """
    configuration = prepare(out, board)
    executable = tool.find(tool.VPP)
    work = configuration.parent
    run_all([work / READER, work / WRITER], jobs)
    objects = [work / mover / f"{mover}.xo" for mover in (READER, WRITER)]
    objects += [(project / f"{top_source(project).stem}.xo").resolve() for project in find_projects(out)]
    for path in objects:
        if not path.is_file():
            raise SynthesisError(f"Vitis HLS ended without an error but left no {path}")
    command = link_command(executable, board, configuration, XCLBIN, objects, _clock_mhz(out))
    run_tool(f"v++ {board.name}", command, work / "v++.log", LINK_PHASES, ERROR_LINE, folder=work)
    if not (work / XCLBIN).is_file():
        raise SynthesisError(f"v++ ended without an error but left no {XCLBIN} in {work}")
    write_if_changed(work / NETWORK, (out / NETWORK).read_text())
    return work / XCLBIN


def prepare(out: Path, board: Board) -> Path:
    """Write what Vitis HLS and v++ want to know. Returns v++'s file."""
    if not isinstance(board.build, VitisBuild) or board.device is None:
        raise ConfigurationError(f"{board.name} is no Alveo card")
    facts = made_for(out, board.name, board.device.part)
    work = (out / FOLDER).resolve()
    for mover in (READER, WRITER):
        settings = {
            "project_name": mover,
            "part": board.device.part,
            "clock_period": facts["clock_ns"],
            "clock_uncertainty": "27%",
            "version": "1.0.0",
            "maximum_size": 4096,
            "top": mover,
            "sources": f"{{{MOVERS.resolve()}}}",
            "flags": "-std=c++0x",
            "flow": "vitis",
        }
        lines = [f"set {name} {value}" for name, value in settings.items()]
        write_if_changed(work / mover / TARGET, "\n".join([*lines, ""]))
    chain = [(top_source(project).stem, *port_names(project)) for project in find_projects(out)]
    return write_if_changed(work / "link.cfg", link_configuration(board, chain))


def link_configuration(board: Board, chain: list[tuple[str, str, str]]) -> str:
    """``link.cfg`` of ``v++ --link``: the kernels of ``chain``, (name, input, output), spread over the card's SLRs in their order.

    Each mover lies beside its end of the chain, on the memory there (UG1702, "connectivity options").
    """
    assert isinstance(board.build, VitisBuild)
    places = [core.split(":") for core in board.build.cores]
    kernels = [READER, *(name for name, _, _ in chain), WRITER]
    slrs = [places[0][0], *(places[n * len(places) // len(chain)][0] for n in range(len(chain))), places[-1][0]]
    lines = ["[connectivity]", *(f"nk={name}:1:{name}_1" for name in kernels)]
    before = f"{READER}_1.pixels"
    for name, reads, writes in chain:
        lines.append(f"stream_connect={before}:{name}_1.{reads}")
        before = f"{name}_1.{writes}"
    lines.append(f"stream_connect={before}:{WRITER}_1.results")
    lines += [f"sp={READER}_1.m_axi_gmem:{places[0][1]}", f"sp={WRITER}_1.m_axi_gmem:{places[-1][1]}"]
    lines += [f"slr={name}_1:{slr}" for name, slr in zip(kernels, slrs, strict=True)]
    return "\n".join([*lines, ""])


def _clock_mhz(out: Path) -> float:
    """The clock that the projects in ``out`` were sized for."""
    return 1e3 / float(json.loads((out / "report.json").read_text())["clock_ns"])
