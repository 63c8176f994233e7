"""Small dataflow networks by hand, and a second simulator that goes cycle by cycle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hls.vitis.stages import Multiplication, Network, Stage, Stream
from hls.vitis.timing import FRAME_CYCLES, Steps


class Builder:
    """Strings stages together; a value is the name of a stream and the sides of its image."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.sizes: dict[str, tuple[int, int]] = {}

    def image(self, side: int) -> str:
        self.sizes["image"] = (side, 8)
        return "image"

    def _add(self, name: str, kind: str, inputs: tuple[str, ...], outputs: tuple[str, ...], side: int, **facts) -> None:
        self.stages.append(Stage(name, kind, inputs, outputs, **facts))
        bits = self.sizes[inputs[0]][1]
        self.sizes.update(dict.fromkeys(outputs, (side, bits)))

    def plain(self, name: str, *inputs: str, outputs: int = 1) -> tuple[str, ...]:
        """A word out for a word in: activation, Add (two inputs), Clone (several outputs)."""
        side = self.sizes[inputs[0]][0]
        every = np.ones(side * side, bool)
        names = tuple(f"{name}_out{n}" for n in range(outputs))
        self._add(name, "plain", inputs, names, side, reads=every, writes=every)
        return names

    def pad(self, name: str, x: str) -> str:
        side = self.sizes[x][0] + 2
        reads = np.zeros((side, side), bool)
        reads[1:-1, 1:-1] = True
        self._add(
            name, "pad", (x,), (f"{name}_out0",), side, reads=reads.reshape(-1), writes=np.ones(side * side, bool)
        )
        return f"{name}_out0"

    def conv(self, name: str, x: str, kernel: int, stride: int = 1, inputs: int = 4, outputs: int = 4) -> str:
        side = self.sizes[x][0]
        at = np.array([n >= kernel - 1 and (n - kernel + 1) % stride == 0 for n in range(side)])
        product = Multiplication(kernel * kernel * inputs, outputs, 8, 8, 20)
        facts = {"reads": np.ones(side * side, bool), "writes": np.outer(at, at).reshape(-1), "product": product}
        self._add(name, "conv", (x,), (f"{name}_out0",), int(at.sum()), **facts)
        return f"{name}_out0"

    def network(self) -> Network:
        writers = {name: stage.name for stage in self.stages for name in stage.outputs}
        readers = {name: stage.name for stage in self.stages for name in stage.inputs}
        return Network(
            tuple(self.stages),
            {
                name: Stream(name, bits, side * side, writers.get(name, ""), readers.get(name, ""))
                for name, (side, bits) in self.sizes.items()
            },
        )


def residual(side: int = 8, blocks: int = 1) -> Network:
    """Bottleneck blocks: a skip connection around 1x1, padding, 3x3 and 1x1."""
    b = Builder()
    x = b.image(side)
    for n in range(blocks):
        main, skip = b.plain(f"clone{n}", x, outputs=2)
        main = b.conv(f"first{n}", main, 1)
        main = b.conv(f"second{n}", b.pad(f"pad{n}", main), 3)
        main = b.conv(f"third{n}", main, 1)
        (x,) = b.plain(f"add{n}", main, skip)
    return b.network()


def cycle_by_cycle(
    network: Network, steps: Mapping[str, Steps], depths: Mapping[str, int], images: int
) -> list[int] | None:
    """The cycles in which the images are done, or None for a deadlock: every stage is looked at in every cycle."""
    held = {name: 0 if s.writer else s.words * images for name, s in network.streams.items()}
    room = {
        name: 10**9 if s.is_port else depths[name] for name, s in network.streams.items()
    }  # free places, ports without end
    at = dict.fromkeys(steps, 0)
    free_from = dict.fromkeys(steps, 0)
    done: dict[str, list[int]] = {name: [] for name in steps}
    last = {s.writer for s in network.streams.values() if not s.reader}
    longest = max(int(s.cycles.max()) for s in steps.values()) + FRAME_CYCLES
    time = quiet = 0
    while any(len(done[name]) < images for name in steps):
        words, places = [], []  # what becomes visible in the next cycle
        for stage in network.stages:
            s, k = steps[stage.name], at[stage.name]
            if len(done[stage.name]) == images or free_from[stage.name] > time:
                continue
            if s.reads[k] and any(not held[name] for name in stage.inputs):
                continue
            if s.writes[k] and any(not room[name] for name in stage.outputs):
                continue
            for name in stage.inputs if s.reads[k] else ():
                held[name] -= 1
                places.append(name)
            for name in stage.outputs if s.writes[k] else ():
                room[name] -= 1
                words.append(name)
            quiet = 0
            free_from[stage.name] = time + int(s.cycles[k])
            at[stage.name] += 1
            if at[stage.name] == len(s.reads):
                at[stage.name] = 0
                free_from[stage.name] += FRAME_CYCLES
                done[stage.name].append(time)
        for name in words:
            held[name] += 1
        for name in places:
            room[name] += 1
        time, quiet = time + 1, quiet + 1
        if quiet > longest:
            return None
    return [max(done[name][image] for name in last) for image in range(images)]
