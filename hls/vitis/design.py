"""From a ModelGraph, a part and a target to a sizing: reuse factors, then FIFO depths, then both together against the part."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from hls.vitis import estimate
from hls.vitis.dataflow import simulate
from hls.vitis.fifos import IMAGES, FifoPlan, least_depths, size_fifos
from hls.vitis.parts import LABELS, Resources, find_part
from hls.vitis.sizing import Sizing, SizingError
from hls.vitis.solve import Solution, solve
from hls.vitis.stages import Network
from hls.vitis.timing import Steps, steps

FIRM = ("dsp", "bram18", "uram")
"""What the estimates are good for."""
ROUNDS = 4
"""How often the reuse factors are chosen again because the FIFOs took block RAM that the weights had been given."""


@dataclass(frozen=True)
class Design:
    """A sized network and what it is expected to do. Cycles and times are estimates, and so are resources."""

    network: Network
    sizing: Sizing
    target_cycles: int
    solution: Solution
    fifos: FifoPlan
    steps: dict[str, Steps]

    @property
    def part(self) -> Resources:
        """What the part holds."""
        return find_part(self.sizing.part)

    def stage_cost(self, name: str) -> Resources:
        """Of a layer function."""
        stage = next(stage for stage in self.network.stages if stage.name == name)
        bits = sum(self.network.streams[stream].bits for stream in stage.inputs)
        return estimate.layer(stage, self.sizing.layers.get(name), bits)

    def fifo_cost(self, name: str) -> Resources:
        """Of the FIFO of a stream."""
        stream = self.network.streams[name]
        return Resources() if stream.is_port else estimate.fifo(stream, self.fifos.depths[name])

    @property
    def total(self) -> Resources:
        """Of everything."""
        parts = [self.stage_cost(stage.name) for stage in self.network.stages]
        parts += [self.fifo_cost(name) for name in self.network.streams]
        return sum(parts, Resources())

    @property
    def default_fifo_bits(self) -> int:
        """What hls4ml would make: each FIFO as large as its feature map."""
        return sum(s.bits * s.words for s in self.network.streams.values() if not s.is_port)

    @property
    def fifo_bits(self) -> int:
        """Of all FIFOs."""
        return sum(self.network.streams[name].bits * depth for name, depth in self.fifos.depths.items())

    def milliseconds(self, cycles: int) -> float:
        """Of a number of cycles at the clock."""
        return cycles * self.sizing.clock_ns / 1e6

    @property
    def interval_ms(self) -> float:
        """Between two images."""
        return self.milliseconds(self.fifos.run.interval)

    @property
    def latency_ms(self) -> float:
        """Of one image through an empty pipeline."""
        return self.milliseconds(self.fifos.run.latency)

    @property
    def shortages(self) -> tuple[str, ...]:
        """Why the target is missed, or the part too small; empty when all is well."""
        said = list(self.solution.shortages)
        if not said and self.fifos.run.interval > self.target_cycles:
            said.append(
                f"the layers wait for each other: {self.fifos.run.interval:,} cycles instead of {self.target_cycles:,}"
            )
        return (*said, *self._beyond(FIRM, said))

    @property
    def doubts(self) -> tuple[str, ...]:
        """What may be short: LUT and flip-flops are extrapolated, and HLS counts more of them than Vivado needs in the end."""
        return tuple(self._beyond([name for name in LABELS if name not in FIRM], []))

    def _beyond(self, names: Iterable[str], said: list[str]) -> list[str]:
        need, have = self.total, self.part
        return [
            f"{LABELS[name]}: {getattr(need, name):,} by estimate, {getattr(have, name):,} are there"
            for name in names
            if getattr(need, name) > getattr(have, name) and not any(LABELS[name] in reason for reason in said)
        ]


def design(network: Network, backend: Any, part: str, clock_ns: float, target_ms: float) -> Design:
    """Size ``network`` (of a ModelGraph of hls4ml's ``backend``) for an image every ``target_ms`` milliseconds.

    If the part cannot do it, the fastest that it can do; if it holds the network at no speed, the sizes for the target; the
    design's ``shortages`` tell. Raises SizingError for a part that is not known or a target that is no time.
    """
    limit = find_part(part)
    target = math.floor(target_ms * 1e6 / clock_ns)
    sizing = Sizing(part, clock_ns)
    free = limit
    for _ in range(ROUNDS):
        solution = solve(network, backend, target, free)
        sized = replace(sizing, layers=solution.layers)
        work = {stage.name: steps(stage, sized.layers.get(stage.name)) for stage in network.stages}
        plan = size_fifos(network, work)
        found = Design(network, replace(sized, fifo_depths=plan.depths), target, solution, plan, work)
        short = found.total.bram18 - limit.bram18
        if short <= 0 or not solution.fits:
            break
        free = replace(free, bram18=max(0, free.bram18 - short))
    return found


def assess(network: Network, sizing: Sizing, target_ms: float) -> Design:
    """What ``sizing``, which somebody has edited, is expected to do. Nothing in it is changed.

    Raises SizingError for layers or FIFOs that are missing or too many, DeadlockError, which names the full FIFOs, when they lock up.
    """
    inner = {name for name, stream in network.streams.items() if not stream.is_port}
    for what, given, wanted in (
        ("layers", set(sizing.layers), {stage.name for stage in network.sized}),
        ("fifo_depths", set(sizing.fifo_depths), inner),
    ):
        if given != wanted:
            raise SizingError(
                f"{what} should name those of the network; missing or not known: {', '.join(sorted(given ^ wanted))}"
            )
    work = {stage.name: steps(stage, sizing.layers.get(stage.name)) for stage in network.stages}
    run = simulate(network, work, sizing.fifo_depths, IMAGES)
    target = math.floor(target_ms * 1e6 / sizing.clock_ns)
    slowest = max(work, key=lambda name: work[name].interval)
    interval = work[slowest].interval
    slow = (f"{slowest} takes {interval:,} cycles, the target is {target:,}",) if interval > target else ()
    plan = FifoPlan(sizing.fifo_depths, least_depths(network, work), run)
    return Design(network, sizing, target, Solution(sizing.layers, interval, not slow, slow), plan, work)
