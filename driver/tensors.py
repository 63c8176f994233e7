"""Follows a program's tensors through the activation banks: which layer's output each layer reads, found by address.

A program names words, not tensors. An engine that computes whole tensors needs the graph behind the addresses, and must give up where
there is none: where a layer reads words that were overwritten in part, that two layers wrote, or that nobody wrote.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw.isa import FEATURE_BYTES, ArrayConfig, LayerDescriptor, Pool, ProgramHeader
from hw.stream import StreamLayer


class UntraceableError(ValueError):
    """The program cannot be written as a graph of tensors; the message says which layer and why."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """What the image load or one layer wrote: [height, width, channels] at ``base``, of values ``low`` to ``high``."""

    name: str
    base: int
    words: int
    height: int
    width: int
    channels: int
    """Written per pixel; what the last word holds beyond them is older."""
    low: int
    high: int
    is_sum: bool = False
    """Global sums: int32 [channels], not bytes."""

    @property
    def zero_point(self) -> int:
        """What stands for 0 when the tensor is kept as uint8."""
        return 128 if self.low < 0 else 0


@dataclass(frozen=True)
class Step:
    """One layer of the graph."""

    layer: StreamLayer
    source: Tensor
    residual: Tensor | None
    output: Tensor


@dataclass(frozen=True)
class Trace:
    """A program as a graph. ``result`` is the image's own tensor only in a program without layers, which no device runs."""

    image: Tensor
    steps: list[Step]
    result: Tensor


def trace(header: ProgramHeader, layers: list[StreamLayer], config: ArrayConfig) -> Trace:
    """The graph behind the addresses. Raises UntraceableError when there is none."""
    first = layers[0].descriptor
    height, width = first.in_height, first.in_width
    blocks, sent = header.image_words // (height * width), header.image_beats * config.port_bytes
    if blocks > 1 and sent < config.cp:
        raise UntraceableError("the image is sent without the last bytes of its words, which older ones fill up")
    channels = sent if blocks == 1 else blocks * config.cp
    image = Tensor("image", header.image_base, header.image_words, height, width, channels, 0, 255)
    alive, steps = [image], []
    for number, layer in enumerate(layers):
        d = layer.descriptor
        try:
            source = _read(alive, _input_base(d), d.in_height, d.in_width, d.in_blocks * config.cp, d.in_signed, config)
            residual = None
            if d.res_enable:
                wanted = d.out_blocks * config.kp
                residual = _read(alive, d.res_base, d.out_height, d.out_width, wanted, d.res_signed, config)
                if residual.channels != wanted:
                    raise UntraceableError(f"adds {wanted} of {residual.channels} channels")
            output = _written(number, d, config)
        except UntraceableError as error:
            raise UntraceableError(f"layer {number} {error}") from None
        alive = [t for t in alive if t.base + t.words <= output.base or output.base + output.words <= t.base]
        alive.append(output)
        steps.append(Step(layer, source, residual, output))
    for tensor in alive:
        if tensor.base == header.feature_base and tensor.words >= header.feature_words:
            return Trace(image, steps, tensor)
    raise UntraceableError("no single layer wrote the words of the result")


def _input_base(d: LayerDescriptor) -> int:
    return d.in_origin + d.pad_top * d.in_width + d.pad_left


def _read(
    alive: list[Tensor], base: int, height: int, width: int, channels: int, signed: int, config: ArrayConfig
) -> Tensor:
    """The tensor of which these are the first channel blocks."""
    for tensor in alive:
        if tensor.base != base or tensor.is_sum or (tensor.height, tensor.width) != (height, width):
            continue
        if config.blocks_in(channels) > config.blocks_in(tensor.channels):
            continue
        if (tensor.low < 0 and not signed) or (tensor.high > 127 and signed):
            raise UntraceableError(f"reads {tensor.name}, of {tensor.low} to {tensor.high}, with the other signedness")
        return tensor
    raise UntraceableError(f"reads word {base} as {height} x {width} pixels, which nobody wrote so")


def _written(number: int, d: LayerDescriptor, config: ArrayConfig) -> Tensor:
    name, channels = f"layer{number}", d.out_blocks * config.kp
    if d.clip_low < (-128 if d.clip_high <= 127 else 0):
        raise UntraceableError(f"writes {d.clip_low} to {d.clip_high}, more than a byte holds")
    if d.pool_mode == Pool.GLOBAL_SUM:
        words = math.ceil(FEATURE_BYTES * channels / config.cp)
        return Tensor(name, d.out_base, words, 1, 1, channels, d.clip_low, d.clip_high, is_sum=True)
    low, high = d.clip_low, d.clip_high
    height, width = d.out_height, d.out_width
    if d.pool_mode != Pool.NONE:  # its windows read zero outside, and a byte still holds the range
        low, high = min(low, 0), max(high, 0)
        height, width = d.pooled_height, d.pooled_width
    return Tensor(name, d.out_base, config.blocks_in(channels) * height * width, height, width, channels, low, high)
