"""Stages that run side by side with FIFOs of bounded depth between them: when each word passes, and whether they lock up.

Each stage does its steps in order, and a step waits until its words are there and there is room for what it writes; so the time of
every read and write follows exactly from those before it, whatever the order in which the stages are worked on here (a Kahn process
network with back-pressure: Kahn 1974; Geilen and Basten, "Requirements on the execution of Kahn process networks", 2003).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from hls.vitis.stages import Network, Stream
from hls.vitis.timing import FRAME_CYCLES, Steps

UNBOUNDED = 2**62


class DeadlockError(RuntimeError):
    """The stages wait for each other for ever; the message tells the circle."""


@dataclass(frozen=True)
class Run:
    """What a simulation saw.

    ``finished``: cycle in which each image was done. ``peaks``: depth with which each FIFO would never have held its writer up.
    """

    finished: tuple[int, ...]
    depths: Mapping[str, int]
    peaks: Mapping[str, int]

    @property
    def latency(self) -> int:
        """Cycles from the first pixel of the first image to its result."""
        return self.finished[0]

    @property
    def interval(self) -> int:
        """Cycles between the last two images."""
        return self.finished[-1] - self.finished[-2]


class _Fifo:
    __slots__ = ("depth", "read", "reader_waits", "stream", "writer_waits", "written")

    def __init__(self, stream: Stream, depth: int) -> None:
        self.stream = stream
        self.depth = depth
        self.written: list[int] = []
        """Cycle in which each word was written; ``read`` likewise."""
        self.read: list[int] = []
        self.writer_waits = self.reader_waits = False

    def peak(self) -> int:
        """The room in it that a word was written into is free one cycle after its last reading."""
        written, read = np.asarray(self.written), np.asarray(self.read)
        gone = np.searchsorted(read, written, side="left")
        return int((np.arange(1, len(written) + 1) - gone).max(initial=1))


class _Worker:
    """A stage at work on a number of images."""

    def __init__(self, steps: Steps, inputs: list[_Fifo], outputs: list[_Fifo], images: int) -> None:
        cycles = steps.cycles.copy()
        cycles[-1] += FRAME_CYCLES
        self.reads, self.writes, self.cycles = (a.tolist() for a in (steps.reads, steps.writes, cycles))
        self.inputs, self.outputs = inputs, outputs
        self.step, self.image, self.images, self.time = 0, 0, images, 0
        self.finished: list[int] = []
        self.waits_for_word: _Fifo | None = None
        self.waits_for_room: _Fifo | None = None

    @property
    def done(self) -> bool:
        return self.image == self.images

    def work(self, woken: deque[str]) -> None:
        """Go on until something is missing; append to ``woken`` whom that sets free."""
        reads, writes, cycles, time, k = self.reads, self.writes, self.cycles, self.time, self.step
        inputs, outputs, count = self.inputs, self.outputs, len(self.reads)
        self.waits_for_word = self.waits_for_room = None
        while self.image < self.images:
            while k < count:
                if reads[k]:
                    for fifo in inputs:
                        at = len(fifo.read)
                        if at >= len(fifo.written):
                            fifo.reader_waits, self.waits_for_word = True, fifo
                            self.time, self.step = time, k
                            return
                        if fifo.written[at] >= time:
                            time = fifo.written[at] + 1
                if writes[k]:
                    for fifo in outputs:
                        at = len(fifo.written) - fifo.depth
                        if at >= 0:
                            if at >= len(fifo.read):
                                fifo.writer_waits, self.waits_for_room = True, fifo
                                self.time, self.step = time, k
                                return
                            if fifo.read[at] >= time:
                                time = fifo.read[at] + 1
                if reads[k]:
                    for fifo in inputs:
                        fifo.read.append(time)
                        if fifo.writer_waits:
                            fifo.writer_waits = False
                            woken.append(fifo.stream.writer)
                if writes[k]:
                    for fifo in outputs:
                        fifo.written.append(time)
                        if fifo.reader_waits:
                            fifo.reader_waits = False
                            woken.append(fifo.stream.reader)
                time += cycles[k]
                k += 1
            self.finished.append(time - cycles[-1])
            self.image += 1
            k = 0
        self.time, self.step = time, k


def simulate(
    network: Network,
    steps: Mapping[str, Steps],
    depths: Mapping[str, int],
    images: int = 1,
    grow: Callable[[list[Stream]], str] | None = None,
) -> Run:
    """Send ``images`` through ``network``, back to back.

    ``steps`` by stage, ``depths`` by stream (UNBOUNDED is allowed; the network's ends have no FIFO: a word is always there, and
    there is always room). On a deadlock ``grow`` is given the full streams of the circle and names the one that gets a word more;
    without it DeadlockError is raised.
    """
    fifos = {name: _Fifo(s, UNBOUNDED if s.is_port else depths[name]) for name, s in network.streams.items()}
    for fifo in fifos.values():
        if not fifo.stream.writer:
            fifo.written = [-1] * (fifo.stream.words * images)
    workers = {
        s.name: _Worker(steps[s.name], [fifos[n] for n in s.inputs], [fifos[n] for n in s.outputs], images)
        for s in network.stages
    }
    ready = deque(workers)
    while True:
        while ready:
            workers[ready.popleft()].work(ready)
        if all(worker.done for worker in workers.values()):
            break
        circle = _circle(workers)
        full = [fifo.stream for _, fifo in circle if fifo.writer_waits]
        if grow is None:
            raise DeadlockError(_tell(circle))
        fifo = fifos[grow(full)]
        fifo.depth += 1
        fifo.writer_waits = False
        ready.append(fifo.stream.writer)
    last = [worker.finished for name, worker in workers.items() if _is_last(network, name)]
    inner = {name: fifo for name, fifo in fifos.items() if not fifo.stream.is_port}
    return Run(
        tuple(max(times) for times in zip(*last, strict=True)),
        {name: fifo.depth for name, fifo in inner.items()},
        {name: fifo.peak() for name, fifo in inner.items()},
    )


def _is_last(network: Network, stage: str) -> bool:
    return any(not s.reader and s.writer == stage for s in network.streams.values())


def _circle(workers: Mapping[str, _Worker]) -> list[tuple[str, _Fifo]]:
    """Follow who waits for whom until somebody comes up again: stages and the FIFOs that they wait for."""
    name = next(name for name, worker in workers.items() if not worker.done)
    path: dict[str, _Fifo] = {}
    while name not in path:
        worker = workers[name]
        fifo = worker.waits_for_word or worker.waits_for_room
        assert fifo is not None, f"{name} has stopped without waiting for anything"
        path[name] = fifo
        name = fifo.stream.writer if worker.waits_for_word else fifo.stream.reader
    return list(path.items())[list(path).index(name) :]


def _tell(circle: Iterable[tuple[str, _Fifo]]) -> str:
    waits = (
        f"{name} waits for room in {fifo.stream.name} (depth {fifo.depth})"
        if fifo.writer_waits
        else f"{name} waits for a word in {fifo.stream.name}"
        for name, fifo in circle
    )
    return f"deadlock: {', '.join(waits)}"
