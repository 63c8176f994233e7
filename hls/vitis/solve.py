"""Choose the reuse factors: the fewest multipliers with which every layer is fast enough, in the memory that the part has.

Exact within the estimates: of all combinations of legal reuse factors, none takes fewer DSP slices and fits the block RAM.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hls.vitis import estimate, timing
from hls.vitis.parts import LABELS, Resources
from hls.vitis.sizing import LayerSizing
from hls.vitis.stages import Network, Stage

NEVER = 2**60
UNROLL_LIMIT = 4096
"""Weights that can be registers, as reuse factor 1 wants them: ``maximum_size`` in hls4ml's build_prj.tcl."""


@dataclass(frozen=True)
class Choice:
    """A legal size of a layer and what it costs."""

    sizing: LayerSizing
    interval: int
    dsp: int
    bram18: int


@dataclass(frozen=True)
class Solution:
    """``layers`` by name. ``interval``: of the slowest layer, cycles. ``shortages``: why the target was not reached, empty if it was."""

    layers: Mapping[str, LayerSizing]
    interval: int
    fits: bool
    shortages: tuple[str, ...] = field(default=())


def choices(stage: Stage, backend: Any) -> tuple[Choice, ...]:
    """All sizes that ``backend`` (hls4ml's) accepts for the Resource strategy and HLS can unroll, slower ones last."""
    assert stage.product is not None, f"{stage.name} does not multiply"
    sizes = (
        LayerSizing(stage.name, "Resource", factor)
        for factor in legal_reuse_factors(stage.product.inputs, stage.product.outputs, backend)
        if factor > 1 or stage.product.count <= UNROLL_LIMIT
    )
    return tuple(
        Choice(size, timing.interval(stage, size), cost.dsp, cost.bram18)
        for size in sizes
        for cost in [estimate.layer(stage, size, 0)]
    )


@functools.cache
def legal_reuse_factors(inputs: int, outputs: int, backend: Any) -> tuple[int, ...]:
    """hls4ml's ``get_valid_reuse_factors``, of which it asks only divisors: millions of others are never legal."""
    count = inputs * outputs
    low = [n for n in range(1, int(count**0.5) + 1) if count % n == 0]
    divisors = sorted({*low, *(count // n for n in low)})
    return tuple(n for n in divisors if backend._validate_reuse_factor(inputs, outputs, n))


def solve(network: Network, backend: Any, target: int, limit: Resources) -> Solution:
    """Sizes for at most ``target`` cycles an image within the DSP and block RAM of ``limit``; else the fastest that fit.

    If nothing fits at any speed, the sizes for the target that take the fewest DSP, with ``fits`` false. Raises SizingError if no reuse
    factor is fast enough for the target and nothing fits.
    """
    layers = [choices(stage, backend) for stage in network.sized]
    fixed = max((timing.interval(stage) for stage in network.stages if not stage.product), default=0)
    if fixed <= target and (best := cheapest(layers, target, limit)):
        return _solution(best, fixed, fits=True)
    fastest = max(fixed, max((min(c.interval for c in layer) for layer in layers), default=0))
    speeds = sorted({c.interval for layer in layers for c in layer if c.interval >= fastest} | {fastest})
    low, high = 0, len(speeds)  # the first speed at which something fits
    while low < high:
        middle = (low + high) // 2
        if cheapest(layers, speeds[middle], limit):
            high = middle
        else:
            low = middle + 1
    reasons = tuple(_reasons(network, layers, target, fixed, limit))
    if low < len(speeds):
        found = cheapest(layers, speeds[low], limit)
        assert found is not None
        return _solution(found, fixed, fits=True, reasons=reasons)
    wanted = max(target, fastest)
    small = [min((c for c in layer if c.interval <= wanted), key=lambda c: (c.dsp, c.bram18)) for layer in layers]
    least = int(_least_block_ram(layers, NEVER, limit.dsp)[0].min())
    if NEVER > least > limit.bram18:
        reasons = tuple(r for r in reasons if not r.startswith(LABELS["bram18"]))
        reasons += (f"{LABELS['bram18']}: at any speed the weights need {least:,}, {limit.bram18:,} are there",)
    return _solution(small, fixed, fits=False, reasons=reasons)


def cheapest(layers: Sequence[Sequence[Choice]], interval: int, limit: Resources) -> list[Choice] | None:
    """One choice a layer, none slower than ``interval``, with the fewest DSP (then the least block RAM) within ``limit``, or None."""
    least, taken = _least_block_ram(layers, interval, limit.dsp)
    fitting = np.flatnonzero(least <= limit.bram18)
    if not len(fitting):
        return None
    at, found = int(fitting[0]), []
    for layer, by in zip(reversed(layers), reversed(taken), strict=True):
        found.append(layer[by[at]])
        at -= found[-1].dsp
    return found[::-1]


def _least_block_ram(
    layers: Sequence[Sequence[Choice]], interval: int, dsp: int
) -> tuple[NDArray[np.int64], list[NDArray[np.int16]]]:
    """Dynamic programming: the least block RAM that goes with each number of DSP up to ``dsp``, and each layer's choice there."""
    least = np.full(dsp + 1, NEVER, np.int64)
    least[0] = 0
    taken = []
    for layer in layers:
        longer, by = np.full_like(least, NEVER), np.zeros(dsp + 1, np.int16)
        for index, choice in enumerate(layer):
            if choice.interval > interval or choice.dsp > dsp:
                continue
            cost = np.full_like(least, NEVER)
            cost[choice.dsp :] = np.minimum(least[: dsp + 1 - choice.dsp] + choice.bram18, NEVER)
            better = cost < longer
            longer[better], by[better] = cost[better], index
        least = longer
        taken.append(by)
    return least, taken


def _solution(found: Sequence[Choice], fixed: int, fits: bool, reasons: tuple[str, ...] = ()) -> Solution:
    slowest = max([fixed, *(choice.interval for choice in found)])
    return Solution({c.sizing.name: c.sizing for c in found}, slowest, fits, reasons)


def _reasons(
    network: Network, layers: list[tuple[Choice, ...]], target: int, fixed: int, limit: Resources
) -> list[str]:
    """Why ``target`` cannot be had."""
    too_slow = [
        (stage.name, min(c.interval for c in layer)) for stage, layer in zip(network.sized, layers, strict=True)
    ]
    too_slow += [(s.name, timing.interval(s)) for s in network.stages if not s.product]
    said = [
        f"layer {name} takes at least {cycles:,} cycles, since a stream is read pixel by pixel"
        for name, cycles in too_slow
        if cycles > target
    ]
    if said:
        return said
    fast = [[c for c in layer if c.interval <= target] for layer in layers]
    dsp, bram18 = (sum(min(getattr(c, name) for c in layer) for layer in fast) for name in ("dsp", "bram18"))
    for name, need, have in (("dsp", dsp, limit.dsp), ("bram18", bram18, limit.bram18)):
        if need > have:
            said.append(f"{LABELS[name]}: the target needs at least {need:,}, {have:,} are there")
    return said or [
        f"{LABELS['dsp']} and {LABELS['bram18']} together: each alone would do for the target, but not at once"
    ]
