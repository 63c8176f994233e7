"""Tensor placement: which activation words each tensor occupies, so that everything stays on chip and the banks' read ports do not clash.

Every bank has one read port. A layer reads its convolution input and its residual at the same time, so these want different banks;
where that cannot be had, the layer drains its tiles in passes of their own (``exclusive``). An output may take the words of a
residual of the same shape that dies in the same layer; otherwise it shares no word with a tensor that is alive. The image's words
are kept free again in the later layers, where that fits, so that the next image can be loaded while this one is computed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hls.npu.layer import CompileError, FusedLayer, Tensor
from hw.isa import ArrayConfig, Pool

ATTEMPTS = 200
"""Random orders tried after the systematic ones; seeded, so that a network always compiles to the same bytes."""
AHEAD_LAYERS, AHEAD_ATTEMPTS = 12, 40
"""How many layers are tried as the first one with room for the next image, and random orders for each."""


class PlacementError(CompileError):
    """The network does not fit the activation banks; says how much is short."""


@dataclass(frozen=True)
class Placement:
    """Where each tensor lies, and which layers cannot read input and residual at once."""

    base: dict[str, int]
    """First word of each tensor."""
    exclusive: frozenset[str]
    """Names of layers whose input and residual share a bank."""
    high_water: int
    """Words from the first to the last that is used."""
    image_free: int
    """Number of the first layer from which on the image's words are free for the next image; the number of layers if there is none."""


@dataclass
class _Region:
    """Words that one tensor, or a chain of tensors written in place, occupies from layer ``first`` to layer ``last``."""

    words: int
    first: int
    last: int
    tensors: list[str] = field(default_factory=list)
    again: int | None = None
    """Alive once more from this layer to the end: the next image."""

    def meets(self, other: _Region) -> bool:
        """Whether both are alive in some layer."""
        return any(a <= d and c <= b for a, b in self._spans() for c, d in other._spans())

    def _spans(self) -> list[tuple[int, float]]:
        return [(self.first, self.last), *([(self.again, float("inf"))] if self.again is not None else [])]


def place(layers: Sequence[FusedLayer], config: ArrayConfig) -> Placement:
    """Place every tensor of ``layers``. Raises PlacementError when they do not fit."""
    regions = _regions(layers, config)
    of = {name: region for region in regions for name in region.tensors}
    # (input region, residual region, cycles lost when they share a bank) of each layer with a residual
    pairs = [
        (of[layer.source.name], of[layer.residual.name], layer.rows * layer.columns * config.blocks_out(layer.c_out))
        for layer in layers
        if layer.residual
    ]
    (short, lost, high), base = _search(regions, pairs, config, ATTEMPTS)
    if short:
        raise _too_big(layers, regions, short, config)
    image = of[layers[0].source.name]
    for number in _layers_with_room(image, regions, len(layers), config)[:AHEAD_LAYERS]:
        image.again = number
        score, ahead = _search(regions, pairs, config, AHEAD_ATTEMPTS)
        if score[:2] <= (0, lost):
            high, base = score[2], ahead
            break
    else:
        image.again = None
    exclusive = frozenset(
        layer.name
        for layer in layers
        if layer.residual
        and _banks(base, of[layer.source.name], config) & _banks(base, of[layer.residual.name], config)
    )
    free = len(layers) if image.again is None else image.again
    return Placement({name: base[id(region)] for name, region in of.items()}, exclusive, high, free)


def _search(
    regions: list[_Region], pairs: list[tuple[_Region, _Region, int]], config: ArrayConfig, attempts: int
) -> tuple[tuple[int, int, int], dict[int, int]]:
    """The best placement of several orders: (words short, cycles lost to shared banks, high water), and the bases by region id."""
    best: tuple[tuple[int, int, int], dict[int, int]] | None = None
    for order in _orders(regions, attempts):
        base = _first_fit(order, pairs, config)
        high = max(base[id(r)] + r.words for r in regions)
        lost = sum(cost for a, b, cost in pairs if _banks(base, a, config) & _banks(base, b, config))
        score = (max(0, high - config.total_words), lost, high)
        if best is None or score < best[0]:
            best = score, base
        if score[:2] == (0, 0):
            break
    assert best is not None
    return best


def _layers_with_room(image: _Region, regions: list[_Region], layers: int, config: ArrayConfig) -> list[int]:
    """Layers after the image's last reader from which on there are enough words for another image."""
    first = layers
    while first > image.last + 1:
        alive = sum(r.words for r in regions if r is not image and r.first <= first - 1 <= r.last)
        if alive + image.words > config.total_words:
            break
        first -= 1
    return list(range(first, layers))


