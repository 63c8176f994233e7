"""The rest of the protocols: repository, streams, classification, shared memory, TensorFlow Serving, health and reflection."""

import io
import queue
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.utils.shared_memory as shared_memory
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image
from random_networks import CHANNELS, SIZE, feature_sums, featurizer, featurizer_layers, random_image
from running_service import Running, random_classifier, running_configuration
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from host_service.tensorflow_serving import CLASSES
from quantize.images import jet_images

pytestmark = pytest.mark.usefixtures("each_transport")
SEED = 91
PROGRAM, OTHER = featurizer(SEED), featurizer(SEED + 1)
CLASSIFIER = random_classifier(SEED, CHANNELS)
RNG = np.random.default_rng(SEED)
IMAGES = np.stack([random_image(RNG, PROGRAM) for _ in range(5)])
SUMS = np.stack([feature_sums(featurizer_layers(SEED), image) for image in IMAGES])
OTHER_SUMS = np.stack([feature_sums(featurizer_layers(SEED + 1), image) for image in IMAGES])
PROBABILITIES = np.concatenate([CLASSIFIER.probabilities(f[None]) for f in PROGRAM.features(SUMS)])
CONFIG = 'max_batch_size: 8\nparameters { key: "input" value { string_value: "constituents" } }\n'


