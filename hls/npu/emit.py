"""Fused layers -> program: the one entry that the hls4ml backend and the random-layer bench share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hls.npu.layer import FusedLayer, Tensor
from hls.npu.limits import check_limits
from hls.npu.place import Placement, banks, place
from hls.npu.prove import prove_no_overflow
from hls.npu.stem import plan_image
from hw.isa import ArrayConfig, LayerDescriptor, Pool, ProgramHeader
from hw.program import Output, Program
from hw.stream import StreamLayer, encode

AVERAGE_SHIFT = 2
"""A 2x2 average divides by four."""


def compile_layers(
    name: str,
    layers: Sequence[FusedLayer],
    config: ArrayConfig,
    *,
    rewrite_stem: bool = True,
    metadata: dict[str, Any] | None = None,
) -> Program:
    """Compile ``layers`` for ``config``. The first layer reads the image, the last one's output is the result.

    ``rewrite_stem`` allows the space-to-depth rewrite of the first layer. ``metadata`` joins the placement report in
    ``Program.metadata``. Raises CompileError for what the array cannot run: an impossible layer, a sum that may overflow, a network
    that does not fit.
    """
    check_limits(layers, config)
    macs = sum(layer.macs for layer in layers)
    image_fraction_bits = layers[0].source.fraction_bits
    layers, layout = plan_image(layers, config, rewrite_stem)
    check_limits(layers[:1], config)
    bounds = [prove_no_overflow(layer) for layer in layers]
    placement = place(layers, config)

    image, last = layers[0].source, layers[-1]
    result = last.output
    header = ProgramHeader(
        layers=len(layers),
        cp=config.cp,
        kp=config.kp,
        stream_bytes=config.stream_bytes,
        acc_depth=config.acc_depth,
        total_words=config.total_words,
        image_base=placement.base[image.name],
        image_words=image.words(config),
        image_beats=layout.word_bytes(config.cp, config.port_bytes) // config.port_bytes,
        feature_base=placement.base[result.name],
        feature_words=result.words(config),
    )
    divisor = last.rows * last.columns if last.pool.mode == Pool.GLOBAL_SUM else 1
    return Program(
        name=name,
        config=config,
        layer_names=tuple(layer.name for layer in layers),
        image=layout,
        image_fraction_bits=image_fraction_bits,
        output=Output(result.height, result.width, result.channels, result.dtype, result.fraction_bits, divisor),
        macs=macs,
        stream=encode(
            header,
            [_stream_layer(number, layer, image, placement, config) for number, layer in enumerate(layers)],
            config,
        ),
        metadata={
            **(metadata or {}),
            "placement": {
                "words_used": placement.high_water,
                "next_image_from_layer": placement.image_free,
                "layers": [
                    _report(layer, bound, placement, config) for layer, bound in zip(layers, bounds, strict=True)
                ],
            },
        },
    )


def tile_rows(layer: FusedLayer, config: ArrayConfig) -> tuple[int, int]:
    """(rows of a tile, number of tiles): as few tiles of whole rows as the accumulator allows, evenly sized."""
    most = config.acc_depth // layer.columns
    rows = math.ceil(layer.rows / math.ceil(layer.rows / most))
    return rows, math.ceil(layer.rows / rows)


def _stream_layer(
    number: int, layer: FusedLayer, image: Tensor, placement: Placement, config: ArrayConfig
) -> StreamLayer:
    blocks_in, blocks_out = config.blocks_in(layer.c_in), config.blocks_out(layer.c_out)
    weights = np.zeros((blocks_out * config.kp, blocks_in * config.cp, *layer.kernel), np.int8)
    weights[: layer.c_out, : layer.c_in] = layer.weights
    res_shift = np.zeros(layer.c_out, np.uint8) if layer.res_shift is None else layer.res_shift

    def padded(values: NDArray[Any]) -> NDArray[Any]:
        return np.pad(values, (0, blocks_out * config.kp - layer.c_out))

    return StreamLayer(
        _descriptor(number, layer, image, placement, config),
        weights,
        padded(layer.bias),
        padded(layer.shift),
        padded(res_shift),
    )


def _descriptor(
    number: int, layer: FusedLayer, image: Tensor, placement: Placement, config: ArrayConfig
) -> LayerDescriptor:
    source, output, pool = layer.source, layer.output, layer.pool
    rows, tiles = tile_rows(layer, config)
    row_step = layer.stride * source.width
    return LayerDescriptor(
        in_origin=placement.base[source.name] - layer.pad_top * source.width - layer.pad_left,
        in_width=source.width,
        in_height=source.height,
        in_plane=source.height * source.width,
        in_blocks=config.blocks_in(layer.c_in),
        in_signed=int(source.signed),
        in_is_image=int(source.name == image.name),
        image_free=int(number >= placement.image_free),
        kernel_h=layer.kernel[0],
        kernel_w=layer.kernel[1],
        stride=layer.stride,
        pad_top=layer.pad_top,
        pad_left=layer.pad_left,
        row_step=row_step,
        tile_step=rows * row_step,
        out_width=layer.columns,
        out_height=layer.rows,
        out_blocks=config.blocks_out(layer.c_out),
        tile_rows=rows,
        tiles=tiles,
        exclusive_drain=int(layer.name in placement.exclusive),
        res_enable=int(layer.residual is not None),
        res_signed=int(layer.residual is not None and layer.residual.signed),
        res_base=placement.base[layer.residual.name] if layer.residual else 0,
        clip_low=layer.clip_low,
        clip_high=layer.clip_high,
        pool_mode=pool.mode,
        pool_kernel=pool.kernel,
        pool_stride=pool.stride,
        pool_pad=pool.pad,
        pool_shift=AVERAGE_SHIFT if pool.mode == Pool.AVERAGE else 0,
        pooled_width=output.width,
        pooled_height=output.height,
        out_base=placement.base[output.name],
    )


def _report(layer: FusedLayer, bound: tuple[int, int], placement: Placement, config: ArrayConfig) -> dict[str, Any]:
    """A layer's line of the placement report: where its tensors lie, in words and banks, and what its sums stay within."""
    tensors = {"input": layer.source, "residual": layer.residual, "output": layer.output}
    lines = {
        role: {
            "tensor": tensor.name,
            "shape": [tensor.height, tensor.width, tensor.channels],
            "dtype": tensor.dtype,
            "base": placement.base[tensor.name],
            "words": tensor.words(config),
            "banks": banks(tensor, placement.base[tensor.name], config),
            "fraction_bits": tensor.fraction_bits,
        }
        for role, tensor in tensors.items()
        if tensor
    }
    return {
        "name": layer.name,
        **lines,
        "exclusive_drain": layer.name in placement.exclusive,
        "sum_bounds": list(bound),
    }
