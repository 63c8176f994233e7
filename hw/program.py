"""The program file (.npu): everything a host needs to run one network on one array configuration.

Container, little endian: 8 bytes ``QWNPFILE``, uint32 version, uint32 length of the JSON, the JSON, the weight stream, and the
CRC-32 of all bytes before it. The JSON holds what only the host needs (names, layouts, scales); the hardware reads only the stream
(``hw.stream``). No pickle, no code.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.image_layout import ImageLayout, Packer, fastest_packer
from hw.isa import (
    DESCRIPTOR_BYTES,
    FEATURE_BYTES,
    ArrayConfig,
    ConfigurationError,
    LayerDescriptor,
    ProgramHeader,
    RecordError,
)
from hw.native_packer import NativePacker
from hw.stream import StreamLayer, decode, payload_bytes

FILE_MAGIC = b"QWNPFILE"
FILE_VERSION = 1


class ProgramError(ValueError):
    """A program file is not one, is damaged, or does not fit together."""


@dataclass(frozen=True)
class Output:
    """How to read the result: its shape [height, width, channels], element type and scale.

    A featurizer ends in a global sum: ``dtype`` int32, ``divisor`` pixels, ``fraction_bits`` of the summed activations.
    """

    height: int
    width: int
    channels: int
    dtype: str
    """"int32" (global sums), "uint8" or "int8" (an activation tensor)."""
    fraction_bits: int
    divisor: int = 1


@dataclass(frozen=True)
class Program:
    """A compiled network."""

    name: str
    config: ArrayConfig
    layer_names: tuple[str, ...]
    image: ImageLayout
    image_fraction_bits: int
    output: Output
    macs: int
    """Multiply-accumulates of the network as defined (before the stem rewrite and channel padding), for utilisation."""
    stream: bytes
    metadata: dict[str, Any] = field(default_factory=dict)
    """Free for the compiler's report: placement, scales, provenance."""

    @cached_property
    def header(self) -> ProgramHeader:
        """The first record of the stream."""
        return ProgramHeader.unpack(self.stream[:DESCRIPTOR_BYTES])

    @property
    def beats(self) -> int:
        """Beats each weight port reads."""
        return len(self.stream) // self.config.stream_bytes

    @property
    def image_word_bytes(self) -> int:
        """Bytes of each image word that the host sends."""
        return self.header.image_beats * self.config.port_bytes

    @property
    def image_bytes(self) -> int:
        """Bytes of the packed image."""
        return self.header.image_words * self.image_word_bytes

    @property
    def result_bytes(self) -> int:
        """Bytes the NPU writes for one image (whole words)."""
        return self.header.feature_words * self.config.cp

    def descriptors(self) -> list[LayerDescriptor]:
        """The layers, weights left out."""
        found, at = [], self.config.padded(DESCRIPTOR_BYTES)
        for _ in range(self.header.layers):
            d = LayerDescriptor.unpack(self.stream[at : at + DESCRIPTOR_BYTES])
            found.append(d)
            at += self.config.padded(DESCRIPTOR_BYTES) + payload_bytes(d, self.config)
        return found

    def layers(self) -> list[StreamLayer]:
        """The layers with their weights."""
        return decode(self.stream, self.config)[1]

    def pack_image(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """uint8 [height, width, channels] -> [image_words, image_word_bytes] for the NPU's image buffer. Raises ValueError."""
        self.check_image(image)
        return self.image.pack(image, self.config.cp, self.image_word_bytes)

    def packer(self) -> Packer | NativePacker:
        """What pack_image() does, for one image after another."""
        return fastest_packer(self.image, self.config.cp, self.image_word_bytes)

    def check_image(self, image: NDArray[Any]) -> None:
        """Raise ValueError unless ``image`` is one that the program takes."""
        if image.dtype != np.uint8:
            raise ValueError(f"the image is {image.dtype}, the program expects uint8")
        self.image.check_shape(image.shape)

    def read_result(self, words: NDArray[np.uint8]) -> NDArray[Any]:
        """The integers of the result, [channels] for global sums, else [height, width, channels]."""
        o = self.output
        flat = np.ascontiguousarray(words).reshape(-1)
        if o.dtype == "int32":
            return flat[: FEATURE_BYTES * o.channels].view("<i4").astype(np.int32)
        blocks = self.config.blocks_in(o.channels)
        cube = flat[: blocks * o.height * o.width * self.config.cp].view(o.dtype)
        cube = cube.reshape(blocks, o.height, o.width, self.config.cp).transpose(1, 2, 0, 3)
        return cube.reshape(o.height, o.width, -1)[:, :, : o.channels].copy()

    def features(self, result: NDArray[Any]) -> NDArray[np.float32]:
        """Real values of a result: ``result / divisor * 2**-fraction_bits`` in float64, rounded once to float32.

        This is the one definition of the division after global sum pooling.
        """
        o = self.output
        return np.divide(result, o.divisor * 2.0**o.fraction_bits, dtype=np.float64).astype(np.float32)

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        info = {
            "name": self.name,
            "config": asdict(self.config),
            "layer_names": list(self.layer_names),
            "image": self.image.to_json(),
            "image_fraction_bits": self.image_fraction_bits,
            "output": asdict(self.output),
            "macs": self.macs,
            "metadata": self.metadata,
        }
        text = json.dumps(info, sort_keys=True).encode()
        body = FILE_MAGIC + struct.pack("<II", FILE_VERSION, len(text)) + text + self.stream
        return body + struct.pack("<I", zlib.crc32(body))

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + f".part{os.getpid()}")
        try:
            part.write_bytes(self.to_bytes())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "program") -> Program:
        """Read a file's bytes. Raises ProgramError with what is wrong."""
        start = len(FILE_MAGIC) + 8
        if len(data) < start + 4 or not data.startswith(FILE_MAGIC):
            raise ProgramError(f"{source} is not an NPU program (it does not begin with {FILE_MAGIC.decode()})")
        version, length = struct.unpack_from("<II", data, len(FILE_MAGIC))
        if version != FILE_VERSION:
            raise ProgramError(
                f"{source} has file version {version}, this software reads {FILE_VERSION}: compile it again"
            )
        if zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
            raise ProgramError(f"{source} is damaged or cut short (its CRC does not match): copy or compile it again")
        try:
            info = json.loads(data[start : start + length])
            program = cls(
                name=info["name"],
                config=ArrayConfig(**info["config"]),
                layer_names=tuple(info["layer_names"]),
                image=ImageLayout(**info["image"]),
                image_fraction_bits=info["image_fraction_bits"],
                output=Output(**info["output"]),
                macs=info["macs"],
                stream=data[start + length : -4],
                metadata=info["metadata"],
            )
            layers = program.header.layers
        except (ValueError, KeyError, TypeError, RecordError, ConfigurationError) as error:
            raise ProgramError(f"{source}: {error}") from error
        if layers != len(program.layer_names):
            raise ProgramError(f"{source} names {len(program.layer_names)} layers but its stream has {layers}")
        return program

    @classmethod
    def load(cls, path: str | Path) -> Program:
        """Read a program file. Raises ProgramError or OSError."""
        return cls.from_bytes(Path(path).read_bytes(), str(path))
