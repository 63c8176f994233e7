"""hls4ml ModelGraph -> fused layers.

A fused layer is the longest chain ``[pad] conv [add] activation [[pad] pool]`` that ends in a tensor which others read. The graph is
walked backwards from its output, each layer's input before its residual, so that the layers come out in an order that keeps few tensors
alive: a shortcut's projection runs just before the convolution that adds it.

All numbers become integers here, and nothing may be lost on the way: weights off their grid, sums that hls4ml would round and values
that it would wrap are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hls.npu.fixed import Fixed, weight_integers
from hls.npu.layer import CompileError, FusedLayer, Pooling, Tensor
from hls.npu.prove import accumulator_bounds
from hw.isa import Pool

if TYPE_CHECKING:
    from hls4ml.model.graph import ModelGraph

ADVICE = {
    "Dense": "end the network before it and run it on the host, like the classifier on the features",
    "Softmax": "end the network before it and run it on the host",
    "BatchNormalization": "fold it into the convolution before quantisation",
    "ApplyAlpha": "quantise weights with alpha=1",
    "DepthwiseConv2D": "use an ordinary convolution",
    "SeparableConv2D": "use an ordinary convolution",
    "Concatenate": "use Add, as a ResNet does",
}
"""What to do about layers that have no place on the NPU."""


def lower(graph: ModelGraph) -> list[FusedLayer]:
    """The fused layers of ``graph`` in the order in which they run. Raises CompileError with the layer's name."""
    return _Lowering(graph).layers


