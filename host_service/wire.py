"""ModelInferRequests and their answers as bytes, with the tensors left where they are: half of what protobuf would do is copying them.

See protobuf's encoding (https://protobuf.dev/programming-guides/encoding): a message is a row of fields, each with a tag of number and
wire type. The tensors (``raw_input_contents``) become views of the bytes, the rest goes to protobuf's own parser. The caller's ``id`` is
kept apart from that rest, which is then the same for all requests of a kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from host_service.tensor import Content

RAW = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
ID = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["id"].number
ANSWER_RAW = pb.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Parts:
    """A ModelInferRequest taken apart."""

    head: bytes
    """All but ``id`` and ``raw``, as a ModelInferRequest."""
    id: bytes
    """The field with its tag; empty without one."""
    raw: Sequence[bytes | memoryview | Content]

    def request(self) -> pb.ModelInferRequest:
        """``head`` parsed. Raises protobuf's DecodeError."""
        return pb.ModelInferRequest.FromString(self.head)


def take_apart(data: bytes) -> Parts:
    """The parts of a serialised ModelInferRequest; what is none becomes a ``head`` that is none."""
    view, head, identity, raw = memoryview(data), [], b"", []
    at = start = 0
    try:
        while at < len(data):
            tag, after = _varint(data, at)
            kind = tag & 7
            if kind == BYTES:
                length, begin = _varint(data, after)
                end = begin + length
            elif kind == VARINT:
                end = _varint(data, after)[1]
            elif kind in (FIXED32, FIXED64):
                end = after + (4 if kind == FIXED32 else 8)
            else:
                raise IndexError("a group")
            if end > len(data):
                raise IndexError("the field goes beyond the message")
            if kind == BYTES and tag >> 3 in (RAW, ID):
                head.append(view[start:at])
                if tag >> 3 == RAW:
                    raw.append(view[begin:end])
                else:
                    str(view[begin:end], "utf-8")
                    identity = data[at:end]
                start = end
            at = end
    except (IndexError, UnicodeDecodeError):  # damaged, or of a kind that no client sends: protobuf says what it is
        return _taken_apart_by_protobuf(data)
    head.append(view[start:])
    return Parts(b"".join(head), identity, raw)


def _taken_apart_by_protobuf(data: bytes) -> Parts:
    try:
        request = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return Parts(data, b"", ())
    raw = list(request.raw_input_contents)
    identity = pb.ModelInferRequest(id=request.id).SerializeToString()
    request.ClearField("raw_input_contents")
    request.ClearField("id")
    return Parts(request.SerializeToString(), identity, raw)


def answer(head: bytes, identity: bytes, raw: Sequence[bytes]) -> bytes:
    """A serialised ModelInferResponse: ``head``, the request's ``Parts.id`` (its field has the same number), and the outputs' contents."""
    fields = [head, identity]
    for data in raw:
        fields += (_tag(ANSWER_RAW, len(data)), data)
    return b"".join(fields)


@lru_cache(maxsize=64)
def _tag(number: int, length: int) -> bytes:
    """What stands before ``length`` bytes of a field."""
    out = bytearray([number << 3 | BYTES])
    while length > 0x7F:
        out.append(0x80 | length & 0x7F)
        length >>= 7
    out.append(length)
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, and where the next thing begins. Raises IndexError when there is none of at most ten bytes."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for shift in range(7, 70, 7):
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
    raise IndexError("a number of more than ten bytes")
