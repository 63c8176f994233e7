"""The NPU's instruction set, once: array configuration, program header, layer descriptor, error codes; the registers come from their map.

The compiler, the driver, the golden model and the generated SystemVerilog package (``hw.sv_package``) all read this file; no bit position
of a record is typed anywhere else, and no register's offset outside ``hw/regs/npu.rdl``. NumPy-free and importable on a board.
"""

from __future__ import annotations

import math
import sys
import zlib
from dataclasses import MISSING, dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from hw.registers import LAYER_COUNTERS_MAX as LAYER_COUNTERS_MAX
from hw.registers import REGISTER_BITS as REGISTER_BITS
from hw.registers import Control as Control
from hw.registers import Register as Register

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

MAGIC = int.from_bytes(b"QWNP", "little")
VERSION = 1
BOARDS = Path(__file__).parent / "boards"

DESCRIPTOR_BYTES = 64
"""Size of the program header and of every layer descriptor in the weight stream."""
PARAMETER_BYTES = 8
"""Per output channel: bias int32, shift uint8, residual shift uint8, two spare bytes (little endian)."""
FEATURE_BYTES = 4
"""Global sums leave the NPU as int32, little endian, in channel order."""
MAX_SHIFT = 31
POOL_KERNEL_MAX = 3


class ConfigurationError(ValueError):
    """A board file or a program header describes an array that cannot be built."""


@dataclass(frozen=True)
class ArrayConfig:
    """The parameters of one NPU core. A program runs only on the configuration it was compiled for."""

    name: str
    cp: int
    """Input channels per cycle, and bytes in an activation word."""
    kp: int
    """Output channels per cycle."""
    banks: int
    bank_words: int
    """Words of ``cp`` bytes in each 1R1W activation bank."""
    acc_depth: int
    """Accumulator RAM depth: the most pixels in a tile."""
    ports: int
    """AXI read ports that the weight stream is striped over."""
    port_bytes: int
    """Bytes per beat of every AXI port."""
    pool_columns: int = 128
    """Widest row the pooling line buffer holds, in pooled pixels."""
    field_bits: int = 18
    """Bits that a product takes in a multiplier shared by two weights: 18 for DSP48E2, 16 for DSP48E1; 0: two multipliers."""
    ultra_ram: bool = True
    """Activation banks in UltraRAM; else in block RAM, for a device without it."""
    clock_mhz: float = 0.0
    """Clock of the board this configuration is for; 0 where there is none."""

    def __post_init__(self) -> None:
        """Refuse what the RTL's elaboration checks refuse."""
        for name in ("cp", "kp", "bank_words", "port_bytes"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ConfigurationError(f"{self.name}: {name} must be a power of two, not {value}")
        if self.kp < 4 or self.cp % self.kp:
            raise ConfigurationError(f"{self.name}: kp={self.kp} must be at least 4 and divide cp={self.cp}")
        if self.port_bytes > self.cp:
            raise ConfigurationError(f"{self.name}: port_bytes={self.port_bytes} must not exceed cp={self.cp}")
        if 2 * self.stream_bytes > self.cp * self.kp:
            raise ConfigurationError(
                f"{self.name}: {self.ports} ports of {self.port_bytes} bytes exceed half a weight tile of {self.cp} x {self.kp} bytes"
            )
        if self.field_bits not in (0, 16, 17, 18):
            raise ConfigurationError(f"{self.name}: field_bits={self.field_bits} must be 0, 16, 17 or 18")
        if not 1 <= self.ports <= 4:
            raise ConfigurationError(f"{self.name}: ports={self.ports} must be 1 to 4")
        if self.total_words > 1 << 23:
            raise ConfigurationError(f"{self.name}: {self.total_words} words exceed the 24-bit address space")

    @property
    def total_words(self) -> int:
        """Activation words in all banks."""
        return self.banks * self.bank_words

    @property
    def stream_bytes(self) -> int:
        """Bytes of one word of the weight stream, all ports together."""
        return self.ports * self.port_bytes

    @property
    def lane_groups(self) -> int:
        """Output blocks (of ``kp`` channels) that share one activation word."""
        return self.cp // self.kp

    @property
    def macs(self) -> int:
        """Multiply-accumulates per cycle."""
        return self.cp * self.kp

    def blocks_in(self, channels: int) -> int:
        """Activation words per pixel for ``channels`` channels."""
        return math.ceil(channels / self.cp)

    def blocks_out(self, channels: int) -> int:
        """Output blocks for ``channels`` channels."""
        return math.ceil(channels / self.kp)

    def padded(self, nbytes: int) -> int:
        """``nbytes`` rounded up to whole stream words."""
        return math.ceil(nbytes / self.stream_bytes) * self.stream_bytes


def board_file(name: str) -> dict[str, Any]:
    """The tables of ``hw/boards/<name>.toml``. Raises ConfigurationError when there is no such board or the file cannot be read."""
    path = BOARDS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in BOARDS.glob("*.toml")))
        raise ConfigurationError(f"no board named {name!r} in hw/boards; there are: {known}")
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path.name}: {error}") from error


