"""All checks of the self-test, in their order, and the one that compares a layer with its vector."""

from __future__ import annotations

from functools import partial

import numpy as np

from driver.selftest.bench import Bench
from driver.selftest.control import identity, interrupt, ports, registers
from driver.selftest.findings import Check, CheckError, Seen
from driver.selftest.layers import KINDS, MULTIPLIERS, Kind
from driver.selftest.memory import feature_memory, image_memory, program_memory
from driver.selftest.speed import bandwidth, network, throughput
from driver.selftest.vectors import reference


def layer(kind: Kind, bench: Bench) -> Seen:
    """A kind of layer against its vector."""
    vector = kind.vector(bench.array)
    found = bench.compute(vector.program, vector.image)
    wrong = np.argwhere(found != vector.expected)
    if not len(wrong):
        return Seen(f"{found.size} integers equal")
    channels = sorted({int(index[-1]) for index in wrong})
    where = f"{len(wrong)} of {found.size} integers are wrong, in channels {channels[:8]}{' ...' if len(channels) > 8 else ''}"
    if kind.name == MULTIPLIERS:
        lanes = sorted({int(index[1]) for index in wrong})
        where += f", input lanes {lanes[:8]}{' ...' if len(lanes) > 8 else ''}"
    raise CheckError(where, vector.suspect)


MEMORY = ("program memory", "feature memory", "image memory")

CHECKS = (
    Check("ID", identity),
    Check("registers", registers),
    Check("reference", reference),
    Check("ports", ports),
    Check("interrupt", interrupt, ("ports",)),
    Check("program memory", program_memory, ("ports",)),
    Check("feature memory", feature_memory, ("program memory",)),
    Check("image memory", image_memory, ("feature memory",)),
    Check("bandwidth", bandwidth, ("program memory",)),
    *(Check(kind.name, partial(layer, kind), MEMORY) for kind in KINDS),
    Check("network", network, MEMORY),
    Check("throughput", throughput, ("program memory",)),
)
"""All checks, in the order in which a fault is looked for: each relies on those before it."""
