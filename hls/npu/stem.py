"""The stem rewrite: the first convolution over a space-to-depth image when that fills the array better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hls.npu.layer import FusedLayer
from hw.image_layout import ImageLayout
from hw.isa import ArrayConfig


def plan_image(
    layers: Sequence[FusedLayer], config: ArrayConfig, rewrite: bool
) -> tuple[list[FusedLayer], ImageLayout]:
    """The layers, the first one rewritten where that lowers its number of passes, and the layout of the image that goes with them.

    The rewrite changes the image tensor, so it is only for an image that the first layer alone reads. See ``hw.image_layout``.
    """
    first, others = layers[0], list(layers[1:])
    image = first.source
    plain = ImageLayout.plain(image.height, image.width, image.channels)
    readers = [t for layer in layers for t in (layer.source, layer.residual) if t and t.name == image.name]
    square = first.kernel[0] == first.kernel[1] and first.pad_top == first.pad_left
    if not rewrite or not square or len(readers) > 1:
        return list(layers), plain

    shape, out = (image.height, image.width, image.channels), (first.rows, first.columns)
    layout = ImageLayout.for_stem(shape, first.kernel[0], first.stride, first.pad_top, out)
    stem = replace(
        first,
        source=replace(image, height=layout.rows, width=layout.cols, channels=layout.lanes),
        weights=layout.rewrite_weights(first.weights),
        stride=1,
        pad_top=0,
        pad_left=0,
    )
    if stem.passes(config) >= first.passes(config):
        return list(layers), plain
    return [stem, *others], layout