@pytest.fixture(scope="module")
def repository(each_transport: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service") / "models"
    PROGRAM.save(folder / "featurizer" / "1" / "program.npu")
    OTHER.save(folder / "featurizer" / "3" / "program.npu")
    (folder / "featurizer" / "config.pbtxt").write_text(
        "version_policy { all { } }\n"
        'model_repository_agents { agents { name: "checksum" parameters { key: "MD5:config" value: "abc" } } }\n'
    )
    for name in ("tagger", "jets"):
        PROGRAM.save(folder / name / "1" / "program.npu")
        arrays = {f"classifier/{key}": value for key, value in vars(CLASSIFIER).items()}
        np.savez(folder / name / "1" / "classifier.npz", **arrays)
    (folder / "jets" / "config.pbtxt").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def running(repository: Path) -> Iterator[Running]:
    with running_configuration(repository.parent, models={"repository": "models"}) as running:
        yield running


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(running.address) as client:
        yield client


@pytest.fixture(scope="module")
def channel(running: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(running.address) as channel:
        yield channel


def tensor(name: str, values: np.ndarray) -> InferInput:
    kind = {"uint8": "UINT8", "float32": "FP32", "float64": "FP64"}[values.dtype.name]
    made = InferInput(name, list(values.shape), kind)
    made.set_data_from_numpy(values)
    return made


def sums_of(client: InferenceServerClient, model: str, images: np.ndarray, version: str = "") -> np.ndarray:
    return client.infer(model, [tensor("image", images)], version).as_numpy("feature_sums")


# The repository ------------------------------------------------------------------------------------------------------


def index(client: InferenceServerClient) -> set[tuple[str, str, str]]:
    return {(m.name, m.version, m.state) for m in client.get_model_repository_index().models}


def test_the_index_lists_every_version(client: InferenceServerClient):
    assert index(client) == {
        ("featurizer", "1", "READY"),
        ("featurizer", "3", "READY"),
        ("tagger", "1", "READY"),
        ("jets", "1", "READY"),
    }


def test_the_newest_version_answers_when_none_is_named(client: InferenceServerClient):
    assert np.array_equal(sums_of(client, "featurizer", IMAGES), OTHER_SUMS)
    assert list(client.get_model_metadata("featurizer").versions) == ["1", "3"]


def test_every_version_answers_with_its_own_program(client: InferenceServerClient):
    for _ in range(2):  # the device changes its program each time
        assert np.array_equal(sums_of(client, "featurizer", IMAGES, "1"), SUMS)
        assert np.array_equal(sums_of(client, "featurizer", IMAGES, "3"), OTHER_SUMS)


def test_the_configs_checksum_agent_reaches_the_client(client: InferenceServerClient):
    (agent,) = client.get_model_config("featurizer").config.model_repository_agents.agents
    assert (agent.name, dict(agent.parameters)) == ("checksum", {"MD5:config": "abc"})


def test_unload_and_load(client: InferenceServerClient):
    client.unload_model("tagger")
    assert not client.is_model_ready("tagger")
    assert ("tagger", "", "UNAVAILABLE") in index(client)
    with pytest.raises(InferenceServerException, match="model 'tagger' is unloaded") as caught:
        sums_of(client, "tagger", IMAGES)
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    client.load_model("tagger")
    assert np.array_equal(sums_of(client, "tagger", IMAGES), SUMS)


def test_a_new_version_is_served_once_it_is_loaded(client: InferenceServerClient, repository: Path):
    shutil.copytree(repository / "featurizer" / "1", repository / "new" / "1")
    try:
        assert ("new", "", "") in index(client)
        client.load_model("new")
        assert np.array_equal(sums_of(client, "new", IMAGES), SUMS)
        OTHER.save(repository / "new" / "2" / "program.npu")
        assert np.array_equal(sums_of(client, "new", IMAGES), SUMS)
        client.load_model("new")
        assert np.array_equal(sums_of(client, "new", IMAGES), OTHER_SUMS)
        assert not client.is_model_ready("new", "1"), "the policy is to serve the newest only"
    finally:
        client.unload_model("new")
        shutil.rmtree(repository / "new")


def test_a_model_that_is_damaged_keeps_what_was_loaded(client: InferenceServerClient, repository: Path):
    path = repository / "tagger" / "1" / "program.npu"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    try:
        with pytest.raises(InferenceServerException, match="damaged or cut short"):
            client.load_model("tagger")
        assert np.array_equal(sums_of(client, "tagger", IMAGES), SUMS)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["nobody", "../service", ""])
def test_what_is_not_in_the_repository_cannot_be_loaded(client: InferenceServerClient, name: str):
    with pytest.raises(InferenceServerException, match="has no folder"):
        client.load_model(name)


def test_without_a_repository_nothing_can_be_loaded(repository: Path):
    with (
        running_configuration(repository / "tagger" / "1", models={"program": "program.npu"}) as running,
        InferenceServerClient(running.address) as client,
        pytest.raises(InferenceServerException, match="this service has no model repository"),
    ):
        client.load_model("tagger")


# Constituents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_image_of_constituents_is_that_of_quantize(client: InferenceServerClient, kind: type):
    jets = np.zeros((8, 30, 4), kind)
    jets[:, :20, 1:] = RNG.normal((20, 0, 0), (10, 8, 8), (8, 20, 3))
    jets[..., 0] = np.linalg.norm(jets[..., 1:], axis=-1)
    answer = client.infer("jets", [tensor("constituents", jets)])
    expected = np.stack([feature_sums(featurizer_layers(SEED), image) for image in jet_images(jets, SIZE)])
    assert np.array_equal(answer.as_numpy("feature_sums"), expected)
    assert len(np.unique(expected, axis=0)) == 8, "equal images would test nothing"
    features = PROGRAM.features(expected)
    probabilities = np.concatenate([CLASSIFIER.probabilities(f[None]) for f in features])
    assert np.array_equal(answer.as_numpy("probabilities"), probabilities)


@pytest.mark.parametrize("shape", [(1, 0, 4), (1, 201, 4), (1, 10, 3), (9, 10, 4), (10, 4)])
def test_other_shapes_of_constituents_are_refused(client: InferenceServerClient, shape: tuple[int, ...]):
    with pytest.raises(InferenceServerException, match=r"must be \[batch, 1 to 200, 4\], batch 1 to 8"):
        client.infer("jets", [tensor("constituents", np.ones(shape, np.float32))])


def test_a_constituent_that_is_no_number_is_refused(client: InferenceServerClient):
    with pytest.raises(InferenceServerException, match="NaN or an infinity") as caught:
        client.infer("jets", [tensor("constituents", np.full((1, 2, 4), np.nan, np.float32))])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


# Streams and classification ------------------------------------------------------------------------------------------


def test_a_stream_answers_in_order_and_survives_an_error(client: InferenceServerClient):
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(40):
        image = IMAGES[number % 5 : number % 5 + 1]
        model = "nobody" if number == 20 else "tagger"
        client.async_stream_infer(model, [tensor("image", image)], request_id=str(number))
    for number in range(40):
        result, error = answers.get(timeout=60)
        if number == 20:
            assert "there is no model 'nobody'" in error.message()
            continue
        assert result.get_response().id == str(number)
        assert np.array_equal(result.as_numpy("feature_sums")[0], SUMS[number % 5])
    client.stop_stream()


def test_the_final_response_of_a_stream_is_marked_when_asked_for(client: InferenceServerClient):
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(result))
    client.async_stream_infer("tagger", [tensor("image", IMAGES[:1])], enable_empty_final_response=True)
    assert answers.get(timeout=60).get_response().parameters["triton_final_response"].bool_param
    client.stop_stream()


