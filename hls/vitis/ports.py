"""Give the written projects ports that can be connected: narrow AXI4-Streams, no control signals.

hls4ml's top function stays as it is; around it, in the folder ``ports``, stands another one that Vitis HLS takes as the top. The format of
the streams is cpp/axi_ports.h's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driver.streamed import BEAT_BYTES, Port, StreamedNetwork
from hls.vitis.sizing import SizingError
from hw.files import write_if_changed

if TYPE_CHECKING:
    from hls4ml.model.graph import ModelGraph

FOLDER = "ports"
NETWORK = "network.json"
SUFFIX = "_axi"
FIELD_BITS = (8, 16, 32)
END_BITS = 8 * BEAT_BYTES
LINK_BITS_MAX = 512
"""Between sub-projects: wide enough for the early stages, and what v++ connects."""
ARGUMENT = re.compile(r"hls::stream<ap_axiu<(\d+), 0, 0, 0>> &(\w+)")
HEADER = Path(__file__).parent / "cpp" / "axi_ports.h"


@dataclass(frozen=True)
class Stream:
    """A port of a project: its name and type in hls4ml's sources, its format, and how many bits a beat has."""

    name: str
    type_name: str
    port: Port
    beat_bits: int

    @property
    def field(self) -> str:
        """The C++ type of a field."""
        return f"ap_{'' if self.port.signed else 'u'}int<{self.port.field_bits}>"

    @property
    def argument(self) -> str:
        """As an argument of the top function."""
        return f"hls::stream<ap_axiu<{self.beat_bits}, 0, 0, 0>> &{self.name}"


def streams(graph: ModelGraph) -> tuple[Stream, Stream]:
    """What a project reads and what it writes. Raises SizingError for several of either, or elements of more than 32 bits."""
    ends = (graph.get_input_variables(), graph.get_output_variables())
    if [len(variables) for variables in ends] != [1, 1]:
        raise SizingError(f"{graph.config.get_project_name()} should have one input and one output")
    return _stream(ends[0][0]), _stream(ends[1][0])


def _stream(variable: Any) -> Stream:
    precision = variable.type.precision
    *pixels, channels = variable.shape
    words = 1
    for size in pixels:
        words *= size
    field = next((bits for bits in FIELD_BITS if bits >= precision.width), None)
    if field is None:
        raise SizingError(f"{variable.name} has elements of {precision.width} bits; a port takes {FIELD_BITS[-1]}")
    port = Port(words, channels, field, precision.width - precision.integer, bool(precision.signed))
    return Stream(variable.name, variable.type.name, port, END_BITS)


def write_ports(graphs: list[ModelGraph], projects: list[Path], out: Path) -> StreamedNetwork:
    """Write the top functions of ``projects``, of which each reads what the one before writes, and network.json into ``out``."""
    ends = [streams(graph) for graph in graphs]
    for number, (project, graph, (reads, writes)) in enumerate(zip(projects, graphs, ends, strict=True)):
        if number:
            reads = _link(reads)
        if number < len(graphs) - 1:
            writes = _link(writes)
            if _link(ends[number + 1][0]).port != writes.port:
                raise SizingError(f"{writes.name} is not what the next project reads: {writes.port}")
        write_if_changed(project / FOLDER / HEADER.name, HEADER.read_text())
        name = graph.config.get_project_name()
        write_if_changed(project / FOLDER / f"{name}{SUFFIX}.cpp", top_function(name, reads, writes))
    height, width, channels = graphs[0].get_input_variables()[0].shape
    network = StreamedNetwork((height, width, channels), ends[0][0].port, ends[-1][1].port)
    write_if_changed(out / NETWORK, network.json())
    return network


def top_source(project: Path) -> Path:
    """The source of the top function of a written project, which has the same name. Raises FileNotFoundError."""
    sources = sorted((project / FOLDER).glob(f"*{SUFFIX}.cpp"))
    if len(sources) != 1:
        raise FileNotFoundError(f"{project} has no ports: write it again with `make hls`")
    return sources[0]


def port_names(project: Path) -> tuple[str, str]:
    """Names of the stream that a written project reads and of the one that it writes. Raises FileNotFoundError."""
    reads, writes = (name for _, name in ARGUMENT.findall(top_source(project).read_text()))
    return reads, writes


def caller(project: Path) -> tuple[str, int]:
    """C++ that runs the top function of a written project for the C simulation, and how many bytes each beat has that it writes.

    0 for a project without ports.
    """
    sources = sorted((project / FOLDER).glob("*.cpp"))
    if not sources:
        body, bits = 'throw std::runtime_error("no ports");', ["0", "0"]
    else:
        bits = [bits for bits, _ in ARGUMENT.findall(sources[0].read_text())]
        body = f"beats::run<{bits[0]}, {bits[1]}>({sources[0].stem}, images, count, features);"
    lines = ['#include "beats.h"', *(f'#include "{source.name}"' for source in sources)]
    lines += [
        "void simulate_beats(const std::string &images, std::size_t count, std::string &features) {",
        f"    {body}",
    ]
    return "\n".join([*lines, "}", ""]), int(bits[1]) // 8


def _link(stream: Stream) -> Stream:
    """The stream between two projects: as wide as a word, within limits."""
    bits = stream.port.channels * stream.port.field_bits
    beat = next((2**n for n in range(5, 9) if 2**n >= bits), LINK_BITS_MAX)
    return replace(stream, beat_bits=beat)


def top_function(name: str, reads: Stream, writes: Stream) -> str:
    """C++ of the top function around hls4ml's ``name``.

    ap_ctrl_none: it starts by itself and never ends, as the networks of hls4ml's own VivadoAccelerator backend do, and kernels of Vitis
    between streams (UG1393, "Free-Running Kernel").
    """
    return f"""// Made by hls/vitis/ports.py: the top function, with ports that can be connected.
#include "{name}.h"

#include "axi_ports.h"

extern "C" void {name}{SUFFIX}({reads.argument}, {writes.argument}) {{
    #pragma HLS INTERFACE axis port={reads.name}
    #pragma HLS INTERFACE axis port={writes.name}
    #pragma HLS INTERFACE ap_ctrl_none port=return
    #pragma HLS DATAFLOW
    hls::stream<{reads.type_name}> words_in("words_in");
    #pragma HLS STREAM variable=words_in depth=2
    hls::stream<{writes.type_name}> words_out("words_out");
    #pragma HLS STREAM variable=words_out depth=2
    axi_ports::take<{reads.field}, {reads.port.words}>({reads.name}, words_in);
    {name}(words_in, words_out);
    axi_ports::give<{writes.field}, {writes.port.words}>(words_out, {writes.name});
}}
"""
