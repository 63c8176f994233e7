"""hls4ml's fixed-point types and weights, as ranges of integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hls.npu.layer import CompileError


@dataclass(frozen=True)
class Fixed:
    """A fixed-point type: integers ``low`` to ``high`` times 2**-fraction."""

    width: int
    fraction: int
    signed: bool
    rounds_half_even: bool = False
    saturates: bool = False

    @classmethod
    def of(cls, node: Any, role: str = "result_t") -> Fixed:
        """A type of an hls4ml layer; refuses float and other kinds."""
        precision = node.types[role].precision if role != "result_t" else node.get_output_variable().type.precision
        if not all(hasattr(precision, name) for name in ("width", "integer", "signed")):
            raise CompileError(
                node.name, f"its {role} is {precision}", "give it a fixed-point type, as hls.convert does"
            )
        return cls(
            precision.width,
            precision.width - precision.integer,
            precision.signed,
            "RND_CONV" in str(getattr(precision, "rounding_mode", "")),
            str(getattr(precision, "saturation_mode", "")).split(".")[-1] in ("SAT", "AP_SAT"),
        )

    @property
    def low(self) -> int:
        """Smallest integer."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest integer."""
        return (1 << (self.width - self.signed)) - 1

    def holds(self, low: int, high: int, fraction: int) -> bool:
        """Whether all of ``low`` to ``high`` in steps of 2**-fraction are values of this type."""
        finer = self.fraction - fraction
        return finer >= 0 and self.low <= low << finer and high << finer <= self.high

    def __str__(self) -> str:
        mode = (",RND_CONV" if self.rounds_half_even else ",TRN") + (",SAT" if self.saturates else ",WRAP")
        return f"{'' if self.signed else 'u'}fixed<{self.width},{self.width - self.fraction}{mode}>"


def weight_integers(node: Any, role: str) -> tuple[NDArray[np.int64], int]:
    """(integers, fraction bits) of a layer's "weight" or "bias"; refuses values that its type does not hold."""
    variable = node.weights[role]
    precision = variable.type.precision
    if not all(hasattr(precision, name) for name in ("width", "integer", "signed")):
        raise CompileError(node.name, f"its {role} is {precision}", "quantise it with quantized_bits(8, I, alpha=1)")
    kind = Fixed(precision.width, precision.width - precision.integer, precision.signed)
    scaled = np.ldexp(np.asarray(variable.data, np.float64), kind.fraction)
    whole = np.rint(scaled)
    off = whole != scaled
    if off.any():
        raise CompileError(
            node.name,
            f"{int(off.sum())} of its {off.size} {role} values are no multiple of 2**-{kind.fraction} ({kind})",
            "quantise them with QKeras (quantized_bits, alpha=1) before conversion",
        )
    if whole.min() < kind.low or whole.max() > kind.high:
        raise CompileError(
            node.name,
            f"its {role} runs from {whole.min():.0f} to {whole.max():.0f} steps, beyond {kind}",
            "give it a wider type",
        )
    return whole.astype(np.int64), kind.fraction
