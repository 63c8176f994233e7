"""A traced program as an ONNX graph that computes the same integers: 8-bit kernels of ONNX Runtime, with a proof for every layer.

Tensors are uint8 [batch, height, width, lanes], signed ones offset by 128. Three ways to compute a layer, the first that is proven exact:

- ``QLinearConv``: int32 sums, converted to float32, scaled by 2**-shift, clamped, rounded half to even. Exact while the sum stays below
  2**24 in magnitude, or the shift is so small that a larger one saturates in any case.
- ``MatMulIntegerToFloat`` for a 1x1 convolution with a residual: the scaled sum, bias and residual as float32. All are multiples of
  2**-shift, so adding them is exact while their magnitudes together stay below 2**24 steps. ``QuantizeLinear`` rounds half to even
  and clamps.
- ``ConvInteger`` and float64 for all else.

Every operator is ONNX's or of ONNX Runtime's ``com.microsoft`` set (its docs/ContribOperators.md). Nothing here computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from driver.lanes import Lanes, pairs_are_exact, spread
from driver.onnx_runtime import MICROSOFT, Kernels, model_of
from driver.tensors import Step, Tensor, Trace, UntraceableError
from hw.isa import LayerDescriptor, Pool

FLOAT32_EXACT = 1 << 24
SATURATING_SHIFT = 15
"""A sum of 2**24 or more, shifted by no more than this, lies beyond every clip limit (9 bits)."""


@dataclass(frozen=True)
class Graph:
    """The model and how to feed and read it."""

    model: onnx.ModelProto
    """From ``image`` uint8 [batch, height, width, lanes] to ``result``, int32 [batch, channels] (sums) or uint8 [batch, height, width,
    channels]."""
    image_lanes: Lanes
    methods: dict[str, str]
    """How each layer is computed, by the name of its output; for reports."""


@dataclass(frozen=True)
class _Layer:
    """One layer in the engine's lanes."""

    step: Step
    weights: NDArray[np.int8]
    """[c_out, c_in, kernel_h, kernel_w]"""
    bias: NDArray[np.int64]
    shift: NDArray[np.int64]
    res_shift: NDArray[np.int64]
    int8_is_exact: bool

    @property
    def d(self) -> LayerDescriptor:
        return self.step.layer.descriptor

    @property
    def zero_point(self) -> int:
        """Of the requantised values, before pooling."""
        return 128 if self.d.clip_low < 0 else 0


def build(trace: Trace, lanes: dict[Tensor, Lanes], kernels: Kernels) -> Graph:
    """The graph of a trace whose tensors keep their channels in the order of ``lanes``, for a CPU with these kernels.

    Raises UntraceableError for a layer whose sums may overflow 32 bits.
    """
    g = _Builder()
    methods = {}
    for step in trace.steps:
        layer = _layer(step, lanes, kernels)
        methods[step.output.name] = g.layer(layer)
    result = trace.result
    order = np.unique(lanes[result], return_index=True)[1]  # the first lane of each channel, in the order of channels
    g.node("Gather", [result.name, g.constant(order)], output="result", axis=1 if result.is_sum else 3)
    kind, shape = (
        (TensorProto.INT32, ["batch", None]) if result.is_sum else (TensorProto.UINT8, ["batch", None, None, None])
    )
    image = trace.image
    graph = helper.make_graph(
        g.nodes,
        "npu_program",
        [
            helper.make_tensor_value_info(
                "image", TensorProto.UINT8, ["batch", image.height, image.width, len(lanes[image])]
            )
        ],
        [helper.make_tensor_value_info("result", kind, shape)],
        g.initializers,
    )
    return Graph(model_of(graph), lanes[image], methods)


