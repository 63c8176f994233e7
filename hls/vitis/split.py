"""Cut a network into sub-projects that Vitis HLS can synthesise side by side, at the activations behind the Adds of a ResNet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hls.vitis.sizing import Sizing, SizingError
from hls.vitis.stages import Network, Stage

if TYPE_CHECKING:
    from hls4ml.model.graph import ModelGraph


def legal_cuts(network: Network) -> list[str]:
    """The layers before which the network hangs together by one stream only, which an Add writes: hls4ml cuts before a layer."""
    found = []
    open_streams = {name for name, stream in network.streams.items() if not stream.writer}
    previous: Stage | None = None
    for stage in network.stages:
        if (
            previous is not None
            and open_streams == set(stage.inputs)
            and previous.kind == "Merge"
            and len(stage.inputs) == 1
        ):
            found.append(stage.name)
        open_streams -= set(stage.inputs)
        open_streams |= {name for name in stage.outputs if network.streams[name].reader}
        previous = stage
    return found


def cuts(network: Network, sizing: Sizing, projects: int) -> list[str]:
    """``projects - 1`` of the legal cuts, such that the most multipliers in a project are as few as can be.

    Raises SizingError if there are not so many.
    """
    legal = legal_cuts(network)
    if not 1 <= projects <= len(legal) + 1:
        raise SizingError(
            f"the network can be cut into 1 to {len(legal) + 1} projects, not {projects}: cuts lie behind its Adds"
        )
    work, pieces = 0, []
    for stage in network.stages:
        if stage.name in legal:
            pieces.append(work)
            work = 0
        if stage.product:
            work += -(-stage.product.count // sizing.layers[stage.name].reuse_factor)
    pieces.append(work)
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {(0, 0): (0, ())}
    for end in range(1, len(pieces) + 1):
        for count in range(1, min(end, projects) + 1):
            best[end, count] = min(
                (max(best[start, count - 1][0], sum(pieces[start:end])), (*best[start, count - 1][1], start))
                for start in range(count - 1, end)
                if (start, count - 1) in best
            )
    _, starts = best[len(pieces), projects]
    return [legal[start - 1] for start in starts if start]


def split(graph: ModelGraph, before: list[str], sizing: Sizing) -> list[ModelGraph]:
    """The sub-projects' graphs, cut before the named layers; the graph itself without any. hls4ml takes the layers out of ``graph``.

    Each is called ``<name>_graph<n>`` and lies in a folder ``graph<n>``, as hls4ml wants it.
    """
    if not before:
        return [graph]
    from hls4ml.model.graph import to_multi_model_graph

    from hls.vitis.project import set_fifo_depths

    parts = list(to_multi_model_graph(graph, before).graphs)
    for part in parts:
        inner = {v.name for v in part.output_vars.values() if isinstance(v.pragma, tuple)}
        depths = {name: depth for name, depth in sizing.fifo_depths.items() if name in inner}
        set_fifo_depths(part, Sizing(sizing.part, sizing.clock_ns, fifo_depths=depths))
    return parts
