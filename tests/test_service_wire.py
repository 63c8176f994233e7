"""The thin parser of ModelInferRequest finds what protobuf's own finds, and leaves the tensors where they are."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from host_service.wire import parse_infer_request


def random_request(rng: np.random.Generator) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="tagger" * int(rng.integers(0, 40)), id=str(rng.integers(1 << 40)))
    for number in range(int(rng.integers(0, 4))):
        tensor = request.inputs.add(name=f"input{number}", datatype="FP32", shape=rng.integers(0, 1 << 40, 4).tolist())
        tensor.contents.fp32_contents.extend(rng.random(int(rng.integers(0, 50))).tolist())
        request.raw_input_contents.append(rng.bytes(int(rng.choice([0, 1, 127, 128, 70_000]))))
    request.parameters["timeout"].int64_param = int(rng.integers(1 << 60))
    return request


def same(data: bytes) -> None:
    request, raw = parse_infer_request(data)
    whole = pb.ModelInferRequest.FromString(data)
    assert [bytes(part) for part in raw] == list(whole.raw_input_contents)
    whole.ClearField("raw_input_contents")
    request.ClearField("raw_input_contents")
    assert request == whole


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_what_protobuf_finds(seed: int):
    request = random_request(np.random.default_rng(seed))
    same(request.SerializeToString())


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_the_fields_does_not_matter(seed: int):
    """Messages one behind the other are one message whose fields are interleaved."""
    rng = np.random.default_rng(seed)
    same(b"".join(random_request(rng).SerializeToString() for _ in range(3)))


def test_tensors_are_views_of_the_message():
    data = pb.ModelInferRequest(raw_input_contents=[bytes(1000)]).SerializeToString()
    (part,) = parse_infer_request(data)[1]
    assert isinstance(part, memoryview) and part.obj is data


@pytest.mark.parametrize("seed", range(5))
def test_damaged_messages_are_what_protobuf_says_of_them(seed: int):
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(300):
        data = bytearray(random_request(rng).SerializeToString())[:400]
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        try:
            pb.ModelInferRequest.FromString(bytes(data))
        except DecodeError:
            refused += 1
            with pytest.raises(DecodeError):
                parse_infer_request(bytes(data))
        else:
            same(bytes(data))
    assert 0 < refused < 300, "the damage must leave some messages whole and break others"
