"""How the host lays an image into activation words, and the stem weights that match.

A first convolution of few channels would leave most of the array's input lanes idle. With ``block = stride`` the image becomes
space-to-depth: each block x block patch is one position, so the stride goes to 1. With ``columns`` neighbouring positions gathered into one
word, the taps across disappear as well. ResNet's 7x7/2 on 3 channels becomes 4x1/1 on 48 channels: 4 passes instead of 49.
All padding happens here, on the host. ``block = columns = 1`` is the plain layout.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageLayout:
    """From an image [height, width, channels] to the tensor [rows, cols, lanes] that the first layer reads."""

    height: int
    width: int
    channels: int
    block: int = 1
    """Space-to-depth factor; 1 leaves pixels as they are."""
    columns: int = 1
    """Neighbouring positions gathered into one word."""
    pad_top: int = 0
    pad_left: int = 0
    rows: int = 0
    cols: int = 0

    @classmethod
    def plain(cls, height: int, width: int, channels: int) -> ImageLayout:
        """The image as it is."""
        return cls(height, width, channels, rows=height, cols=width)

    @classmethod
    def for_stem(
        cls, image: tuple[int, int, int], kernel: int, stride: int, pad: int, out: tuple[int, int]
    ) -> ImageLayout:
        """The layout under which a ``kernel`` x ``kernel`` / ``stride`` convolution becomes ``taps`` x 1 / 1."""
        taps = math.ceil(kernel / stride)
        return cls(*image, block=stride, columns=taps, pad_top=pad, pad_left=pad, rows=out[0] + taps - 1, cols=out[1])

    @property
    def lanes(self) -> int:
        """Channels of the laid-out tensor."""
        return self.columns * self.block**2 * self.channels

    @property
    def taps(self) -> int:
        """Kernel rows of the rewritten convolution."""
        return self.columns

    def arrange(self, image: NDArray[Any]) -> NDArray[Any]:
        """[height, width, channels] -> [rows, cols, lanes], lane = ((column * block + dy) * block + dx) * channels + c.

        Raises ValueError when the image has another shape.
        """
        expected = (self.height, self.width, self.channels)
        if image.shape != expected:
            raise ValueError(f"the image is {image.shape}, the program expects {expected}")
        b, wide = self.block, self.cols + self.columns - 1
        padded = np.zeros((self.rows * b, wide * b, self.channels), image.dtype)
        # Rows and columns that no output reads (an even kernel tail) are cut off.
        h = min(self.height, self.rows * b - self.pad_top)
        w = min(self.width, wide * b - self.pad_left)
        padded[self.pad_top : self.pad_top + h, self.pad_left : self.pad_left + w] = image[:h, :w]
        # Pixels and words move as opaque items, a copy each: several times as fast as element by element.
        pixels = b * self.channels * image.itemsize
        rows = padded.reshape(self.rows, b, wide * b * self.channels).view(f"V{pixels}")
        depth = np.ascontiguousarray(rows.transpose(0, 2, 1))
        # A word holds neighbouring positions, and these are neighbours in memory too.
        strides = (depth.strides[0], b * pixels)
        words: NDArray[Any] = np.ndarray(
            (self.rows, self.cols), f"V{self.columns * b * pixels}", depth, strides=strides
        ).copy()
        return words.view(image.dtype).reshape(self.rows, self.cols, self.lanes)

    def word_bytes(self, cp: int, port_bytes: int) -> int:
        """Bytes of an activation word that carry lanes of the image, in whole beats; the others need not be sent."""
        return math.ceil(min(self.lanes, cp) / port_bytes) * port_bytes

    def pack(self, image: NDArray[Any], cp: int, word_bytes: int) -> NDArray[np.uint8]:
        """The first ``word_bytes`` bytes of each activation word, [blocks * rows * cols, word_bytes], as the NPU reads them."""
        tensor = self.arrange(image)
        if self.lanes == word_bytes <= cp:
            return tensor.astype(np.uint8, copy=False).reshape(-1, word_bytes)
        blocks = math.ceil(self.lanes / cp)
        out = np.zeros((blocks, self.rows, self.cols, word_bytes), np.uint8)
        for block in range(blocks):
            part = tensor[:, :, block * cp : (block + 1) * cp]
            out[block, :, :, : part.shape[2]] = part
        return out.reshape(-1, word_bytes)

    def rewrite_weights(self, weights: NDArray[Any]) -> NDArray[Any]:
        """[c_out, channels, k, k] of the original convolution -> [c_out, lanes, taps, 1]."""
        c_out, channels, k, _ = weights.shape
        span = self.taps * self.block
        full = np.zeros((c_out, channels, span, span), weights.dtype)
        full[:, :, :k, :k] = weights
        split = full.reshape(c_out, channels, self.taps, self.block, self.taps, self.block)
        # [c_out, c, ty, dy, tx, dx] -> lanes (tx, dy, dx, c), taps ty
        return split.transpose(0, 4, 3, 5, 1, 2).reshape(c_out, self.lanes, self.taps, 1)

    def to_json(self) -> dict[str, int]:
        """Plain numbers for the program file."""
        return asdict(self)