def _layer(step: Step, lanes: dict[Tensor, Lanes], kernels: Kernels) -> _Layer:
    rows, source = lanes[step.output], step.source
    missing = np.setdiff1d(np.flatnonzero(step.layer.weights.any(axis=(0, 2, 3))), lanes[source])
    if missing.size:
        raise UntraceableError(f"{step.output.name} reads channel {missing[0]} of {source.name}, which nobody wrote")
    weights = spread(step.layer.weights, lanes[source])[rows]
    bias, shift, res_shift = (
        part[rows].astype(np.int64) for part in (step.layer.bias, step.layer.shift, step.layer.res_shift)
    )
    flat = weights.astype(np.int16).transpose(0, 2, 3, 1).reshape(-1, weights.shape[1])
    exact = kernels is Kernels.EXACT or (
        kernels is Kernels.PAIRS and pairs_are_exact(flat, source.high + source.zero_point)
    )
    layer = _Layer(step, weights, bias, shift, res_shift, exact)
    if max(_magnitude(layer)) >= 1 << 31:
        raise UntraceableError(f"the sums of {step.output.name} may overflow 32 bits")
    return layer


def _magnitude(layer: _Layer) -> tuple[int, ...]:
    """Per output channel, what |sum|, and every partial sum, stays within for any image: products, bias and residual together."""
    source, residual = layer.step.source, layer.step.residual
    w = layer.weights.astype(np.int64).reshape(len(layer.weights), -1)
    low, high = min(source.low, 0), max(source.high, 0)
    products = np.maximum(np.maximum(w * low, w * high).sum(axis=1), -np.minimum(w * low, w * high).sum(axis=1))
    total = products + np.abs(layer.bias)
    if residual:
        total += np.int64(max(abs(residual.low), abs(residual.high))) << layer.res_shift
    return tuple(int(v) for v in total)