def test_classification_gives_the_greatest_values_with_index_and_label(client: InferenceServerClient):
    wanted = [InferRequestedOutput("probabilities", class_count=2), InferRequestedOutput("feature_sums", class_count=3)]
    answer = client.infer("tagger", [tensor("image", IMAGES)], outputs=wanted)
    for row, values in zip(answer.as_numpy("probabilities"), PROBABILITIES, strict=True):
        best = int(np.argmax(values))
        label = ("QCD", "top")[best]
        assert row[0] == f"{values[best]:f}:{best}:{label}".encode()
    for row, values in zip(answer.as_numpy("feature_sums"), SUMS, strict=True):
        order = np.argsort(-values, kind="stable")[:3]
        assert row.tolist() == [f"{values[i]}:{i}".encode() for i in order]


# Shared memory -------------------------------------------------------------------------------------------------------


@pytest.fixture
def regions() -> Iterator[tuple[Any, Any]]:
    made = [shared_memory.create_shared_memory_region(n, f"/quarkwave-test-{n}", 8192) for n in ("in", "out")]
    try:
        yield made[0], made[1]
    finally:
        for region in made:
            shared_memory.destroy_shared_memory_region(region)


def test_tensors_travel_in_system_shared_memory(client: InferenceServerClient, regions: tuple[Any, Any]):
    shared_memory.set_shared_memory_region(regions[0], [IMAGES[:2]], offset=64)
    client.register_system_shared_memory("in", "/quarkwave-test-in", 8192 - 64, offset=64)
    client.register_system_shared_memory("out", "/quarkwave-test-out", 8192)
    image = InferInput("image", [2, SIZE, SIZE, 3], "UINT8")
    image.set_shared_memory("in", IMAGES[:2].nbytes)
    output = InferRequestedOutput("feature_sums")
    output.set_shared_memory("out", 4096, offset=128)
    answer = client.infer("tagger", [image], outputs=[output, InferRequestedOutput("features")])
    found = shared_memory.get_contents_as_numpy(regions[1], np.int32, [2, CHANNELS], offset=128)
    assert np.array_equal(found, SUMS[:2])
    assert np.array_equal(answer.as_numpy("features"), PROGRAM.features(SUMS[:2]))
    assert set(client.get_system_shared_memory_status().regions) == {"in", "out"}
    client.unregister_system_shared_memory("in")
    assert set(client.get_system_shared_memory_status().regions) == {"out"}
    client.unregister_system_shared_memory()
    with pytest.raises(InferenceServerException, match="no shared memory region 'in'"):
        client.infer("tagger", [image])


def test_a_region_that_its_client_shrank_is_an_error_and_no_crash(client: InferenceServerClient):
    path = Path("/dev/shm/quarkwave-test-shrinks")
    path.write_bytes(bytes(4096))
    try:
        client.register_system_shared_memory("shrinks", f"/{path.name}", 4096)
        path.write_bytes(b"")
        image = InferInput("image", [1, SIZE, SIZE, 3], "UINT8")
        image.set_shared_memory("shrinks", IMAGES[0].nbytes)
        with pytest.raises(InferenceServerException, match="has become shorter"):
            client.infer("tagger", [image])
    finally:
        client.unregister_system_shared_memory("shrinks")
        path.unlink()


