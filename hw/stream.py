"""The weight stream: header, then for each layer its descriptor, parameters and weight tiles, in the order of consumption.

Every record starts on a stream word (``config.stream_bytes``). For each output block and tile of pixels come the ``kp`` parameter
records, then one weight tile (``kp`` rows of ``cp`` bytes) for each pass: input block, kernel row, kernel column. Tiles of a layer
repeat for each tile of pixels, so the hardware only counts upwards. In memory the stream is striped over the ports beat by beat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hw.isa import DESCRIPTOR_BYTES, PARAMETER_BYTES, ArrayConfig, LayerDescriptor, ProgramHeader, RecordError

PARAMETER = np.dtype([("bias", "<i4"), ("shift", "u1"), ("res_shift", "u1"), ("spare", "<u2")])
assert PARAMETER.itemsize == PARAMETER_BYTES


@dataclass(frozen=True)
class StreamLayer:
    """One layer as the stream carries it: channels padded to whole blocks.

    ``weights`` int8 [out_blocks * kp, in_blocks * cp, kernel_h, kernel_w]; ``bias`` int32, ``shift`` and ``res_shift`` uint8, each
    [out_blocks * kp].
    """

    descriptor: LayerDescriptor
    weights: NDArray[np.int8]
    bias: NDArray[np.int32]
    shift: NDArray[np.uint8]
    res_shift: NDArray[np.uint8]


def payload_check(payload: bytes, config: ArrayConfig) -> int:
    """The 32-bit check the loader computes over a layer's stream words.

    Each 32-bit lane keeps ``c = rotl(c, 1) ^ word``; the lanes are folded as the XOR of ``rotl(c[lane], lane)``.
    """
    words = np.frombuffer(payload, "<u4").reshape(-1, config.stream_bytes // 4)
    turns = np.arange(len(words) - 1, -1, -1, dtype=np.uint32)[:, None] + np.arange(words.shape[1], dtype=np.uint32)
    turns &= np.uint32(31)
    rotated = words << turns | words >> ((np.uint32(32) - turns) & np.uint32(31))
    return int(np.bitwise_xor.reduce(rotated, axis=None))


def encode_layer(layer: StreamLayer, config: ArrayConfig) -> bytes:
    """Descriptor and payload of one layer; fills in ``payload_check``."""
    d = layer.descriptor
    tiles = layer.weights.reshape(d.out_blocks, config.kp, d.in_blocks, config.cp, d.kernel_h, d.kernel_w)
    tiles = np.ascontiguousarray(tiles.transpose(0, 2, 4, 5, 1, 3))  # block, in_block, ky, kx, k, c
    rows = _pad_rows(tiles.reshape(d.out_blocks, d.passes_per_tile, config.macs).view(np.uint8), config)

    records = np.zeros((d.out_blocks, config.kp), PARAMETER)
    for name in ("bias", "shift", "res_shift"):
        records[name] = getattr(layer, name).reshape(records.shape)
    parameters = _pad_rows(records.view(np.uint8).reshape(d.out_blocks, 1, -1), config)

    parts = []
    for block in range(d.out_blocks):
        parts += [parameters[block].tobytes() + rows[block].tobytes()] * d.tiles
    payload = b"".join(parts)
    d = replace(d, payload_check=payload_check(payload, config))
    return d.pack().ljust(config.padded(DESCRIPTOR_BYTES), b"\0") + payload


def encode(header: ProgramHeader, layers: list[StreamLayer], config: ArrayConfig) -> bytes:
    """The whole stream, a whole number of stream words."""
    head = header.pack().ljust(config.padded(DESCRIPTOR_BYTES), b"\0")
    return head + b"".join(encode_layer(layer, config) for layer in layers)


def payload_bytes(d: LayerDescriptor, config: ArrayConfig) -> int:
    """Bytes of a layer's parameters and weights in the stream."""
    group = config.padded(PARAMETER_BYTES * config.kp) + d.passes_per_tile * config.padded(config.macs)
    return d.out_blocks * d.tiles * group


def decode(stream: bytes, config: ArrayConfig) -> tuple[ProgramHeader, list[StreamLayer]]:
    """Read a stream back. Raises RecordError when it is damaged or cut short."""
    header = ProgramHeader.unpack(stream[:DESCRIPTOR_BYTES])
    return header, list(_decode_layers(stream, header, config))


def _decode_layers(stream: bytes, header: ProgramHeader, config: ArrayConfig) -> Iterator[StreamLayer]:
    at = config.padded(DESCRIPTOR_BYTES)
    for number in range(header.layers):
        d = LayerDescriptor.unpack(stream[at : at + DESCRIPTOR_BYTES])
        at += config.padded(DESCRIPTOR_BYTES)
        size = payload_bytes(d, config)
        payload = stream[at : at + size]
        if len(payload) < size or payload_check(payload, config) != d.payload_check:
            raise RecordError(f"layer {number}: its weights are damaged or cut short")
        at += size
        yield decode_payload(d, payload, config)


def decode_payload(d: LayerDescriptor, payload: bytes, config: ArrayConfig) -> StreamLayer:
    """The parameters and weights of one layer from its ``payload_bytes(d, config)`` bytes."""
    group = len(payload) // (d.out_blocks * d.tiles)
    blocks = np.frombuffer(payload, np.uint8).reshape(d.out_blocks, d.tiles, group)[:, 0]
    head = config.padded(PARAMETER_BYTES * config.kp)
    records = np.ascontiguousarray(blocks[:, : PARAMETER_BYTES * config.kp]).view(PARAMETER).reshape(-1)
    tiles = blocks[:, head:].reshape(d.out_blocks, d.passes_per_tile, -1)[:, :, : config.macs]
    cube = tiles.reshape(d.out_blocks, d.in_blocks, d.kernel_h, d.kernel_w, config.kp, config.cp)
    weights = cube.transpose(0, 4, 1, 5, 2, 3).reshape(
        d.out_blocks * config.kp, d.in_blocks * config.cp, d.kernel_h, d.kernel_w
    )
    return StreamLayer(d, weights.view(np.int8), records["bias"], records["shift"], records["res_shift"])


def stripe(stream: bytes, config: ArrayConfig) -> list[NDArray[np.uint8]]:
    """The bytes each port reads: beat ``i`` of the stream goes to port ``i % ports``."""
    beats = np.frombuffer(stream, np.uint8).reshape(-1, config.ports, config.port_bytes)
    return [np.ascontiguousarray(beats[:, port]).reshape(-1) for port in range(config.ports)]


def unstripe(parts: list[NDArray[np.uint8]], config: ArrayConfig) -> bytes:
    """The stream again, from what each port reads."""
    return np.stack([p.reshape(-1, config.port_bytes) for p in parts], axis=1).tobytes()


def _pad_rows(rows: NDArray[np.uint8], config: ArrayConfig) -> NDArray[np.uint8]:
    """Pad the last axis to whole stream words."""
    extra = config.padded(rows.shape[-1]) - rows.shape[-1]
    return np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, extra)])
