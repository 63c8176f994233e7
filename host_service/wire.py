"""A ModelInferRequest from its bytes, with the tensors left where they are: half of what protobuf would do is copying them.

See protobuf's encoding (https://protobuf.dev/programming-guides/encoding): a message is a row of fields, each with a tag of number and
wire type. Fields of ``raw_input_contents`` become views of the bytes, everything else goes to protobuf's own parser.
"""

from __future__ import annotations

from collections.abc import Sequence

from tritonclient.grpc import service_pb2 as pb

RAW = pb.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def parse_infer_request(data: bytes) -> tuple[pb.ModelInferRequest, Sequence[bytes | memoryview]]:
    """The request without ``raw_input_contents``, and these. Raises protobuf's DecodeError."""
    view, rest, raw = memoryview(data), [], []
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
            if kind == BYTES and tag >> 3 == RAW:
                rest.append(view[start:at])
                raw.append(view[begin:end])
                start = end
            at = end
    except IndexError:  # damaged, or of a kind that no client sends: protobuf says what it is
        request = pb.ModelInferRequest.FromString(data)
        return request, list(request.raw_input_contents)
    rest.append(view[start:])
    return pb.ModelInferRequest.FromString(b"".join(rest)), raw


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
