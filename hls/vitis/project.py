"""Write hls4ml's Vitis project of a network, sized as a ``Sizing`` says, and patch it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hls.convert import convert
from hls.vitis.patches import PATCHES, Patch, apply
from hls.vitis.sizing import Sizing, SizingError

if TYPE_CHECKING:
    from hls4ml.model.graph import ModelGraph


def convert_sized(model: Any, output_dir: Path, name: str = "network", sizing: Sizing | None = None) -> ModelGraph:
    """hls4ml's Vitis ModelGraph of ``model``; without a ``sizing`` as hls4ml sizes it, with reuse factor 1 everywhere.

    Raises CompileError for what has no exact conversion, SizingError for a sizing that does not fit the network.
    """
    options: dict[str, Any] = {"io_type": "io_stream"}
    layers = {}
    if sizing is not None:
        options |= {"io_type": sizing.io_type, "part": sizing.part, "clock_period": sizing.clock_ns}
        layers = {
            layer.name: {
                "Strategy": layer.strategy,
                "ReuseFactor": layer.reuse_factor,
                "ParallelizationFactor": layer.parallelisation,
            }
            for layer in sizing.layers.values()
        }
    graph = convert(model, "Vitis", str(output_dir), name, layers=layers, **options)
    if sizing is not None:
        check_layers(graph, sizing)
        set_fifo_depths(graph, sizing)
    return graph


def check_layers(graph: ModelGraph, sizing: Sizing) -> None:
    """Raise SizingError unless hls4ml took every layer's sizing as it is: it rounds reuse factors that it cannot do, silently."""
    for layer in sizing.layers.values():
        if layer.name not in graph.graph:
            raise SizingError(f"layer {layer.name}: the network has none of this name, but {', '.join(graph.graph)}")
        node = graph.graph[layer.name]
        strategy, reuse = str(node.get_attr("strategy")), node.get_attr("reuse_factor")
        if (strategy.lower(), reuse) != (layer.strategy.lower(), layer.reuse_factor):
            raise SizingError(
                f"layer {layer.name}: hls4ml makes {strategy} with reuse factor {reuse} of {layer.strategy} with "
                f"{layer.reuse_factor}; take a reuse factor that it can do (FPGABackend.get_valid_reuse_factors)"
            )


def set_fifo_depths(graph: ModelGraph, sizing: Sizing) -> None:
    """Give the streams of ``graph`` their depths. Raises SizingError for a depth of a stream that it does not have."""
    streams = {variable.name: variable for variable in graph.output_vars.values() if isinstance(variable.pragma, tuple)}
    for name, depth in sizing.fifo_depths.items():
        if name not in streams:
            raise SizingError(f"FIFO {name}: the network has none of this name, but {', '.join(streams)}")
        mode, _, *rest = streams[name].pragma
        streams[name].pragma = (mode, depth, *rest)


def write_project(graph: ModelGraph, patches: Iterable[Patch] = PATCHES) -> Path:
    """Write the project of any Vitis ``graph`` into its output folder and patch it. Returns the folder.

    hls4ml's own ``compile()`` and ``trace()`` would write it again, without the patches.
    """
    graph.write()
    project = Path(graph.config.get_output_dir())
    apply(project, patches)
    return project
