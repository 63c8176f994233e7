"""The service as an unmodified Triton client sees it: health, descriptions, answers, statistics."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_aio
from random_networks import CHANNELS, SIZE, feature_sums, featurizer, featurizer_layers, random_image
from running_service import random_classifier, running_service
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc
from tritonclient.utils import InferenceServerException

from driver.golden import GoldenDevice
from host_service.models import COUNTERS, MAX_BATCH
from hw.isa import Register

pytestmark = pytest.mark.usefixtures("each_transport")
PROGRAM = featurizer(11)
LAYERS = featurizer_layers(11)
CLASSIFIER = random_classifier(11, CHANNELS)
IMAGES = np.stack([random_image(np.random.default_rng(seed), PROGRAM) for seed in range(6)])
SUMS = np.stack([feature_sums(LAYERS, image) for image in IMAGES])
FEATURES = PROGRAM.features(SUMS)


@pytest.fixture(scope="module")
def address(each_transport: str) -> Iterator[str]:
    with running_service(PROGRAM, CLASSIFIER) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(address) as client:
        yield client


def infer(client: InferenceServerClient, model: str, images: np.ndarray, outputs: list[str] | None = None, **more):
    tensor = InferInput("image", list(images.shape), "UINT8" if images.dtype == np.uint8 else "FP32")
    tensor.set_data_from_numpy(images)
    wanted = [InferRequestedOutput(name) for name in outputs] if outputs else None
    return client.infer(model, [tensor], outputs=wanted, **more)


# Health and descriptions ---------------------------------------------------------------------------------------------


def test_server_is_live_and_ready(client: InferenceServerClient):
    assert client.is_server_live()
    assert client.is_server_ready()


def test_server_metadata_lists_the_statistics_extension(client: InferenceServerClient):
    metadata = client.get_server_metadata()
    assert (metadata.name, "statistics" in metadata.extensions) == ("quarkwave", True)


def test_models_are_ready_and_others_are_not(client: InferenceServerClient):
    assert client.is_model_ready("featurizer") and client.is_model_ready("tagger", "1")
    assert not client.is_model_ready("tagger", "2")
    assert not client.is_model_ready("inception")


def test_repository_index_names_the_models(client: InferenceServerClient):
    index = client.get_model_repository_index()
    assert [(m.name, m.version, m.state) for m in index.models] == [
        ("featurizer", "1", "READY"),
        ("tagger", "1", "READY"),
        ("constituents_tagger", "1", "READY"),
    ]


def test_metadata_gives_shapes_with_the_batch(client: InferenceServerClient):
    metadata = client.get_model_metadata("tagger")
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("image", "UINT8", [-1, SIZE, SIZE, 3])]
    outputs = {t.name: (t.datatype, list(t.shape)) for t in metadata.outputs}
    assert outputs == {
        "probabilities": ("FP32", [-1, 2]),
        "features": ("FP32", [-1, CHANNELS]),
        "feature_sums": ("INT32", [-1, CHANNELS]),
        "npu_counters": ("UINT32", [-1, len(COUNTERS)]),
    }


def test_config_gives_shapes_without_the_batch_and_its_limit(client: InferenceServerClient):
    config = client.get_model_config("featurizer").config
    assert config.max_batch_size == MAX_BATCH
    assert [(t.name, list(t.dims)) for t in config.input] == [("image", [SIZE, SIZE, 3])]
    assert config.parameters["npu_counters"].string_value.split(",") == list(COUNTERS)
    assert config.parameters["macs"].string_value == str(PROGRAM.macs)


def test_without_a_classifier_there_is_no_tagger():
    with running_service(PROGRAM) as address, InferenceServerClient(address) as client:
        assert [m.name for m in client.get_model_repository_index().models] == ["featurizer"]


@pytest.mark.parametrize("call", ["CudaSharedMemoryRegister", "TraceSetting", "LogSettings"])
def test_what_is_not_offered_is_unimplemented(address: str, call: str):
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        getattr(rpc.GRPCInferenceServiceStub(channel), call)(getattr(pb, f"{call}Request")())
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


# Answers -------------------------------------------------------------------------------------------------------------


def test_features_equal_the_golden_model(client: InferenceServerClient):
    answer = infer(client, "featurizer", IMAGES[:1])
    assert np.array_equal(answer.as_numpy("feature_sums"), SUMS[:1])
    assert np.array_equal(answer.as_numpy("features"), FEATURES[:1])
    assert answer.as_numpy("features").dtype == np.float32


def test_a_batch_gives_what_single_images_give(client: InferenceServerClient):
    batch = infer(client, "tagger", IMAGES)
    assert np.array_equal(batch.as_numpy("feature_sums"), SUMS)
    singles = [infer(client, "tagger", image[None]).as_numpy("probabilities")[0] for image in IMAGES]
    assert np.array_equal(batch.as_numpy("probabilities"), singles)


def test_the_largest_batch_is_answered(client: InferenceServerClient):
    images = np.resize(IMAGES, (MAX_BATCH, *IMAGES.shape[1:]))
    answer = infer(client, "featurizer", images, ["feature_sums"])
    assert np.array_equal(answer.as_numpy("feature_sums"), np.resize(SUMS, (MAX_BATCH, CHANNELS)))


def test_probabilities_are_the_classifiers(client: InferenceServerClient):
    probabilities = infer(client, "tagger", IMAGES).as_numpy("probabilities")
    expected = np.concatenate([CLASSIFIER.probabilities(f[None]) for f in FEATURES])
    assert np.array_equal(probabilities, expected)
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-6
    assert len(np.unique(probabilities)) > 2, "a constant classifier would test nothing"


def test_fp32_on_the_grid_is_the_same_image(client: InferenceServerClient):
    answer = infer(client, "featurizer", (IMAGES / 256).astype(np.float32))
    assert np.array_equal(answer.as_numpy("feature_sums"), SUMS)


def test_fp32_off_the_grid_is_rounded_half_to_even_and_clipped(client: InferenceServerClient):
    steps = np.array([0.5, 1.5, 2.5, 2.6, -3, 255.4, 255.5, 1000], np.float32)
    rounded = np.array([0, 2, 2, 3, 0, 255, 255, 255], np.uint8)
    choice = np.random.default_rng(1).integers(0, len(steps), IMAGES[:1].shape)
    answer = infer(client, "featurizer", steps[choice] / np.float32(256))
    assert np.array_equal(answer.as_numpy("feature_sums")[0], feature_sums(LAYERS, rounded[choice[0]]))


def test_outputs_come_in_the_order_asked_for(client: InferenceServerClient):
    answer = infer(client, "tagger", IMAGES[:1], ["feature_sums", "probabilities"]).get_response()
    assert [t.name for t in answer.outputs] == ["feature_sums", "probabilities"]
    assert [len(raw) for raw in answer.raw_output_contents] == [4 * CHANNELS, 8]


def test_typed_contents_are_read_as_raw_ones(address: str):
    request = pb.ModelInferRequest(model_name="featurizer", id="7")
    tensor = request.inputs.add(name="image", datatype="UINT8", shape=(1, SIZE, SIZE, 3))
    tensor.contents.uint_contents.extend(IMAGES[0].reshape(-1).tolist())
    with grpc.insecure_channel(address) as channel:
        answer = InferResult(rpc.GRPCInferenceServiceStub(channel).ModelInfer(request))
    assert np.array_equal(answer.as_numpy("feature_sums")[0], SUMS[0])
    assert (answer.get_response().id, answer.get_response().model_version) == ("7", "1")


def test_unknown_parameters_are_tolerated(client: InferenceServerClient):
    more = {"triton_enable_empty_final_response": False, "anything": "else"}
    answer = infer(client, "featurizer", IMAGES[:1], parameters=more, timeout=10_000_000, priority=1)
    assert np.array_equal(answer.as_numpy("feature_sums")[0], SUMS[0])


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_requests_are_read(client: InferenceServerClient, compression: str):
    answer = infer(client, "featurizer", IMAGES[:1], compression_algorithm=compression)
    assert np.array_equal(answer.as_numpy("feature_sums")[0], SUMS[0])


def test_the_asyncio_client_works_too(address: str):
    async def ask() -> np.ndarray:
        async with triton_aio.InferenceServerClient(address) as client:
            tensor = triton_aio.InferInput("image", list(IMAGES.shape), "UINT8")
            tensor.set_data_from_numpy(IMAGES)
            return (await client.infer("featurizer", [tensor])).as_numpy("feature_sums")

    assert np.array_equal(asyncio.run(ask()), SUMS)


def test_counters_reach_the_client():
    class Counting(GoldenDevice):
        def read_register(self, offset: int) -> int:
            return offset if Register.CYCLES <= offset < Register.LAYERS_DONE else super().read_register(offset)

    with running_service(PROGRAM, device=Counting(PROGRAM.config)) as address, InferenceServerClient(address) as client:
        counters = infer(client, "featurizer", IMAGES[:2]).as_numpy("npu_counters")
    assert dict(zip(COUNTERS, counters[1].tolist(), strict=True)) == {
        "cycles": Register.CYCLES,
        "mac_busy": Register.MAC_BUSY,
        "weight_stall": Register.WEIGHT_STALL,
        "image_stall": Register.IMAGE_STALL,
        "drain": Register.DRAIN,
        "overhead": Register.OVERHEAD,
        "layers_done": len(LAYERS),
    }


def test_twenty_clients_at_once_each_get_their_own_answers(address: str):
    def one_client(seed: int) -> list[bool]:
        rng, right = np.random.default_rng(seed), []
        with InferenceServerClient(address) as client:
            for _ in range(10):
                chosen = rng.integers(0, len(IMAGES), int(rng.integers(1, 4)))
                answer = infer(client, str(rng.choice(["featurizer", "tagger"])), IMAGES[chosen])
                right.append(np.array_equal(answer.as_numpy("feature_sums"), SUMS[chosen]))
        return right

    with ThreadPoolExecutor(20) as pool:
        rights = list(pool.map(one_client, range(20)))
    assert all(all(right) and len(right) == 10 for right in rights)


# Statistics ----------------------------------------------------------------------------------------------------------


def test_statistics_count_what_happened():
    with running_service(PROGRAM, CLASSIFIER) as address, InferenceServerClient(address) as client:
        for batch in (1, 3, 2):
            infer(client, "featurizer", IMAGES[:batch])
        with pytest.raises(InferenceServerException):
            infer(client, "featurizer", IMAGES[:, :5])
        statistics = client.get_inference_statistics("featurizer").model_stats
        everything = client.get_inference_statistics().model_stats
    assert [s.name for s in everything] == ["featurizer", "tagger", "constituents_tagger"]
    (one,) = statistics
    s = one.inference_stats
    assert (s.success.count, s.fail.count, one.inference_count, one.execution_count) == (3, 1, 6, 6)
    assert [d.count for d in (s.queue, s.compute_input, s.compute_infer, s.compute_output)] == [3] * 4
    # The parts may overlap: the device computes one image while the next is packed.
    assert all(0 <= part.ns <= s.success.ns for part in (s.queue, s.compute_input, s.compute_infer, s.compute_output))
    assert s.compute_input.ns and s.compute_infer.ns
    assert everything[1].inference_stats.success.count == 0
    assert one.last_inference > 1_600_000_000_000
