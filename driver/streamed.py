"""What a layer-pipelined network of the HLS route looks like from outside: how images and features lie in memory.

``make hls`` writes it as network.json beside the projects; the bitstream needs it beside it. The format is hls/vitis/cpp/axi_ports.h's:
elements as fields of 8, 16 or 32 bits, lowest first, each word (a pixel with all its channels) in whole beats of 32 bits.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BEAT_BYTES = 4
"""Of the streams at both ends."""


@dataclass(frozen=True)
class Port:
    """One end of a network: ``words`` an image, each of ``channels`` integers of ``field_bits`` in steps of 2**-fraction_bits."""

    words: int
    channels: int
    field_bits: int
    fraction_bits: int
    signed: bool

    @property
    def dtype(self) -> np.dtype[np.signedinteger | np.unsignedinteger]:
        """Of a field in memory, little-endian."""
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.field_bits // 8}")

    @property
    def fields(self) -> int:
        """Fields that a word takes, with those that fill its last beat."""
        return -(-self.channels * self.field_bits // (8 * BEAT_BYTES)) * (8 * BEAT_BYTES) // self.field_bits

    @property
    def nbytes(self) -> int:
        """Of an image or its features in memory."""
        return self.words * self.fields * self.field_bits // 8


@dataclass(frozen=True)
class StreamedNetwork:
    """A network between two streams. ``shape``: of an image, [height, width, channels]."""

    shape: tuple[int, int, int]
    image: Port
    features: Port

    def pack(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image, uint8 [height, width, channels], as the bytes that go into the network. Raises ValueError for another."""
        if image.dtype != np.uint8 or image.shape != self.shape:
            raise ValueError(
                f"the network takes images uint8 {list(self.shape)}, not {image.dtype} {list(image.shape)}"
            )
        fields = np.zeros((self.image.words, self.image.fields), np.uint8)
        fields[:, : self.image.channels] = image.reshape(self.image.words, self.image.channels)
        return fields.reshape(-1)

    def unpack(self, data: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Features, float64 [words x channels], from the bytes that came out of the network; exact."""
        port = self.features
        fields = data.view(port.dtype).reshape(port.words, port.fields)[:, : port.channels]
        return np.ldexp(fields.astype(np.float64), -port.fraction_bits).reshape(-1)

    @classmethod
    def load(cls, path: Path) -> StreamedNetwork:
        """Read network.json. Raises FileNotFoundError, ValueError for anything else."""
        try:
            facts = json.loads(path.read_text())
            height, width, channels = facts["shape"]
            found = cls((height, width, channels), Port(**facts["image"]), Port(**facts["features"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not describe a network of `make hls`: {error!r}") from error
        if found.image.field_bits != 8 or found.image.words * found.image.channels != height * width * channels:
            raise ValueError(f"{path}: images of {list(found.shape)} are not {found.image}")
        return found

    def json(self) -> str:
        """The text of network.json."""
        return json.dumps(asdict(self), indent=2) + "\n"
