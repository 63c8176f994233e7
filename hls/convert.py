"""QKeras network -> hls4ml ModelGraph in which every value is exactly the integer that QKeras computes.

hls4ml's own defaults round in places (see docs/numerics.md), so the precision of every layer is set here: the quantisers' types where
there are quantisers, and between them types just wide enough for the exact sums of the actual weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hls.npu.layer import CompileError

if TYPE_CHECKING:
    from hls4ml.model.graph import ModelGraph

IMAGE_FRACTION_BITS = 8
"""The network sees image_uint8 / 256."""


def convert(
    model: Any,
    backend: str = "NPU",
    output_dir: str = "build/hls",
    name: str = "network",
    layers: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> ModelGraph:
    """Convert a QKeras ``model`` with exact precisions, by hls4ml's ``convert_from_keras_model``.

    ``layers``: more of hls4ml's configuration by layer (``Strategy``, ``ReuseFactor``...). ``options`` go to the backend (NPU: ``board``,
    ``device``; Vitis: ``io_type``, ``part``...). Raises CompileError for a layer that has no exact conversion.
    """
    import hls4ml

    config = exact_config(model)
    for layer, settings in (layers or {}).items():
        config["LayerName"].setdefault(layer, {}).update(settings)
    return hls4ml.converters.convert_from_keras_model(
        model,
        hls_config=config,
        backend=backend,
        output_dir=output_dir,
        project_name=name,
        **options,
    )


def exact_config(model: Any) -> dict[str, Any]:
    """The ``hls_config`` under which hls4ml computes exactly what the QKeras ``model`` computes when it is called eagerly."""
    values: dict[str, Values] = {}
    layers: dict[str, Any] = {}
    for layer in model.layers:
        kind = type(layer).__name__
        if kind not in RULES:
            raise CompileError(
                layer.name,
                f"there is no exact conversion of a {kind}",
                f"use {', '.join(sorted(RULES))}, or end the network before this layer and run the rest on the host",
            )
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        out = RULES[kind](layer, [values[tensor.name] for tensor in inputs if tensor.name in values])
        values[layer.output.name] = out
        precision = {"result": str(out)}
        if kind in ("QConv2D", "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D"):
            precision["accum"] = str(out)
        if kind == "QConv2D":
            precision["weight"] = _quantiser_type(layer, layer.kernel_quantizer_internal)
            precision["bias"] = _quantiser_type(layer, layer.bias_quantizer_internal)
            layers[f"{layer.name}_linear"] = {"Precision": {"result": str(out)}}
        layers[layer.name] = {"Precision": precision}
    return {"Model": {"Precision": "fixed<16,6>", "ReuseFactor": 1, "Strategy": "Resource"}, "LayerName": layers}


@dataclass(frozen=True)
class Values:
    """What a tensor can hold: integers ``low`` to ``high`` times 2**-fraction."""

    low: int
    high: int
    fraction: int
    rounds: bool = False
    """Whether the tensor is the result of a quantiser, which rounds half to even and saturates."""

    def __str__(self) -> str:
        """The narrowest hls4ml type that holds them all."""
        width = max(self.high.bit_length(), (-1 - self.low).bit_length() if self.low < 0 else 0, 1) + (self.low < 0)
        mode = ",RND_CONV,SAT,0" if self.rounds else ""
        return f"{'' if self.low < 0 else 'u'}fixed<{width},{width - self.fraction}{mode}>"

    def at(self, fraction: int) -> Values:
        """The same values in steps of 2**-fraction, which must be as fine."""
        return Values(self.low << (fraction - self.fraction), self.high << (fraction - self.fraction), fraction)


def _image(layer: Any, _: list[Values]) -> Values:
    return Values(0, 255, IMAGE_FRACTION_BITS)


def _same(layer: Any, inputs: list[Values]) -> Values:
    return Values(min(inputs[0].low, 0), inputs[0].high, inputs[0].fraction, inputs[0].rounds)


def _convolution(layer: Any, inputs: list[Values]) -> Values:
    x = inputs[0]
    kernel, f_kernel = _integers(layer, layer.kernel, layer.kernel_quantizer_internal)
    if not layer.use_bias:
        raise CompileError(layer.name, "has no bias", "build the layer with use_bias=True (zeros will do)")
    bias, f_bias = _integers(layer, layer.bias, layer.bias_quantizer_internal)
    fraction = max(x.fraction + f_kernel, f_bias)
    w = kernel.reshape(-1, kernel.shape[-1])
    up, b = fraction - x.fraction - f_kernel, bias << (fraction - f_bias)
    most = (np.maximum(w * x.low, w * x.high).sum(axis=0) << up) + np.maximum(b, 0)
    least = (np.minimum(w * x.low, w * x.high).sum(axis=0) << up) + np.minimum(b, 0)
    return Values(int(least.min()), int(most.max()), fraction)


def _add(layer: Any, inputs: list[Values]) -> Values:
    fraction = max(x.fraction for x in inputs)
    aligned = [x.at(fraction) for x in inputs]
    return Values(sum(x.low for x in aligned), sum(x.high for x in aligned), fraction)


def _activation(layer: Any, inputs: list[Values]) -> Values:
    quantiser = layer.quantizer
    kind, fraction = type(quantiser).__name__, _fraction(layer, quantiser)
    if fraction < 1:
        raise CompileError(
            layer.name, f"has {fraction} fraction bits, with which hls4ml does not round", "keep at least one"
        )
    if kind == "quantized_relu":
        if quantiser.negative_slope:
            raise CompileError(layer.name, "is a leaky ReLU", "use negative_slope=0")
        return Values(0, 2**quantiser.bits - 1, fraction, rounds=True)
    if quantiser.symmetric:
        raise CompileError(layer.name, "saturates symmetrically, which hls4ml does not", "use symmetric=0")
    half = 2 ** (quantiser.bits - 1)
    return Values(-half, half - 1, fraction, rounds=True)


def _average(layer: Any, inputs: list[Values]) -> Values:
    return _mean(inputs[0], math.prod(layer.pool_size))


def _global_average(layer: Any, inputs: list[Values]) -> Values:
    _, height, width, _ = layer.input.shape
    return _mean(inputs[0], height * width)


def _mean(x: Values, count: int) -> Values:
    """Fine enough to tell the sums apart: exact for a power of two; else hls4ml truncates, and rounding ``mean * count`` is exact.

    Wide enough for the sums too, since hls4ml adds up in the same type.
    """
    extra = math.ceil(math.log2(count)) + (count & (count - 1) != 0)
    return Values(x.low * count << extra, x.high * count << extra, x.fraction + extra)


RULES: dict[str, Callable[[Any, list[Values]], Values]] = {
    "InputLayer": _image,
    "ZeroPadding2D": _same,
    "MaxPooling2D": _same,
    "QConv2D": _convolution,
    "Add": _add,
    "QActivation": _activation,
    "AveragePooling2D": _average,
    "GlobalAveragePooling2D": _global_average,
}


def _fraction(layer: Any, quantiser: Any) -> int:
    """Fraction bits of a power-of-two QKeras quantiser; refuses the others."""
    kind = type(quantiser).__name__
    if kind not in ("quantized_bits", "quantized_relu"):
        raise CompileError(
            layer.name,
            f"is quantised by {'nothing' if quantiser is None else kind}",
            "use quantized_bits(8, I, alpha=1) or quantized_relu(8, I)",
        )
    if kind == "quantized_relu":
        return int(quantiser.bits - quantiser.integer)
    if quantiser.alpha not in (1, 1.0):
        raise CompileError(layer.name, f"has a quantiser with alpha={quantiser.alpha!r}", "use alpha=1")
    return int(quantiser.bits - quantiser.keep_negative - quantiser.integer)


def _quantiser_type(layer: Any, quantiser: Any) -> str:
    fraction, width = _fraction(layer, quantiser), int(quantiser.bits)
    return f"{'' if quantiser.keep_negative else 'u'}fixed<{width},{width - fraction}>"


def _integers(layer: Any, weights: Any, quantiser: Any) -> tuple[NDArray[np.int64], int]:
    """(integers, fraction bits) that the layer computes with."""
    fraction = _fraction(layer, quantiser)
    return np.rint(np.ldexp(np.asarray(quantiser(weights), np.float64), fraction)).astype(np.int64), fraction