class _Builder:
    """Nodes and constants of the graph under construction; every method that makes a node returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[Any, ...], str] = {}

    def constant(self, value: Any, dtype: Any = None) -> str:
        array = np.ascontiguousarray(value, dtype) if np.ndim(value) else np.array(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant{len(self._constants)}"
            self.initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def node(self, operator: str, inputs: list[str], output: str = "", domain: str = "", **attributes: Any) -> str:
        output = output or f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def cast(self, x: str, dtype: int) -> str:
        return self.node("Cast", [x], to=dtype)

    # One layer -------------------------------------------------------------------------------------------------------

    def layer(self, layer: _Layer) -> str:
        """Add a layer; returns how it is computed."""
        d, step = layer.d, layer.step
        x, pads = self._framed(step.source.name, d, step.source)
        bounds = np.array(_magnitude(layer))
        pointwise = d.kernel_h == d.kernel_w == d.stride == 1 and not any(pads)
        if step.residual is None and ((bounds < FLOAT32_EXACT) | (layer.shift <= SATURATING_SHIFT)).all():
            method, y = "QLinearConv", self._qlinear_conv(layer, x, pads)
        elif step.residual is not None and pointwise and (bounds < FLOAT32_EXACT).all():
            method, y = "MatMulIntegerToFloat", self._matmul(layer, x, step.residual)
        else:
            method, y = "ConvInteger", self._conv_integer(layer, x, pads)
        y = self._clip(layer, y, narrow=method == "ConvInteger")
        pooled = self._pool(layer, y)
        self.node("Identity", [pooled], output=step.output.name)
        weights = "int8" if layer.int8_is_exact and method != "ConvInteger" else "uint8"
        return f"{method} {weights}"

    def _framed(self, x: str, d: LayerDescriptor, source: Tensor) -> tuple[str, list[int]]:
        """The input without rows and columns that no window reads, and the zeros around it: [top, left, bottom, right]."""
        below = (d.out_height - 1) * d.stride + d.kernel_h - d.pad_top - d.in_height
        right = (d.out_width - 1) * d.stride + d.kernel_w - d.pad_left - d.in_width
        return self._crop(x, min(below, 0), min(right, 0)), [d.pad_top, d.pad_left, max(below, 0), max(right, 0)]

    def _crop(self, x: str, below: int, right: int) -> str:
        """Cut ``-below`` rows and ``-right`` columns off; with windows that step over them, all of the outputs stay."""
        if not below and not right:
            return x
        big = np.iinfo(np.int64).max
        ends = self.constant([below or big, right or big], np.int64)
        return self.node("Slice", [x, self.constant([0, 0], np.int64), ends, self.constant([1, 2], np.int64)])

    def _weights(self, layer: _Layer, w: NDArray[np.int8], unsigned: bool) -> tuple[str, str]:
        """Constants of the weights and their zero point: int8 where that is exact, else uint8 around 128."""
        if layer.int8_is_exact and not unsigned:
            return self.constant(w), self.constant(0, np.int8)
        return self.constant((w.astype(np.int16) + 128).astype(np.uint8)), self.constant(128, np.uint8)

    def _qlinear_conv(self, layer: _Layer, x: str, pads: list[int]) -> str:
        one, d = self.constant(1, np.float32), layer.d
        w, w_zero = self._weights(layer, layer.weights, unsigned=False)
        inputs = [x, one, self.constant(layer.step.source.zero_point, np.uint8), w]
        inputs += [self.constant(np.ldexp(np.float32(1), -layer.shift), np.float32), w_zero]
        inputs += [one, self.constant(layer.zero_point, np.uint8), self.constant(layer.bias, np.int32)]
        return self.node(
            "QLinearConv",
            inputs,
            domain=MICROSOFT,
            channels_last=1,
            kernel_shape=[d.kernel_h, d.kernel_w],
            strides=[d.stride] * 2,
            pads=pads,
        )

    def _matmul(self, layer: _Layer, x: str, residual: Tensor) -> str:
        w, w_zero = self._weights(layer, layer.weights[:, :, 0, 0].T, unsigned=False)
        scale = np.ldexp(np.float32(1), -layer.shift).astype(np.float32)
        inputs = [x, w, self.constant(1, np.float32), self.constant(scale)]
        inputs += [self.constant(layer.step.source.zero_point, np.uint8), w_zero]
        inputs += [self.constant(np.ldexp(layer.bias.astype(np.float64), -layer.shift), np.float32)]
        total = self.node("MatMulIntegerToFloat", inputs, domain=MICROSOFT)
        step = np.ldexp(np.float32(1), layer.res_shift - layer.shift).astype(np.float32)
        if (step == step[0]).all():
            addend = self.node(
                "DequantizeLinear",
                [residual.name, self.constant(step[0], np.float32), self.constant(residual.zero_point, np.uint8)],
            )
        else:
            zeros = np.full(len(step), residual.zero_point, np.uint8)
            addend = self.node("DequantizeLinear", [residual.name, self.constant(step), self.constant(zeros)], axis=3)
        total = self.node("Add", [total, addend])
        return self.node(
            "QuantizeLinear", [total, self.constant(1, np.float32), self.constant(layer.zero_point, np.uint8)]
        )

    def _conv_integer(self, layer: _Layer, x: str, pads: list[int]) -> str:
        d, residual = layer.d, layer.step.residual
        w, w_zero = self._weights(layer, layer.weights, unsigned=True)
        x = self.node("Transpose", [x], perm=[0, 3, 1, 2])
        inputs = [x, w, self.constant(layer.step.source.zero_point, np.uint8), w_zero]
        acc = self.node("ConvInteger", inputs, kernel_shape=[d.kernel_h, d.kernel_w], strides=[d.stride] * 2, pads=pads)
        acc = self.cast(self.node("Transpose", [acc], perm=[0, 2, 3, 1]), TensorProto.DOUBLE)
        total = self.node("Add", [acc, self.constant(layer.bias, np.float64)])
        if residual:
            value = self.cast(residual.name, TensorProto.DOUBLE)
            value = self.node("Sub", [value, self.constant(residual.zero_point, np.float64)])
            step = self.constant(np.ldexp(1.0, layer.res_shift), np.float64)
            total = self.node("Add", [total, self.node("Mul", [value, step])])
        total = self.node("Mul", [total, self.constant(np.ldexp(1.0, -layer.shift), np.float64)])
        return self.node("Add", [self.node("Round", [total]), self.constant(layer.zero_point, np.float64)])

    def _clip(self, layer: _Layer, y: str, narrow: bool) -> str:
        """Clip to the layer's limits; ``narrow`` also turns float64 into uint8, the others come as saturated uint8."""
        low, high = (limit + layer.zero_point for limit in (layer.d.clip_low, layer.d.clip_high))
        if narrow:
            limits = [self.constant(low, np.float64), self.constant(high, np.float64)]
            return self.cast(self.node("Clip", [y, *limits]), TensorProto.UINT8)
        if (low, high) == (0, 255):
            return y
        return self.node("Clip", [y, self.constant(low, np.uint8), self.constant(high, np.uint8)])

    # Pooling ---------------------------------------------------------------------------------------------------------

    def _pool(self, layer: _Layer, y: str) -> str:
        d = layer.d
        if d.pool_mode == Pool.NONE:
            return y
        if d.pool_mode == Pool.GLOBAL_SUM:
            return self._global_sum(d, y, len(layer.weights), layer.zero_point)
        below = (d.pooled_height - 1) * d.pool_stride + d.pool_kernel - d.pool_pad - d.out_height
        right = (d.pooled_width - 1) * d.pool_stride + d.pool_kernel - d.pool_pad - d.out_width
        y = self._crop(y, min(below, 0), min(right, 0))
        frame = [0, d.pool_pad, d.pool_pad, 0, 0, max(below, 0), max(right, 0), 0]
        if any(frame):
            y = self.node("Pad", [y, self.constant(frame, np.int64), self.constant(layer.zero_point, np.uint8)])
        if d.pool_mode == Pool.MAX:
            return self.node(
                "NhwcMaxPool",
                [y],
                domain=MICROSOFT,
                kernel_shape=[d.pool_kernel] * 2,
                strides=[d.pool_stride] * 2,
            )
        return self._average(d, y, layer.zero_point)

    def _global_sum(self, d: LayerDescriptor, y: str, lanes: int, zero_point: int) -> str:
        """Sums over all pixels as a product with a row of ones: uint8 x uint8 in 32 bits, ten times as fast as ReduceSum."""
        pixels = self.node("Reshape", [y, self.constant([0, d.out_height * d.out_width, lanes], np.int64)])
        ones = self.constant(np.ones((1, 1, d.out_height * d.out_width)), np.uint8)
        zeros = [self.constant(0, np.uint8), self.constant(zero_point, np.uint8)]
        return self.node("Squeeze", [self.node("MatMulInteger", [ones, pixels, *zeros]), self.constant([1], np.int64)])

    def _average(self, d: LayerDescriptor, y: str, zero_point: int) -> str:
        """The windows' sums as shifted slices, scaled and rounded in float32: at most nine bytes, so exact."""
        y = self.cast(y, TensorProto.FLOAT)
        if zero_point:
            y = self.node("Sub", [y, self.constant(zero_point, np.float32)])
        steps, axes = self.constant([d.pool_stride] * 2, np.int64), self.constant([1, 2], np.int64)
        span = np.array([d.pooled_height - 1, d.pooled_width - 1]) * d.pool_stride + 1
        parts = [
            self.node("Slice", [y, self.constant(at, np.int64), self.constant(at + span, np.int64), axes, steps])
            for at in (np.array([row, column]) for row in range(d.pool_kernel) for column in range(d.pool_kernel))
        ]
        mean = self.node("Mul", [self.node("Sum", parts), self.constant(2.0**-d.pool_shift, np.float32)])
        mean = self.node("Add", [self.node("Round", [mean]), self.constant(zero_point, np.float32)])
        limits = [self.constant(0, np.float32), self.constant(255, np.float32)]
        return self.cast(self.node("Clip", [mean, *limits]), TensorProto.UINT8)
