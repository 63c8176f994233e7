"""The compiler's intermediate form: a network as a list of fused layers over named tensors, all in integers.

One ``FusedLayer`` is what one descriptor of the NPU does: convolution + bias + residual add + requantise + clip + pool. Nothing here
knows an array configuration, hls4ml or TensorFlow: ``hls.npu.lower`` makes these from a model, a test bench may draw them at random,
and ``hls.npu.emit.compile_layers`` turns them into a program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.isa import ArrayConfig, Pool

BYTE_RANGES = {"uint8": (0, 255), "int8": (-128, 127)}


class CompileError(ValueError):
    """The NPU cannot run this layer. Says which one, why, and what would help."""

    def __init__(self, layer: str, reason: str, advice: str) -> None:
        super().__init__(f"layer {layer!r}: {reason}; {advice}")
        self.layer = layer
        self.reason = reason
        self.advice = advice


@dataclass(frozen=True)
class Tensor:
    """An activation tensor [height, width, channels]; real value = integer * 2**-fraction_bits."""

    name: str
    height: int
    width: int
    channels: int
    dtype: str = "uint8"
    """"uint8" or "int8"; "int32" for the global sums that may end a network."""
    fraction_bits: int = 0

    @property
    def signed(self) -> bool:
        """Whether elements may be negative."""
        return self.dtype != "uint8"

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest element of a byte tensor."""
        return BYTE_RANGES[self.dtype]

    def words(self, config: ArrayConfig) -> int:
        """Activation words that it takes, padding channels included."""
        if self.dtype == "int32":
            return -(-4 * config.blocks_out(self.channels) * config.kp // config.cp)
        return config.blocks_in(self.channels) * self.height * self.width


@dataclass(frozen=True)
class Pooling:
    """What happens to the requantised stream. Windows read zero outside it; ``pad`` counts above and to the left."""

    mode: Pool = Pool.NONE
    kernel: int = 0
    stride: int = 0
    pad: int = 0


@dataclass(frozen=True, eq=False)
class FusedLayer:
    """``output = pool(clip(round_half_even((conv(source) + bias + (residual << res_shift)) >> shift), low, high))``."""

    name: str
    source: Tensor
    output: Tensor
    weights: NDArray[Any]
    """int8 [c_out, c_in, kernel_h, kernel_w]."""
    bias: NDArray[Any]
    """int32 [c_out], at accumulator scale."""
    shift: NDArray[Any]
    """uint8 [c_out], right shift from accumulator to output scale."""
    rows: int
    """Output rows of the convolution, before pooling. Taps below and right of the source read zero, as those above and left."""
    columns: int
    stride: int = 1
    pad_top: int = 0
    pad_left: int = 0
    residual: Tensor | None = None
    res_shift: NDArray[Any] | None = None
    """uint8 [c_out], left shift from residual to accumulator scale."""
    clip_low: int = 0
    clip_high: int = 255
    pool: Pooling = field(default_factory=Pooling)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself; what an array cannot run is ``hls.npu.limits``'s to say."""
        for name, dtype in (("weights", np.int8), ("bias", np.int32), ("shift", np.uint8), ("res_shift", np.uint8)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, self._exact(name, value, dtype))
        if self.weights.ndim != 4:
            raise self.error(f"weights are {self.weights.ndim}-dimensional", "give [c_out, c_in, kernel_h, kernel_w]")
        for name in ("bias", "shift", "res_shift"):
            value = getattr(self, name)
            if value is not None and value.shape != (self.c_out,):
                raise self.error(f"{name} has shape {value.shape}", f"give [{self.c_out}], one per output channel")
        if (self.residual is None) != (self.res_shift is None):
            raise self.error("residual and res_shift must come together", "give both or neither")
        self._check_shapes()

    def _exact(self, name: str, value: Any, dtype: Any) -> NDArray[Any]:
        """``value`` as ``dtype``; an integer that does not fit is refused, never wrapped."""
        value = np.asarray(value)
        info = np.iinfo(dtype)
        if not np.issubdtype(value.dtype, np.integer):
            raise self.error(f"{name} is {value.dtype}", "give integers")
        if value.size and (value.min() < info.min or value.max() > info.max):
            raise self.error(
                f"{name} runs from {value.min()} to {value.max()}, outside {info.min}..{info.max}",
                "choose other scales",
            )
        return value.astype(dtype)

    def _check_shapes(self) -> None:
        if self.source.channels != self.c_in:
            raise self.error(f"weights for {self.c_in} channels on {self.source.channels}", "match the source")
        kinds: tuple[str, ...] = tuple(BYTE_RANGES)
        if self.pool.mode == Pool.GLOBAL_SUM:
            expected = (1, 1, self.c_out)
            kinds = ("int32",)
        elif self.pool.mode == Pool.NONE:
            expected = (self.rows, self.columns, self.c_out)
        else:
            expected = (self.output.height, self.output.width, self.c_out)
        found = (self.output.height, self.output.width, self.output.channels)
        if found != expected or self.output.dtype not in kinds:
            raise self.error(f"its output is {self.output.dtype} {found}", f"make it {' or '.join(kinds)} {expected}")
        res = self.residual
        if res and (res.height, res.width, res.channels) != (self.rows, self.columns, self.c_out):
            raise self.error(
                f"the residual is {(res.height, res.width, res.channels)}",
                f"make it the convolution's {(self.rows, self.columns, self.c_out)}",
            )
        ranges = BYTE_RANGES.values() if self.output.dtype == "int32" else [self.output.range]
        if not any(low <= self.clip_low <= self.clip_high <= high for low, high in ranges):
            raise self.error(
                f"clips to {self.clip_low}..{self.clip_high}, which {self.output.dtype} elements do not hold",
                "clip to the output's range",
            )

    def error(self, reason: str, advice: str) -> CompileError:
        """A CompileError about this layer."""
        return CompileError(self.name, reason, advice)

    @property
    def c_out(self) -> int:
        """Output channels."""
        return int(self.weights.shape[0])

    @property
    def c_in(self) -> int:
        """Input channels."""
        return int(self.weights.shape[1])

    @property
    def kernel(self) -> tuple[int, int]:
        """Taps down and across."""
        return int(self.weights.shape[2]), int(self.weights.shape[3])

    @property
    def macs(self) -> int:
        """Multiply-accumulates, taps on padding included (the usual count)."""
        return self.rows * self.columns * int(self.weights.size)

    def passes(self, config: ArrayConfig) -> int:
        """Weight tiles that one tile of pixels accumulates over."""
        return config.blocks_in(self.c_in) * self.kernel[0] * self.kernel[1]
