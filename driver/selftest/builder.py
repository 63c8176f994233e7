"""Writes small programs for any array straight from the instruction set: a board has no compiler, and a self-test needs none.

Every tensor gets activation banks of its own, so nothing is ever read and written in the same bank. For networks, ``hls.npu`` compiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.image_layout import ImageLayout
from hw.isa import ArrayConfig, LayerDescriptor, Pool, ProgramHeader
from hw.program import Output, Program
from hw.stream import StreamLayer, encode


@dataclass(frozen=True)
class Tensor:
    """An activation tensor [height, width, channels] at word ``base``."""

    base: int
    height: int
    width: int
    channels: int
    signed: bool = False


@dataclass(frozen=True)
class Pooling:
    """``hw.isa.Pool`` with its window; ``shift`` divides an average."""

    mode: Pool
    kernel: int = 0
    stride: int = 0
    pad: int = 0
    shift: int = 0

    def size(self, extent: int) -> int:
        """Pooled rows or columns of ``extent``."""
        return (extent + 2 * self.pad - self.kernel) // self.stride + 1


NO_POOL = Pooling(Pool.NONE)


class Builder:
    """Collects layers on ``image``, which becomes ``Program.image``; program() ends it."""

    def __init__(self, name: str, config: ArrayConfig, image: ImageLayout) -> None:
        self._name, self._config, self._layout = name, config, image
        self._next_bank = 0
        self._layers: list[StreamLayer] = []
        self._macs = 0
        words = config.blocks_in(image.lanes) * image.rows * image.cols
        self.image = Tensor(self._allocate(words), image.rows, image.cols, image.lanes)

    def conv(
        self,
        source: Tensor,
        weights: NDArray[Any],
        shift: Any = 0,
        bias: Any = 0,
        *,
        stride: int = 1,
        pad: int = 0,
        residual: Tensor | None = None,
        res_shift: Any = 0,
        clip: tuple[int, int] = (0, 255),
        pool: Pooling = NO_POOL,
    ) -> Tensor:
        """Add a layer; its output. ``weights`` [c_out, c_in, kh, kw]; ``shift``, ``bias`` and ``res_shift`` [c_out] or one number.

        ``pad`` goes to all four sides. The output is signed when ``clip`` reaches below zero.
        """
        c, (c_out, c_in, kh, kw) = self._config, weights.shape
        rows, columns = ((n + 2 * pad - k) // stride + 1 for n, k in ((source.height, kh), (source.width, kw)))
        output, out_words = self._output(c_out, rows, columns, clip[0] < 0, pool)
        padded_in, padded_out = c.blocks_in(c_in) * c.cp, c.blocks_out(c_out) * c.kp
        full = np.zeros((padded_out, padded_in, kh, kw), np.int8)
        full[:c_out, :c_in] = weights

        def per_channel(value: Any, dtype: type) -> NDArray[Any]:
            filled: NDArray[Any] = np.zeros(padded_out, dtype)
            filled[:c_out] = value
            return filled

        tile_rows = math.ceil(rows / math.ceil(rows / (c.acc_depth // columns)))
        descriptor = LayerDescriptor(
            in_origin=source.base - pad * source.width - pad,
            in_width=source.width,
            in_height=source.height,
            in_plane=source.height * source.width,
            in_blocks=c.blocks_in(c_in),
            in_signed=int(source.signed),
            in_is_image=int(source is self.image),
            kernel_h=kh,
            kernel_w=kw,
            stride=stride,
            pad_top=pad,
            pad_left=pad,
            row_step=stride * source.width,
            tile_step=tile_rows * stride * source.width,
            out_width=columns,
            out_height=rows,
            out_blocks=c.blocks_out(c_out),
            tile_rows=tile_rows,
            tiles=math.ceil(rows / tile_rows),
            res_enable=int(residual is not None),
            res_signed=int(residual is not None and residual.signed),
            res_base=residual.base if residual else 0,
            clip_low=clip[0],
            clip_high=clip[1],
            pool_mode=pool.mode,
            pool_kernel=pool.kernel,
            pool_stride=pool.stride,
            pool_pad=pool.pad,
            pool_shift=pool.shift,
            pooled_width=output.width,
            pooled_height=output.height,
            out_base=output.base,
        )
        parameters = per_channel(bias, np.int32), per_channel(shift, np.uint8), per_channel(res_shift, np.uint8)
        self._layers.append(StreamLayer(descriptor, full, *parameters))
        self._macs += rows * columns * weights.size
        self._result, self._result_words, self._sums = output, out_words, pool.mode == Pool.GLOBAL_SUM
        return output

    def program(self, result_words: int | None = None) -> Program:
        """The program; the last layer's output is the result. ``result_words``: only so many words of it are stored."""
        c, layout, out = self._config, self._layout, self._result
        header = ProgramHeader(
            layers=len(self._layers),
            cp=c.cp,
            kp=c.kp,
            stream_bytes=c.stream_bytes,
            acc_depth=c.acc_depth,
            total_words=c.total_words,
            image_base=self.image.base,
            image_words=c.blocks_in(layout.lanes) * layout.rows * layout.cols,
            image_beats=layout.word_bytes(c.cp, c.port_bytes) // c.port_bytes,
            feature_base=out.base,
            feature_words=result_words or self._result_words,
        )
        dtype = "int32" if self._sums else "int8" if out.signed else "uint8"
        return Program(
            name=self._name,
            config=c,
            layer_names=tuple(f"{self._name} {number}" for number in range(len(self._layers))),
            image=layout,
            image_fraction_bits=0,
            output=Output(out.height, out.width, out.channels, dtype, 0),
            macs=self._macs,
            stream=encode(header, self._layers, c),
        )

    def _output(self, channels: int, rows: int, columns: int, signed: bool, pool: Pooling) -> tuple[Tensor, int]:
        """The tensor that a layer writes, and its words."""
        c = self._config
        if pool.mode == Pool.GLOBAL_SUM:
            words = math.ceil(4 * c.blocks_out(channels) * c.kp / c.cp)
            return Tensor(self._allocate(words), 1, 1, channels, signed), words
        if pool.mode != Pool.NONE:
            rows, columns = pool.size(rows), pool.size(columns)
        words = c.blocks_in(channels) * rows * columns
        return Tensor(self._allocate(words), rows, columns, channels, signed), words

    def _allocate(self, words: int) -> int:
        """The first word of banks that nothing else uses. Raises ValueError when there are not enough."""
        first = self._next_bank
        self._next_bank += math.ceil(words / self._config.bank_words)
        if self._next_bank > self._config.banks:
            raise ValueError(f"{self._name} does not fit the {self._config.banks} banks of {self._config.name}")
        return first * self._config.bank_words