def from_table(record: type[T], table: dict[str, Any], where: str) -> T:
    """A dataclass from a table of a board file. Raises ConfigurationError for an unknown or missing key, or a value of another type."""
    known = {f.name: f for f in fields(record)}  # type: ignore[arg-type]
    unknown = sorted(table.keys() - known.keys())
    missing = [n for n, f in known.items() if n not in table and f.default is MISSING and f.default_factory is MISSING]
    if unknown or missing:
        what = f"does not know {', '.join(unknown)}" if unknown else f"lacks {', '.join(missing)}"
        raise ConfigurationError(f"{where} {what}; its keys are: {', '.join(n for n in known if n != 'name')}")
    hints, values = get_type_hints(record), {}
    for key, value in table.items():
        kind = get_origin(hints[key]) or hints[key]
        accepted = {float: (int, float), tuple: (list,)}.get(kind, (kind,))
        if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
            raise ConfigurationError(f"{where}: {key} = {value!r} should be of type {known[key].type}")
        values[key] = tuple(value) if kind is tuple else kind(value)
    return record(**values)


def load_config(name: str) -> ArrayConfig:
    """The configuration of ``hw/boards/<name>.toml``. Raises ConfigurationError when there is none or it cannot be built."""
    return from_table(ArrayConfig, {"name": name, **board_file(name).get("array", {})}, f"{name}.toml, [array]")


# ---------------------------------------------------------------------------------------------------------------------
# Records of the weight stream. Fields are packed from bit 0 upwards in the order of declaration; the last 32 bits of
# the 512 are the CRC-32 (IEEE 802.3) of the 60 bytes before them.
# ---------------------------------------------------------------------------------------------------------------------

CRC_BITS = 32


def bits(width: int, doc: str, *, signed: bool = False, default: int = 0) -> Any:
    """Declare a field of a packed record."""
    return field(default=default, metadata={"width": width, "signed": signed, "doc": doc})


class RecordError(ValueError):
    """A record's bytes are damaged, or a value does not fit its field."""


R = TypeVar("R", bound="PackedRecord")


