"""ONNX Runtime: its sessions, and how its 8-bit kernels add on this CPU."""

from __future__ import annotations

from enum import Enum
from functools import cache

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


class Kernels(Enum):
    """What this CPU's uint8 x int8 kernels of ONNX Runtime do with large products."""

    EXACT = "add them in 32 bits"
    PAIRS = "add neighbouring pairs in 16 bits, saturating"
    UNKNOWN = "something else: only uint8 x uint8 is used"


def model_of(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A graph of ONNX's and ONNX Runtime's operators as a model, in versions that ONNX Runtime has read for years."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)])
    model.ir_version = 8
    return model


def session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """A session on the CPU with ``threads`` threads (0: one a core)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Nobody but onnx_graph decides what is 8 bits wide.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@cache
def kernels_of_this_cpu() -> Kernels:
    """Find out by multiplying 255 by 127 in every pair of 16 lanes."""
    lanes = 16
    pairs = [(i, j) for j in range(lanes) for i in range(j)]
    weights = np.zeros((lanes, len(pairs)), np.int8)
    for column, pair in enumerate(pairs):
        weights[list(pair), column] = 127
    one, zero = np.float32(1), np.uint8(0)
    constants = {"w": weights, "one": one, "zero": zero, "wz": np.int8(0)}
    graph = helper.make_graph(
        [helper.make_node("MatMulIntegerToFloat", ["x", "w", "one", "one", "zero", "wz"], ["y"], domain=MICROSOFT)],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, lanes])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, len(pairs)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    (sums,) = session(model_of(graph), 1).run(None, {"x": np.full((1, lanes), 255, np.uint8)})
    wrong = [pair for pair, value in zip(pairs, sums[0], strict=True) if value != 2 * 255 * 127]
    if not wrong:
        return Kernels.EXACT
    return Kernels.PAIRS if wrong == [(i, i + 1) for i in range(0, lanes, 2)] else Kernels.UNKNOWN
