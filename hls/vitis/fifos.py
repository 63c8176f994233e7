"""How deep each FIFO must be: enough for the skip connections not to lock up, and for the slowest stage never to wait.

hls4ml's default is a FIFO as large as the whole feature map. Of a skip connection only what the other branch holds back is needed: the
rows in its line buffers and the words in its pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hls.vitis.dataflow import Run, simulate
from hls.vitis.stages import Network, Stream
from hls.vitis.timing import Steps

SHALLOW = 2
"""Depth that HLS gives a stream of which nothing is said."""
DEEPEST = 512
"""How far the search goes: no deeper FIFO has helped a network yet."""
SPARE_WORDS = 4
"""What a skip connection gets beyond the least: with the least alone, both branches run in turns instead of side by side."""
IMAGES = 3
"""Simulated back to back: in the third one the pipeline is full."""


@dataclass(frozen=True)
class FifoPlan:
    """``depths`` by stream; ``least``: of the streams that need more than SHALLOW, the depth below which the network locks up.

    ``run``: the simulation with these depths.
    """

    depths: Mapping[str, int]
    least: Mapping[str, int]
    run: Run


def size_fifos(network: Network, steps: Mapping[str, Steps]) -> FifoPlan:
    """Depths with which the slowest stage of ``network`` never waits, or as few cycles as deeper FIFOs can save.

    ``steps`` by stage, as the hardware does them (``timing.steps``).
    """
    least = least_depths(network, steps)
    goal = max(s.interval for s in steps.values())
    depth, spare, best, depths = SHALLOW, SPARE_WORDS, None, dict[str, int]()
    while best is None or (best.interval > goal and depth <= DEEPEST):
        candidate = _uniform(network, least, depth, spare)
        run = simulate(network, steps, candidate, IMAGES)
        if best is None or run.interval < best.interval:
            depths, best = candidate, run
        depth, spare = 2 * depth, max(SPARE_WORDS, depth // 2)
    trimmed = {name: max(min(d, best.peaks[name]), least.get(name, SHALLOW)) for name, d in depths.items()}
    return FifoPlan(trimmed, least, best)


def least_depths(network: Network, steps: Mapping[str, Steps], depth: int = SHALLOW) -> dict[str, int]:
    """The streams that lock up at ``depth``, and the least depth with which each does not.

    Whenever the stages have locked up, one word is added to the full stream of the circle where a word costs least (Parks,
    "Bounded scheduling of process networks", 1995), so each depth is reached only because one less was too little.
    """
    run = simulate(network, steps, dict.fromkeys(network.streams, depth), grow=_cheapest)
    return {name: d for name, d in run.depths.items() if d > depth}


def _cheapest(full: list[Stream]) -> str:
    """The stream that needs the fewest bits for the same share of an image."""
    return min(full, key=lambda stream: stream.bits * stream.words).name


def _uniform(network: Network, least: Mapping[str, int], depth: int, spare: int) -> dict[str, int]:
    inner = (name for name, stream in network.streams.items() if not stream.is_port)
    return {name: max(depth, least[name] + spare) if name in least else depth for name in inner}
