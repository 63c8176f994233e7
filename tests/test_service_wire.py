"""Requests are taken apart as protobuf's own parser would, with the tensors left where they are; answers are put together as it would."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from host_service.wire import answer, take_apart


def random_request(rng: np.random.Generator) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="tagger" * int(rng.integers(0, 40)), id=str(rng.integers(1 << 40)))
    for number in range(int(rng.integers(0, 4))):
        tensor = request.inputs.add(name=f"input{number}", datatype="FP32", shape=rng.integers(0, 1 << 40, 4).tolist())
        tensor.contents.fp32_contents.extend(rng.random(int(rng.integers(0, 50))).tolist())
        request.raw_input_contents.append(rng.bytes(int(rng.choice([0, 1, 127, 128, 70_000]))))
    request.parameters["timeout"].int64_param = int(rng.integers(1 << 60))
    return request


def same(data: bytes) -> None:
    parts = take_apart(data)
    whole = pb.ModelInferRequest.FromString(data)
    assert [bytes(part) for part in parts.raw] == list(whole.raw_input_contents)
    assert pb.ModelInferRequest.FromString(parts.id).id == whole.id
    whole.ClearField("raw_input_contents")
    whole.ClearField("id")
    assert parts.request() == whole


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_what_protobuf_finds(seed: int):
    request = random_request(np.random.default_rng(seed))
    same(request.SerializeToString())


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_the_fields_does_not_matter(seed: int):
    """Messages one behind the other are one message whose fields are interleaved."""
    rng = np.random.default_rng(seed)
    same(b"".join(random_request(rng).SerializeToString() for _ in range(3)))


def test_requests_that_differ_in_id_and_values_alone_have_the_same_head():
    one, other = (random_request(np.random.default_rng(1)) for _ in range(2))
    other.id = "another"
    other.raw_input_contents[:] = [bytes(reversed(data)) for data in other.raw_input_contents]
    first, second = (take_apart(request.SerializeToString()) for request in (one, other))
    assert first.head == second.head and first.id != second.id


def test_tensors_are_views_of_the_message():
    data = pb.ModelInferRequest(raw_input_contents=[bytes(1000)]).SerializeToString()
    (part,) = take_apart(data).raw
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
                take_apart(bytes(data)).request()
        else:
            same(bytes(data))
    assert 0 < refused < 300, "the damage must leave some messages whole and break others"


@pytest.mark.parametrize("sizes", [(), (0,), (1, 127, 128, 70_000), (1 << 21,)])
def test_an_answer_is_the_message_that_protobuf_would_make(sizes: tuple[int, ...]):
    contents = [np.random.default_rng(size).bytes(size) for size in sizes]
    expected = pb.ModelInferResponse(model_name="tagger", model_version="2", id="job 7", raw_output_contents=contents)
    head = pb.ModelInferResponse(model_name="tagger", model_version="2").SerializeToString()
    identity = take_apart(pb.ModelInferRequest(id="job 7").SerializeToString()).id
    assert pb.ModelInferResponse.FromString(answer(head, identity, contents)) == expected