@dataclass(frozen=True)
class PackedRecord:
    """A 64-byte little-endian record with a CRC at its end."""

    @classmethod
    def layout(cls) -> list[tuple[str, int, int, bool, str]]:
        """(name, first bit, width, signed, meaning) of every field."""
        rows, position = [], 0
        for f in fields(cls):
            rows.append((f.name, position, f.metadata["width"], f.metadata["signed"], f.metadata["doc"]))
            position += f.metadata["width"]
        if position > 8 * DESCRIPTOR_BYTES - CRC_BITS:
            raise AssertionError(f"{cls.__name__} needs {position} bits")
        return rows

    def pack(self) -> bytes:
        """The record's 64 bytes, CRC included. Raises RecordError if a value does not fit its field."""
        value = 0
        for name, position, width, signed, _ in self.layout():
            v = int(getattr(self, name))
            low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
            if not low <= v <= high:
                raise RecordError(f"{type(self).__name__}.{name} = {v} does not fit {low}..{high}")
            value |= (v & ((1 << width) - 1)) << position
        body = value.to_bytes(DESCRIPTOR_BYTES - CRC_BITS // 8, "little")
        return body + zlib.crc32(body).to_bytes(CRC_BITS // 8, "little")

    @classmethod
    def unpack(cls: type[R], data: bytes) -> R:
        """Read 64 bytes back. Raises RecordError if the CRC is wrong."""
        body, crc = data[: -CRC_BITS // 8], int.from_bytes(data[-CRC_BITS // 8 :], "little")
        if len(data) != DESCRIPTOR_BYTES or zlib.crc32(body) != crc:
            raise RecordError(f"{cls.__name__}: the CRC does not match, the program is damaged")
        value, out = int.from_bytes(body, "little"), {}
        for name, position, width, signed, _ in cls.layout():
            v = value >> position & ((1 << width) - 1)
            out[name] = v - (1 << width) if signed and v >> (width - 1) else v
        return cls(**out)


@dataclass(frozen=True)
class ProgramHeader(PackedRecord):
    """First record of a program: what it is, what it was compiled for, where image and features lie."""

    magic: int = bits(32, "'QWNP'", default=MAGIC)
    version: int = bits(16, "of the instruction set", default=VERSION)
    layers: int = bits(16, "descriptors that follow")
    cp: int = bits(16, "input channels per cycle of the configuration")
    kp: int = bits(16, "output channels per cycle")
    stream_bytes: int = bits(16, "bytes of a stream word")
    acc_depth: int = bits(16, "accumulator depth the tiles were cut for")
    total_words: int = bits(32, "activation words the placement may use")
    image_base: int = bits(24, "first word of the packed image")
    image_words: int = bits(24, "words of the packed image")
    image_beats: int = bits(8, "beats of each image word that are sent; its other bytes stay as they are")
    feature_base: int = bits(24, "first word of the result")
    feature_words: int = bits(24, "words of the result")


class Pool(IntEnum):
    """What happens to the output stream before it is written."""

    NONE = 0
    MAX = 1
    AVERAGE = 2
    GLOBAL_SUM = 3


@dataclass(frozen=True)
class LayerDescriptor(PackedRecord):
    """One fused layer: conv + bias + residual add + requantise + ReLU + pool. Addresses are in activation words."""

    in_origin: int = bits(25, "address of input row -pad_top, column -pad_left", signed=True)
    in_width: int = bits(11, "input columns")
    in_height: int = bits(11, "input rows")
    in_plane: int = bits(23, "words of one input channel block (rows x columns)")
    in_blocks: int = bits(10, "input channel blocks")
    in_signed: int = bits(1, "input is int8, else uint8")
    in_is_image: int = bits(1, "reads the image, which may still be loading")
    image_free: int = bits(1, "from this layer on nothing uses the image's words: the next image may be loaded")
    kernel_h: int = bits(4, "taps down")
    kernel_w: int = bits(4, "taps across")
    stride: int = bits(3, "both ways")
    pad_top: int = bits(4, "zero rows above")
    pad_left: int = bits(4, "zero columns to the left")
    row_step: int = bits(14, "stride x in_width: address step of one output row")
    tile_step: int = bits(23, "tile_rows x row_step: address step of one tile")
    out_width: int = bits(11, "columns before pooling")
    out_height: int = bits(11, "rows before pooling")
    out_blocks: int = bits(10, "output blocks of kp channels")
    tile_rows: int = bits(11, "output rows of a tile; the last tile may have fewer")
    tiles: int = bits(11, "tiles of each output block")
    exclusive_drain: int = bits(1, "drain tiles in passes of their own: conv input and residual share a bank")
    res_enable: int = bits(1, "add a residual")
    res_signed: int = bits(1, "residual is int8, else uint8")
    res_base: int = bits(24, "first word of the residual")
    clip_low: int = bits(9, "smallest output", signed=True)
    clip_high: int = bits(9, "largest output", signed=True)
    pool_mode: int = bits(2, "Pool")
    pool_kernel: int = bits(2, "square window, 1 to 3")
    pool_stride: int = bits(2, "1 to 3, larger than pool_pad")
    pool_pad: int = bits(2, "zeros above and to the left")
    pool_shift: int = bits(3, "right shift of an averaged sum, rounding half to even")
    pooled_width: int = bits(11, "columns after pooling")
    pooled_height: int = bits(11, "rows after pooling")
    out_base: int = bits(24, "first word of the output")
    payload_check: int = bits(32, "payload_check() of the stream words that follow, up to the next descriptor")

    @property
    def passes_per_tile(self) -> int:
        """Weight tiles that one tile of pixels accumulates over."""
        return self.in_blocks * self.kernel_h * self.kernel_w


class ErrorCode(IntEnum):
    """Why a run stopped. The next run starts clean."""

    NONE = 0
    BAD_MAGIC = 1
    BAD_VERSION = 2
    BAD_CRC = 3
    WRONG_CONFIGURATION = 4
    BAD_DESCRIPTOR = 5
    BAD_ADDRESS = 6
    WEIGHT_READ = 7
    IMAGE_READ = 8
    FEATURE_WRITE = 9
    WATCHDOG = 10
    BAD_PAYLOAD = 11

    @property
    def meaning(self) -> str:
        """What happened and what to do, in one sentence."""
        return _MEANINGS[self]


_MEANINGS = {
    ErrorCode.NONE: "no error",
    ErrorCode.BAD_MAGIC: "the memory at the program address holds no program: load one first",
    ErrorCode.BAD_VERSION: "the program is for another version of the instruction set: compile it again",
    ErrorCode.BAD_CRC: "a header or descriptor is damaged: load the program again",
    ErrorCode.WRONG_CONFIGURATION: "the program was compiled for another array: compile it for this board",
    ErrorCode.BAD_DESCRIPTOR: "a descriptor holds a value this array cannot run: compile the program again",
    ErrorCode.BAD_ADDRESS: "a descriptor reaches outside the activation banks: compile the program again",
    ErrorCode.WEIGHT_READ: "an AXI read of the program failed: is its buffer still allocated?",
    ErrorCode.IMAGE_READ: "an AXI read of the image failed: is its buffer still allocated?",
    ErrorCode.FEATURE_WRITE: "an AXI write of the features failed: is their buffer still allocated?",
    ErrorCode.WATCHDOG: "no progress within the watchdog's time: does the memory answer?",
    ErrorCode.BAD_PAYLOAD: "the weights of a layer are damaged: load the program again",
}
