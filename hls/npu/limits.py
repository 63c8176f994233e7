"""What one descriptor can say: the NPU's limits, each with the layer's name and what would help."""

from __future__ import annotations

from collections.abc import Sequence

from hls.npu.layer import CompileError, FusedLayer, Tensor
from hw.isa import MAX_SHIFT, POOL_KERNEL_MAX, ArrayConfig, Pool

MAX_KERNEL = 15
MAX_STRIDE = 7
MAX_PAD = 15
MAX_SIZE = 2047
"""Rows or columns of a tensor."""
MAX_BLOCKS = 1023
"""Channel blocks of a tensor."""


def check_limits(layers: Sequence[FusedLayer], config: ArrayConfig) -> None:
    """Refuse, with CompileError, what the array cannot run."""
    if not layers:
        raise CompileError("(none)", "the network has no layers", "give at least one convolution")
    image = layers[0].source
    if image.dtype != "uint8":
        raise layers[0].error(f"the image is {image.dtype}", "quantise the input to 8 unsigned bits")
    known = {image.name: image}
    for layer in layers:
        for tensor in (layer.source, layer.residual):
            if tensor and known.get(tensor.name) != tensor:
                raise layer.error(f"reads {tensor}, which no earlier layer writes", "put the layers in order")
        if layer.output.name in known:
            raise layer.error(f"writes {layer.output.name!r} a second time", "give each tensor its own name")
        known[layer.output.name] = layer.output
        if layer.source.dtype == "int32" or (layer.residual and layer.residual.dtype == "int32"):
            raise layer.error("reads global sums", "end the network with them: the host runs what follows")
        _check_convolution(layer, config)
        _check_pool(layer, config)


def _check_convolution(layer: FusedLayer, config: ArrayConfig) -> None:
    def within(what: str, value: int, low: int, high: int, advice: str) -> None:
        if not low <= value <= high:
            raise layer.error(f"{what} is {value}, the NPU takes {low} to {high}", advice)

    within("kernel height", layer.kernel[0], 1, MAX_KERNEL, "use a smaller kernel")
    within("kernel width", layer.kernel[1], 1, MAX_KERNEL, "use a smaller kernel")
    within("stride", layer.stride, 1, MAX_STRIDE, "use a smaller stride")
    below = (layer.rows - 1) * layer.stride + layer.kernel[0] - layer.pad_top - layer.source.height
    right = (layer.columns - 1) * layer.stride + layer.kernel[1] - layer.pad_left - layer.source.width
    for side, pad in (("above", layer.pad_top), ("to the left", layer.pad_left)):
        within(f"padding {side}", pad, 0, MAX_PAD, "pad less")
    for side, pad in (("below", below), ("to the right", right)):
        within(f"padding {side}", max(0, pad), 0, MAX_PAD, "pad less")
    for tensor in (layer.source, layer.output):
        _check_tensor(layer, tensor, config)
    within("rows", layer.rows, 1, MAX_SIZE, "use a smaller image")
    within("columns", layer.columns, 1, config.acc_depth, "use a smaller image, or an array with a deeper accumulator")
    within("largest shift", int(layer.shift.max()), 0, MAX_SHIFT, "choose output and weight scales closer together")
    if layer.res_shift is not None:
        within("largest residual shift", int(layer.res_shift.max()), 0, MAX_SHIFT, "choose coarser weights")


def _check_tensor(layer: FusedLayer, tensor: Tensor, config: ArrayConfig) -> None:
    for what, value in (("rows", tensor.height), ("columns", tensor.width)):
        if not 1 <= value <= MAX_SIZE:
            raise layer.error(f"{tensor.name} has {value} {what}, the NPU takes 1 to {MAX_SIZE}", "use a smaller image")
    if config.blocks_out(tensor.channels) > MAX_BLOCKS:
        raise layer.error(f"{tensor.name} has {tensor.channels} channels", f"use at most {MAX_BLOCKS * config.kp}")


def _check_pool(layer: FusedLayer, config: ArrayConfig) -> None:
    pool = layer.pool
    if pool.mode in (Pool.NONE, Pool.GLOBAL_SUM):
        return
    if not 1 <= pool.kernel <= POOL_KERNEL_MAX or not 1 <= pool.stride <= POOL_KERNEL_MAX:
        raise layer.error(
            f"pools {pool.kernel}x{pool.kernel} with stride {pool.stride}",
            f"the NPU takes 1 to {POOL_KERNEL_MAX} for both",
        )
    if not 0 <= pool.pad < min(pool.kernel, pool.stride):
        raise layer.error(f"pads the pool by {pool.pad}", "pad less than the window and the stride")
    if pool.mode == Pool.AVERAGE and pool.kernel != 2:
        raise layer.error(
            f"averages {pool.kernel}x{pool.kernel}",
            "the NPU averages 2x2: use that, a stride-2 convolution, a max pool or a global average",
        )
    if layer.output.width > config.pool_columns:
        raise layer.error(
            f"pools to {layer.output.width} columns, the line buffer holds {config.pool_columns}", "use a smaller image"
        )
    for size, pooled in ((layer.rows, layer.output.height), (layer.columns, layer.output.width)):
        if (pooled - 1) * pool.stride - pool.pad >= size:
            raise layer.error(f"pools {size} to {pooled}, so that a window sees only padding", "pad less")
