"""hls4ml's ModelGraph of a streaming project as dataflow: a stage for each layer function, and the streams between them.

A stage is a loop nest that hls4ml's headers (``nnet_utils/*_stream.h``) run once an image; here it is its *iterations*: which of
them read a word of every input, and which write one to every output. A word is a pixel with all its channels. Everything that
needs the order of reads and writes (FIFO depths, throughput, the C simulation's traces) takes it from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hls.vitis.sizing import SizingError

if TYPE_CHECKING:
    from hls4ml.model.graph import ModelGraph

Pattern = NDArray[np.bool_]


@dataclass(frozen=True)
class Multiplication:
    """The matrix product that a layer does for each output pixel, and the memory of its weights."""

    inputs: int
    outputs: int
    input_bits: int
    weight_bits: int
    accumulator_bits: int

    @property
    def count(self) -> int:
        """Multiplications for one output pixel: as many as weights."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Stage:
    """One layer function. ``reads`` and ``writes``: for each iteration, whether it reads (writes) a word of every input (output)."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reads: Pattern
    writes: Pattern
    product: Multiplication | None = None
    line_buffer_bits: int = 0

    @property
    def multiplications(self) -> int:
        """Of one image."""
        return self.product.count * int(self.writes.sum()) if self.product else 0

    @property
    def reads_before_writes(self) -> NDArray[np.int64]:
        """How many words of each input have been read when each word is written: what a trace of the C simulation shows."""
        return np.cumsum(self.reads, dtype=np.int64)[self.writes]


@dataclass(frozen=True)
class Stream:
    """A FIFO between two stages, or at the network's ends, where ``writer`` or ``reader`` is empty."""

    name: str
    bits: int
    words: int
    writer: str
    reader: str

    @property
    def is_port(self) -> bool:
        """Whether it is an end of the network: an AXI4-Stream without a FIFO of its own."""
        return not (self.writer and self.reader)


@dataclass(frozen=True)
class Network:
    """All stages in the order of the graph, all streams by name."""

    stages: tuple[Stage, ...]
    streams: dict[str, Stream]

    @property
    def sized(self) -> tuple[Stage, ...]:
        """The stages that have a reuse factor."""
        return tuple(stage for stage in self.stages if stage.product)


def read_graph(graph: ModelGraph) -> Network:
    """The dataflow of a ModelGraph that was converted for Vitis with io_stream. Raises SizingError for a layer of no known kind."""
    variables = graph.output_vars
    stages: list[Stage] = []
    readers: dict[str, str] = {}
    writers: dict[str, str] = {}
    for layer in graph.get_layers():
        if layer.class_name == "Input":
            continue
        inputs = tuple(variables[name].name for name in layer.inputs)
        outputs = tuple(layer.variables[name].name for name in layer.outputs)
        if layer.class_name not in KINDS:
            raise SizingError(f"layer {layer.name} is a {layer.class_name}; sized are {', '.join(KINDS)}")
        stages.append(Stage(layer.name, layer.class_name, inputs, outputs, **KINDS[layer.class_name](layer)))
        readers.update(dict.fromkeys(inputs, layer.name))
        writers.update(dict.fromkeys(outputs, layer.name))
    streams = {}
    for variable in variables.values():
        if variable.name in readers or variable.name in writers:
            channels = int(variable.shape[-1])
            streams[variable.name] = Stream(
                variable.name,
                bits=channels * int(variable.type.precision.width),
                words=math.prod(int(n) for n in variable.shape) // channels,
                writer=writers.get(variable.name, ""),
                reader=readers.get(variable.name, ""),
            )
    return Network(tuple(stages), streams)


def _words(layer: Any) -> int:
    shape = layer.get_input_variable().shape
    return math.prod(int(n) for n in shape[:-1])


def _bits(variable: Any) -> int:
    return int(variable.type.precision.width)


def _each_word(layer: Any) -> dict[str, Any]:
    """A word out for each word in."""
    every = np.ones(_words(layer), bool)
    return {"reads": every, "writes": every}


def _padding(layer: Any) -> dict[str, Any]:
    """nnet_padding_stream.h: row by row, zeros without reading."""
    reads = np.zeros((layer.get_attr("out_height"), layer.get_attr("out_width")), bool)
    top, left = layer.get_attr("pad_top"), layer.get_attr("pad_left")
    reads[top : top + layer.get_attr("in_height"), left : left + layer.get_attr("in_width")] = True
    return {"reads": reads.reshape(-1), "writes": np.ones(reads.size, bool)}


def _window(layer: Any, size: str) -> dict[str, Any]:
    """nnet_conv_stream.h, nnet_pooling_stream.h: every pixel is read into the line buffer; one that completes a window writes."""
    x = layer.get_input_variable()
    height, width = (int(n) for n in x.shape[:2])
    kernel = [int(layer.get_attr(f"{size}_{axis}")) for axis in ("height", "width")]
    stride = [int(layer.get_attr(f"stride_{axis}")) for axis in ("height", "width")]
    rows, columns = (
        (np.arange(n) >= k - 1) & ((np.arange(n) - (k - 1)) % s == 0)
        for n, k, s in zip((height, width), kernel, stride, strict=True)
    )
    return {
        "reads": np.ones(height * width, bool),
        "writes": np.outer(rows, columns).reshape(-1),
        "line_buffer_bits": (kernel[0] - 1) * width * int(x.shape[2]) * _bits(x),
    }


def _convolution(layer: Any) -> dict[str, Any]:
    return {**_window(layer, "filt"), "product": _product(layer)}


def _pool(layer: Any) -> dict[str, Any]:
    return _window(layer, "pool")


def _global_pool(layer: Any) -> dict[str, Any]:
    """Every pixel is read, then the result is written."""
    return _at_the_end(_words(layer))


def _dense(layer: Any) -> dict[str, Any]:
    return {**_at_the_end(_words(layer)), "product": _product(layer)}


def _at_the_end(words: int) -> dict[str, Any]:
    reads, writes = np.ones(words + 1, bool), np.zeros(words + 1, bool)
    reads[-1], writes[-1] = False, True
    return {"reads": reads, "writes": writes}


def _product(layer: Any) -> Multiplication:
    inputs, outputs = layer.model.config.backend.get_layer_mult_size(layer)
    return Multiplication(
        int(inputs),
        int(outputs),
        input_bits=_bits(layer.get_input_variable()),
        weight_bits=int(layer.weights["weight"].type.precision.width),
        accumulator_bits=int(layer.types["accum_t"].precision.width),
    )


KINDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "ZeroPadding2D": _padding,
    "Conv2D": _convolution,
    "PointwiseConv2D": _convolution,
    "Dense": _dense,
    "Pooling2D": _pool,
    "GlobalPooling2D": _global_pool,
    "Activation": _each_word,
    "BatchNormalization": _each_word,
    "Merge": _each_word,
    "Clone": _each_word,
}