def banks(tensor: Tensor, base: int, config: ArrayConfig) -> list[int]:
    """The banks in which a tensor at ``base`` lies."""
    return list(range(base // config.bank_words, (base + tensor.words(config) - 1) // config.bank_words + 1))


def _regions(layers: Sequence[FusedLayer], config: ArrayConfig) -> list[_Region]:
    last = _last_readers(layers)
    image = layers[0].source
    regions = {image.name: _Region(image.words(config), 0, last[image.name], [image.name])}
    for number, layer in enumerate(layers):
        output, residual = layer.output, layer.residual
        end = last.get(output.name, number)
        in_place = (
            residual is not None
            and residual.name != image.name
            and residual.name != layer.source.name
            and layer.pool.mode == Pool.NONE
            and last[residual.name] == number
            and regions[residual.name] is not regions[layer.source.name]
        )
        if in_place and residual is not None:
            region = regions[residual.name]
            region.last = end
            region.tensors.append(output.name)
        else:
            region = _Region(output.words(config), number, end, [output.name])
        regions[output.name] = region
    return list({id(region): region for region in regions.values()}.values())


def _last_readers(layers: Sequence[FusedLayer]) -> dict[str, int]:
    """Number of the last layer that reads each tensor; the result and an image that may still arrive live to the end."""
    last: dict[str, int] = {}
    image, arrived = layers[0].source, False
    for number, layer in enumerate(layers):
        if layer.residual:
            if layer.residual.name == image.name and not arrived:
                raise layer.error(
                    "adds the image, which may still be loading", "let an earlier layer read the whole image first"
                )
            last[layer.residual.name] = number
        last[layer.source.name] = number
        arrived = arrived or (layer.source.name == image.name and _reads_last_word(layer))
    if not arrived:
        last[image.name] = len(layers) - 1
    return last


def _reads_last_word(layer: FusedLayer) -> bool:
    down = (layer.rows - 1) * layer.stride + layer.kernel[0] - layer.pad_top
    across = (layer.columns - 1) * layer.stride + layer.kernel[1] - layer.pad_left
    return _taps_touch(down, layer.source.height, layer.kernel[0], layer.stride) and _taps_touch(
        across, layer.source.width, layer.kernel[1], layer.stride
    )


def _taps_touch(end: int, size: int, kernel: int, stride: int) -> bool:
    """Whether some window of those ending at ``end``, ``end - stride``, ... covers position ``size - 1``."""
    return end >= size and (end - size) % stride < kernel


def _orders(regions: list[_Region], attempts: int) -> Iterable[list[_Region]]:
    yield sorted(regions, key=lambda r: r.first)
    yield sorted(regions, key=lambda r: (-r.words, r.first))
    yield sorted(regions, key=lambda r: (-r.words * (r.last - r.first + 1), r.first))
    draw = random.Random(0)
    for _ in range(attempts):
        yield sorted(regions, key=lambda r: -r.words * draw.uniform(0.3, 1.0))


def _first_fit(order: list[_Region], pairs: list[tuple[_Region, _Region, int]], config: ArrayConfig) -> dict[int, int]:
    """The base of each region (by id): the lowest free address with the cheapest bank clashes. May run past the last word."""
    base: dict[int, int] = {}
    placed: list[_Region] = []
    for region in order:
        busy = sorted((base[id(r)], base[id(r)] + r.words) for r in placed if r.meets(region))
        starts = {0, *(end for _, end in busy), *range(0, config.total_words, config.bank_words)}
        starts |= {start - region.words for start, _ in busy if start >= region.words}
        partners = [(b if a is region else a, cost) for a, b, cost in pairs if (a is region) != (b is region)]
        partners = [(p, cost) for p, cost in partners if id(p) in base]

        def score(
            start: int, region: _Region = region, partners: list[tuple[_Region, int]] = partners
        ) -> tuple[int, int, int]:
            mine = _span(start, region.words, config)
            clashes = sum(cost for p, cost in partners if mine & _banks(base, p, config))
            return max(0, start + region.words - config.total_words), clashes, start

        free = [s for s in starts if all(s + region.words <= low or s >= high for low, high in busy)]
        base[id(region)] = min(free, key=score)
        placed.append(region)
    return base


def _span(start: int, words: int, config: ArrayConfig) -> set[int]:
    return set(range(start // config.bank_words, (start + words - 1) // config.bank_words + 1))


def _banks(base: dict[int, int], region: _Region, config: ArrayConfig) -> set[int]:
    return _span(base[id(region)], region.words, config)


def _too_big(layers: Sequence[FusedLayer], regions: list[_Region], short: int, config: ArrayConfig) -> PlacementError:
    peak, number = max((sum(r.words for r in regions if r.first <= i <= r.last), -i) for i in range(len(layers)))
    layer = layers[-number]
    if peak > config.total_words:
        reason = f"needs {peak} activation words at once, {config.name} has {config.total_words}: {peak - config.total_words} short"
    else:
        reason = f"no placement found in {config.total_words} activation words: the best one is {short} words short"
    return PlacementError(
        layer.name, reason, "use a smaller image, a narrower network, or an array with more or larger banks"
    )