class _Lowering:
    """One walk over one graph."""

    def __init__(self, graph: ModelGraph) -> None:
        nodes = list(graph.get_layers())
        self.producers = {name: node for node in nodes for name in node.outputs}
        self.readers: dict[str, list[Any]] = {}
        for node in nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.layers: list[FusedLayer] = []
        self.tensors: dict[str, Tensor] = {}
        self.ranges: dict[str, tuple[int, int]] = {}
        if len(graph.inputs) != 1 or len(graph.outputs) != 1:
            raise CompileError(
                nodes[0].name,
                f"the network has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs",
                "give it one of each",
            )
        self.result = self.producers[graph.outputs[0]]
        self.tensor(graph.outputs[0])

    def tensor(self, name: str) -> Tensor:
        """The stored tensor behind a name of the graph; lowers whatever makes it, once."""
        if name not in self.tensors:
            node = self.producers[name]
            self.tensors[name] = self.image(node) if node.class_name == "Input" else self.fuse(node)
        return self.tensors[name]

    def image(self, node: Any) -> Tensor:
        """The input, which must be 8 unsigned bits."""
        kind = Fixed.of(node)
        shape = node.get_output_variable().shape
        if kind.low < 0 or kind.high != 255 or len(shape) != 3:
            raise CompileError(
                node.name,
                f"the input is {kind} {list(shape)}",
                "give it [height, width, channels] of ufixed<8,0>, as hls.convert does",
            )
        self.ranges[node.name] = (0, 255)
        height, width, channels = shape
        return Tensor(node.name, height, width, channels, fraction_bits=kind.fraction)

    def fuse(self, end: Any) -> Tensor:
        """Lower the chain that ends at ``end`` to one layer; returns its output."""
        pool, activation = self.match_pool(end)
        if activation.class_name != "Activation":
            raise self.refusal(activation)
        quantiser = self.quantiser(activation)
        body = self.before(activation)
        add = body if body.class_name == "Merge" else None
        conv, other = self.match_add(add) if add is not None else (body, None)
        if conv.class_name not in ("Conv2D", "PointwiseConv2D"):
            raise CompileError(
                activation.name,
                f"requantises the result of {conv.name}, a {conv.class_name}",
                "the NPU requantises what a convolution leaves: remove this activation, or put a convolution before it",
            )

        source, pad_top, pad_left = self.match_pad(conv.inputs[0])
        x = self.tensor(source)
        residual = self.tensor(other) if other is not None else None
        weights, bias, fraction = self.weights(conv, x)
        low, high = accumulator_bounds(weights, bias, *self.ranges[source])
        self.check_holds(conv, low, high, fraction)
        res_shift = None
        if residual is not None and other is not None:
            step = fraction - residual.fraction_bits
            if step < 0:
                raise CompileError(
                    conv.name,
                    f"its sums have {fraction} fraction bits, the residual {residual.name} has {residual.fraction_bits}",
                    "quantise the residual more coarsely, or the weights more finely",
                )
            res_shift = np.full(len(weights), step)
            res_low, res_high = self.ranges[other]
            self.check_holds(add, low + (res_low << step), high + (res_high << step), fraction)

        shift = fraction - quantiser.fraction
        if shift < 0:
            raise CompileError(
                activation.name,
                f"has {quantiser.fraction} fraction bits, the sums before it only {fraction}",
                "give the activation fewer fraction bits, or the weights more",
            )
        clip_low = 0 if activation.get_attr("activation") == "relu" else quantiser.low
        dtype = "int8" if clip_low < 0 else "uint8"
        shape = end.get_output_variable().shape
        if pool.mode == Pool.GLOBAL_SUM:
            output = Tensor(end.name, 1, 1, shape[-1], "int32", quantiser.fraction)
        else:
            output = Tensor(end.name, shape[0], shape[1], shape[2], dtype, quantiser.fraction)
        self.ranges[end.outputs[0]] = (clip_low, quantiser.high)
        self.layers.append(
            FusedLayer(
                name=conv.name,
                source=x,
                output=output,
                weights=weights,
                bias=bias,
                shift=np.full(len(weights), shift),
                rows=conv.get_attr("out_height"),
                columns=conv.get_attr("out_width"),
                stride=self.stride(conv, "stride_height", "stride_width"),
                pad_top=pad_top + conv.get_attr("pad_top", 0),
                pad_left=pad_left + conv.get_attr("pad_left", 0),
                residual=residual,
                res_shift=res_shift,
                clip_low=clip_low,
                clip_high=quantiser.high,
                pool=pool,
            )
        )
        return output

    # Patterns, from the end of a chain backwards ----------------------------------------------------------------------

    def match_pool(self, end: Any) -> tuple[Pooling, Any]:
        """(pooling, the activation whose result is pooled) of a chain that ends at ``end``."""
        if end.class_name == "GlobalPooling2D":
            if end.get_attr("pool_op") != "Average":
                raise CompileError(end.name, "is a global maximum", "use GlobalAveragePooling2D")
            if end is not self.result:
                raise CompileError(
                    end.name, "its sums are read by another layer", "end the network here and run the rest on the host"
                )
            return Pooling(Pool.GLOBAL_SUM), self.before(end)
        if end.class_name == "Pooling2D" and end.get_attr("pool_op") == "Max":
            return self.match_max(end)
        if end.class_name == "Activation" and self.producers[end.inputs[0]].class_name == "Pooling2D":
            return self.match_average(end)
        if end.class_name == "Pooling2D":
            raise CompileError(
                end.name,
                "its average is not requantised",
                "put the QActivation before the pool also after it",
            )
        return Pooling(), end

    def match_max(self, end: Any) -> tuple[Pooling, Any]:
        name, top, left = self.match_pad(end.inputs[0])
        own = [end.get_attr(f"pad_{side}", 0) for side in ("top", "left", "bottom", "right")]
        activation = self.before(end) if name == end.inputs[0] else self.before(self.producers[end.inputs[0]])
        if any(own) and activation.class_name == "Activation" and self.quantiser(activation).low < 0:
            raise CompileError(
                end.name, "pads negative values by 'same'", "use ZeroPadding2D and padding='valid', or a ReLU before"
            )
        top, left = top + own[0], left + own[1]
        if top != left or end.get_attr("pool_height") != end.get_attr("pool_width"):
            raise CompileError(
                end.name,
                f"pools {end.get_attr('pool_height')}x{end.get_attr('pool_width')} padded by {top} above and {left} left",
                "pool squares, padded alike above and to the left",
            )
        return Pooling(
            Pool.MAX, end.get_attr("pool_height"), self.stride(end, "stride_height", "stride_width"), top
        ), activation

    def match_average(self, end: Any) -> tuple[Pooling, Any]:
        """activation, 2x2 average, the same activation again: one rounding after the sum, as the NPU does it."""
        pool = self.before(end)
        inner = self.before(pool)
        if pool.get_attr("pool_op") != "Average" or inner.class_name != "Activation":
            raise CompileError(
                end.name, f"requantises {pool.name}", "remove this activation: a maximum keeps its scale"
            )
        size = (pool.get_attr("pool_height"), pool.get_attr("pool_width"))
        pads = [pool.get_attr(f"pad_{side}", 0) for side in ("top", "left", "bottom", "right")]
        if size != (2, 2) or any(pads):
            raise CompileError(
                pool.name,
                f"averages {size[0]}x{size[1]}{' with padding' if any(pads) else ''}",
                "the NPU averages 2x2 without: use that, a stride-2 convolution, a max pool or a global average",
            )
        before, after = self.quantiser(inner), self.quantiser(end)
        if before != after:
            raise CompileError(
                end.name, f"is {after}, before the pool it was {before}", "use the same quantiser on both sides"
            )
        low, high = np.array([4 * before.low]), np.array([4 * before.high])
        self.check_holds(pool, low, high, before.fraction + 2)
        return Pooling(Pool.AVERAGE, 2, self.stride(pool, "stride_height", "stride_width")), inner

    def match_add(self, add: Any) -> tuple[Any, str]:
        """(convolution that is fused, name of the residual) of an Add."""
        if add.get_attr("op") != "add" or len(add.inputs) != 2:
            raise CompileError(add.name, f"is {add.get_attr('op')} of {len(add.inputs)} tensors", "use Add of two")
        sums = [name for name in add.inputs if self.producers[name].class_name in ("Conv2D", "PointwiseConv2D")]
        if len(sums) == 2:
            raise CompileError(
                add.name,
                "adds two convolutions that are not quantised",
                "put QActivation(quantized_bits(8, I, symmetric=0, alpha=1)) on one of them: it becomes the residual",
            )
        if not sums:
            raise CompileError(
                add.name,
                "adds no convolution's exact result",
                "leave out the quantiser between one of the convolutions and the Add",
            )
        conv = self.before(add, sums[0])
        return conv, next(name for name in add.inputs if name != sums[0])

    def match_pad(self, name: str) -> tuple[str, int, int]:
        """(tensor, rows above, columns to the left) behind ZeroPadding2D layers, which cost nothing."""
        node, top, left = self.producers[name], 0, 0
        while node.class_name == "ZeroPadding2D":
            top, left = top + node.get_attr("pad_top"), left + node.get_attr("pad_left")
            name = node.inputs[0]
            node = self.producers[name]
        return name, top, left

    def before(self, node: Any, name: str | None = None) -> Any:
        """The node that makes ``node``'s input, which must be read by ``node`` alone for the two to become one layer."""
        name = name or node.inputs[0]
        others = [reader.name for reader in self.readers[name] if reader is not node]
        if others:
            raise CompileError(
                self.producers[name].name,
                f"is read by {', '.join(others)} besides {node.name}, so it cannot be fused with {node.name}",
                "let only one layer read it",
            )
        return self.producers[name]

    def stride(self, node: Any, down: str, across: str) -> int:
        """The stride, which must be the same both ways."""
        if node.get_attr(down) != node.get_attr(across):
            raise CompileError(
                node.name,
                f"strides {node.get_attr(down)} down and {node.get_attr(across)} across",
                "stride alike both ways",
            )
        return int(node.get_attr(down))

    def refusal(self, node: Any) -> CompileError:
        """Why a layer that stands where an activation should cannot run."""
        if node.class_name in ("Conv2D", "PointwiseConv2D", "Merge"):
            return CompileError(
                node.name,
                "its result is not quantised to 8 bits",
                "put QActivation(quantized_relu(8, I)) or QActivation(quantized_bits(8, I, symmetric=0, alpha=1)) after it",
            )
        kind = node.get_attr("class_name", node.class_name)
        advice = ADVICE.get(node.class_name, "the NPU runs convolutions with bias, add, quantised ReLU and pooling")
        return CompileError(node.name, f"the NPU has no {kind} here", advice)

    # Numbers ----------------------------------------------------------------------------------------------------------

    def quantiser(self, activation: Any) -> Fixed:
        """The activation's type: at most 8 bits, rounding half to even, saturating."""
        function = activation.get_attr("activation")
        if function not in ("relu", "linear"):
            raise CompileError(activation.name, f"the NPU has no {function}", "use quantized_relu or quantized_bits")
        kind = Fixed.of(activation)
        if not kind.rounds_half_even or not kind.saturates or kind.width > 8:
            raise CompileError(
                activation.name,
                f"its result is {kind}",
                "quantise to 8 bits with RND_CONV and SAT, as hls.convert does for QKeras activations",
            )
        return kind

    def weights(self, conv: Any, x: Tensor) -> tuple[NDArray[np.int8], NDArray[np.int64], int]:
        """(weights [c_out, c_in, kh, kw], bias at accumulator scale, fraction bits of the accumulator)."""
        kernel, f_weights = weight_integers(conv, "weight")
        if kernel.min() < -128 or kernel.max() > 127:
            raise CompileError(
                conv.name, f"its weights run from {kernel.min()} to {kernel.max()}", "quantise them to 8 signed bits"
            )
        bias, f_bias = weight_integers(conv, "bias")
        fraction = x.fraction_bits + f_weights
        if (np.ldexp(bias.astype(np.float64), fraction - f_bias) % 1).any():
            raise CompileError(
                conv.name,
                f"its bias has {f_bias} fraction bits, its sums {fraction}",
                "quantise the bias to the sums' scale",
            )
        bias = np.ldexp(bias.astype(np.float64), fraction - f_bias).astype(np.int64)
        shape = (
            conv.get_attr("filt_height"),
            conv.get_attr("filt_width"),
            conv.get_attr("n_chan"),
            conv.get_attr("n_filt"),
        )
        if kernel.size != np.prod(shape):
            raise CompileError(conv.name, f"has {kernel.size} weights, not {shape}", "use an ungrouped convolution")
        return kernel.reshape(shape).transpose(3, 2, 0, 1).astype(np.int8), bias, fraction

    def check_holds(self, node: Any, low: NDArray[np.int64], high: NDArray[np.int64], fraction: int) -> None:
        """Refuse when hls4ml would round or wrap the exact sums ``low`` to ``high`` (in steps of 2**-fraction)."""
        for role in ("accum_t", "result_t"):
            if role not in node.types:
                continue
            kind = Fixed.of(node, role)
            if not kind.holds(int(low.min()), int(high.max()), fraction):
                raise CompileError(
                    node.name,
                    f"hls4ml keeps its sums as {kind}, which rounds or wraps {low.min()}..{high.max()} * 2**-{fraction}",
                    "convert with hls.convert, or widen its result and accum types",
                )
