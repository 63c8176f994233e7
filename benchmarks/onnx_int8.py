"""ResNet-50 as ONNX Runtime's own quantiser writes it: QLinearConv and QLinearAdd, 8 bits between all operators, channels first.

The yardstick for the emulator's speed. It rounds every sum before the residual is added, so it is not our arithmetic; its weights are
random, since its speed does not depend on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from driver.onnx_runtime import MICROSOFT, model_of

STAGES = (3, 4, 6, 3)
SIZE = 224


class _Int8Network:
    """The nodes of the graph under construction; each method returns the name of its output and whether that is offset by 128."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {
            "one": np.array(1, np.float32),
            "zero": np.array(0, np.uint8),
            "middle": np.array(128, np.uint8),
            "weights_zero": np.array(0, np.int8),
        }
        self._rng = np.random.default_rng(seed)

    def node(self, operator: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        output = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def conv(self, x: str, inputs: int, filters: int, kernel: int, stride: int = 1, zero: str = "zero") -> str:
        """A convolution; with ``zero`` = "zero" the output is clipped at 0, which is the ReLU."""
        name = f"conv{len(self.nodes)}"
        self.constants[f"{name}_w"] = self._rng.integers(-127, 128, (filters, inputs, kernel, kernel)).astype(np.int8)
        spread = 74 * 74 * np.sqrt(inputs * kernel**2) / 64
        self.constants[f"{name}_scale"] = np.full(filters, 1 / spread, np.float32)
        self.constants[f"{name}_bias"] = self._rng.integers(-1000, 1000, filters).astype(np.int32)
        scales = [f"{name}_w", f"{name}_scale", "weights_zero", "one", zero, f"{name}_bias"]
        return self.node(
            "QLinearConv",
            [x, "one", "zero", *scales],
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
        )

    def add(self, x: str, shortcut: str, shortcut_zero: str) -> str:
        inputs = [x, "one", "middle", shortcut, "one", shortcut_zero, "one", "zero"]
        return self.node("QLinearAdd", inputs, domain=MICROSOFT)


def resnet50(version: str, seed: int = 1) -> onnx.ModelProto:
    """The model: ``image`` uint8 [batch, 3, 224, 224] to uint8 [batch, 2048, 1, 1]. ``version``: "v1" or "v1.5"."""
    net = _Int8Network(seed)
    x = net.conv("image", 3, 64, 7, 2)
    x = net.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inputs = 64
    for stage, blocks in enumerate(STAGES):
        width = 64 << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            first, second = (stride, 1) if version == "v1" else (1, stride)
            shortcut, zero = (x, "zero") if block else (net.conv(x, inputs, 4 * width, 1, stride, "middle"), "middle")
            y = net.conv(net.conv(x, inputs, width, 1, first), width, width, 3, second)
            x = net.add(net.conv(y, width, 4 * width, 1, zero="middle"), shortcut, zero)
            inputs = 4 * width
    pool = net.node("QLinearGlobalAveragePool", [x, "one", "zero", "one", "zero"], domain=MICROSOFT, channels_last=0)
    graph = helper.make_graph(
        net.nodes,
        "resnet50_int8",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(pool, TensorProto.UINT8, ["batch", inputs, 1, 1])],
        [numpy_helper.from_array(value, name) for name, value in net.constants.items()],
    )
    return model_of(graph)
