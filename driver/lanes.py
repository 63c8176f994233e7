"""In which order an engine keeps a tensor's channels, so that its fast 8-bit kernels are exact.

x86 without VNNI multiplies uint8 activations by int8 weights with VPMADDUBSW, which adds the products of channels 2i and 2i + 1 in 16 bits
and saturates (Intel SDM, vol. 2B). That is harmless, whatever the image, when ``high * (w[2i] + w[2i + 1])`` stays within int16 for both
signs. Few pairs of weights exceed it, so a perfect matching of channels that may stand side by side usually exists; where none does, the
layer's weights are given as uint8 around 128, whose kernel (VPMADDWD) adds in 32 bits and takes 1.4 times as long.

Channels that no later layer reads are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from driver.tensors import Step, Tensor, Trace

LANE_GROUP = 4
"""A tensor's lanes are filled up to a multiple: the kernels add four taps at a time, which then belong to one pixel."""
TRIES = 24
"""Random halves of the channels between which a matching is sought."""

Lanes = NDArray[np.int64]


@dataclass(frozen=True)
class Reader:
    """A convolution that reads a tensor: weights [c_out * taps, channels], and the largest byte it multiplies them with."""

    weights: NDArray[np.int16]
    high: int

    @classmethod
    def of(cls, step: Step) -> Reader:
        """The reader that a step is."""
        w = step.layer.weights.astype(np.int16)
        return cls(w.transpose(0, 2, 3, 1).reshape(-1, w.shape[1]), step.source.high + step.source.zero_point)


def pairs_are_exact(weights: NDArray[np.int16], high: int) -> bool:
    """Whether no pair of neighbours in ``weights`` [rows, lanes] can leave 16 bits with activations of 0 to ``high``."""
    even, odd = weights[:, 0::2].astype(np.int64), weights[:, 1::2].astype(np.int64)
    most = (np.maximum(even, 0) + np.maximum(odd, 0)) * high
    least = (np.minimum(even, 0) + np.minimum(odd, 0)) * high
    return bool((most <= 32767).all() and (least >= -32768).all())


def arrange(trace: Trace, pairing: bool) -> dict[Tensor, Lanes]:
    """The channels that each tensor keeps, in their order; a lane that only fills up repeats the first channel.

    ``pairing`` asks for an order in which as many readers as possible are exact in 16 bits. Tensors that are added to one another
    share one order. The image stays as the host laid it out, which saves a copy.
    """
    lanes: dict[Tensor, Lanes] = {}
    for group in _added_together(trace):
        readers = [step for step in trace.steps if step.source in group]
        used = np.zeros(max(tensor.channels for tensor in group), bool)
        for step in readers:
            needed = step.layer.weights.any(axis=(0, 2, 3))
            used[: min(len(needed), len(used))] |= needed[: len(used)]
        if trace.result in group or trace.image in group:
            used[:] = True
        kept = np.flatnonzero(used) if used.any() else np.zeros(1, np.int64)
        if pairing and trace.image not in group:
            kept = kept[_order([Reader.of(step) for step in readers], kept)]
        fill = -len(kept) % LANE_GROUP
        order = np.concatenate([kept, np.repeat(kept[:1], fill)])
        lanes |= {tensor: order for tensor in group}
    return lanes


def spread(weights: NDArray[np.int8], lanes: Lanes) -> NDArray[np.int8]:
    """``weights`` [c_out, c_in, ...] for an input of ``lanes``: a repeated channel counts once."""
    out = weights[:, lanes]
    first = np.unique(lanes, return_index=True)[1]
    out[:, np.setdiff1d(np.arange(len(lanes)), first)] = 0
    return out


def _added_together(trace: Trace) -> list[list[Tensor]]:
    groups = {trace.image: [trace.image]}
    for step in trace.steps:
        group = groups[step.residual] if step.residual else []
        group.append(step.output)
        groups[step.output] = group
    return list({id(group): group for group in groups.values()}.values())


def _order(readers: Sequence[Reader], kept: Lanes) -> Lanes:
    """Positions in ``kept``, neighbours first, such that all readers are exact, or all but the hardest ones."""
    everything = np.arange(len(kept))
    clashes = [_clashes(reader.weights[:, kept], reader.high) for reader in readers]
    clashes.sort(key=lambda clash: np.count_nonzero(clash))
    while clashes:
        if not any(clash.any() for clash in clashes):
            return everything
        order = _matched(np.logical_or.reduce(clashes))
        if order is not None:
            return order
        clashes.pop()
    return everything


def _clashes(weights: NDArray[np.int16], high: int) -> NDArray[np.bool_]:
    """Which channels of ``weights`` [rows, channels] must not stand side by side."""
    clash = np.zeros((weights.shape[1],) * 2, bool)
    for sign, limit in ((1, 32767), (-1, 32768)):
        size = np.maximum(sign * weights, 0)
        most = limit // max(high, 1)
        top = -np.partition(-size, 1, axis=1)[:, :2] if size.shape[1] > 1 else np.zeros((0, 2), np.int16)
        for row in size[np.flatnonzero(top.sum(axis=1) > most)]:
            big = np.flatnonzero(2 * row > most)  # one of any two that are too much
            clash[big] |= row[big, None] + row > most
    clash |= clash.T
    np.fill_diagonal(clash, False)
    return clash


def _matched(clash: NDArray[np.bool_]) -> Lanes | None:
    """An order whose neighbours do not clash, or None when none was found. An odd one out comes last."""
    count = len(clash)
    draw = np.random.default_rng(0)
    for _ in range(TRIES):
        shuffled = draw.permutation(count)
        left, right = shuffled[: count // 2], shuffled[count // 2 :]
        partner = maximum_bipartite_matching(csr_array(~clash[np.ix_(left, right)]), perm_type="column")
        if (partner >= 0).all():
            pairs = np.stack([left, right[partner]], axis=1).reshape(-1)
            return np.concatenate([pairs, np.setdiff1d(np.arange(count), pairs)])
    return None