@pytest.mark.parametrize(
    ("key", "offset", "size", "text"),
    [
        ("/nobody-has-this", 0, 64, "No such file"),
        ("/../etc/passwd", 0, 64, "is no key"),
        ("/", 0, 64, "is no key"),
        ("/quarkwave-test-in", 0, 8193, "8193 from byte 0 are not in it"),
        ("/quarkwave-test-in", 2**63, 2**63, "are not in it"),
        ("/quarkwave-test-in", 0, 0, "are not in it"),
    ],
)
def test_regions_that_cannot_be(
    client: InferenceServerClient, regions: tuple[Any, Any], key: str, offset: int, size: int, text: str
):
    with pytest.raises(InferenceServerException, match=text):
        client.register_system_shared_memory("x", key, size, offset=offset)


# TensorFlow Serving --------------------------------------------------------------------------------------------------


def predict(channel: grpc.Channel, model: str, shape: tuple[int, ...], **content: Any) -> Any:
    request = CLASSES["PredictRequest"]()
    request.model_spec.name = model
    entry = request.inputs.add(key="images")
    for size in shape:
        entry.value.tensor_shape.dim.add(size=size)
    for name, value in content.items():
        if isinstance(value, list):
            getattr(entry.value, name).extend(value)
        else:
            setattr(entry.value, name, value)
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    (output,) = CLASSES["PredictResponse"].FromString(call(request.SerializeToString(), timeout=60)).outputs
    assert output.key == "output_alias"
    return np.array(output.value.float_val, np.float32).reshape([dim.size for dim in output.value.tensor_shape.dim])


def test_predict_of_floats_gives_the_features(channel: grpc.Channel):
    values = (IMAGES / 256).astype("<f4")
    raw = predict(channel, "featurizer", values.shape, dtype=1, tensor_content=values.tobytes())
    assert np.array_equal(raw, OTHER.features(OTHER_SUMS))
    listed = predict(channel, "tagger", values.shape, dtype=1, float_val=values.reshape(-1).tolist())
    assert np.array_equal(listed, PROBABILITIES)


def test_predict_of_encoded_pictures(channel: grpc.Channel):
    pictures = []
    for image in IMAGES:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        pictures.append(file.getvalue())
    answer = predict(channel, "tagger", (5,), dtype=7, string_val=pictures)
    assert np.array_equal(answer, PROBABILITIES)


@pytest.mark.parametrize(
    ("shape", "content", "text"),
    [
        ((1,), {"dtype": 7, "string_val": [b"no picture"]}, "no PNG, JPEG or BMP"),
        ((2,), {"dtype": 7, "string_val": [b"x"]}, "has 1 strings for shape"),
        ((1, SIZE, SIZE, 3), {"dtype": 1, "tensor_content": b"1234"}, "has 4 bytes"),
        ((1, SIZE, SIZE, 3), {"dtype": 1, "float_val": [1.0, 2.0]}, "has 2 values"),
        ((1, 5, 5, 3), {"dtype": 1}, "wants"),
        ((0, SIZE, SIZE, 3), {"dtype": 1}, "is the batch"),
        ((1, SIZE, SIZE, 3), {"dtype": 3}, "has the type 3"),
    ],
)
def test_wrong_predict_requests_get_a_clear_text(
    channel: grpc.Channel, shape: tuple[int, ...], content: dict[str, Any], text: str
):
    with pytest.raises(grpc.RpcError) as caught:
        predict(channel, "tagger", shape, **content)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert text in caught.value.details()


# Health and reflection -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "inference.GRPCInferenceService"])
def test_the_health_service_says_serving(channel: grpc.Channel, name: str):
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_gives_the_services_and_their_methods(channel: grpc.Channel):
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
    ]
    services, file = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(requests))
    names = {service.name for service in services.list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names
    found = descriptor_pb2.FileDescriptorProto.FromString(file.file_descriptor_response.file_descriptor_proto[0])
    assert "ModelInfer" in {method.name for method in found.service[0].method}
