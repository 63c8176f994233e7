"""Every call of tritonclient's gRPC client against our service and a stock Triton server with the same model folder, answers compared.

The folder is the one of host_service/deploy/triton: Triton runs its model.py, which drives the NPU, our service reads its program.npu. The
device is the integer golden model on both sides, so features are compared by ``==``. The first run fetches the server (53 MB).
"""

import asyncio
import queue
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stock_triton
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.utils.shared_memory as shared_memory
from random_networks import feature_sums, featurizer, featurizer_layers, random_image
from running_service import until
from service_servers import serving
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from hw.sources import ROOT

MODEL, REAL_MODEL = "featurizer", "featurizer_fp32"
PROGRAM = featurizer(61)
IMAGES = np.stack([random_image(np.random.default_rng(seed), PROGRAM) for seed in range(5)])
SUMS = np.stack([feature_sums(featurizer_layers(61), image) for image in IMAGES])
OUTPUTS = ("features", "feature_sums", "npu_counters")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Addresses of both, each with a copy of the same model folder."""
    folder = tmp_path_factory.mktemp("triton")
    repositories = {name: folder / name for name in ("quarkwave", "triton")}
    for repository in repositories.values():
        shutil.copytree(ROOT / "host_service" / "deploy" / "triton", repository)
        config = repository / MODEL / "config.pbtxt"
        config.write_text(config.read_text().replace('"board"', '"golden"'))
        PROGRAM.save(repository / MODEL / "1" / "program.npu")
        shutil.copytree(repository / MODEL, repository / REAL_MODEL)
        (repository / REAL_MODEL / "config.pbtxt").write_text(config.read_text().replace('"UINT8"', '"FP32"'))
    explicit = ["--model-control-mode=explicit", f"--load-model={MODEL}", f"--load-model={REAL_MODEL}"]
    arguments = ["--models", repositories["quarkwave"], "--device", "golden"]
    with (
        serving(arguments, folder / "quarkwave.log") as ours,
        stock_triton.running(repositories["triton"], explicit) as (theirs, _),
    ):
        yield {"quarkwave": ours.address, "triton": theirs}


@pytest.fixture(scope="module")
def clients(servers: dict[str, str]) -> Iterator[dict[str, InferenceServerClient]]:
    with InferenceServerClient(servers["quarkwave"]) as ours, InferenceServerClient(servers["triton"]) as theirs:
        yield {"quarkwave": ours, "triton": theirs}


Clients = dict[str, InferenceServerClient]


def from_both(clients: Clients, call: Callable[[InferenceServerClient], Any]) -> tuple[Any, Any]:
    """What ``call`` returns with our service, and with Triton; of a refusal its status code."""

    def outcome(client: InferenceServerClient) -> Any:
        try:
            return call(client)
        except InferenceServerException as error:
            return error.status()

    return outcome(clients["quarkwave"]), outcome(clients["triton"])


def same(clients: Clients, call: Callable[[InferenceServerClient], Any]) -> Any:
    """What both return; it must be equal."""
    ours, theirs = from_both(clients, call)
    assert ours == theirs
    return ours


def image_input(images: np.ndarray, datatype: str = "UINT8", name: str = "image") -> InferInput:
    tensor = InferInput(name, list(images.shape), datatype)
    tensor.set_data_from_numpy(images)
    return tensor


def wanted(*names: str, **options: Any) -> list[InferRequestedOutput]:
    return [InferRequestedOutput(name, **options) for name in names]


def content(result: InferResult) -> dict[str, Any]:
    """What an answer says, apart from its outputs' values. Their order is the request's with us, the model's with Triton."""
    response = result.get_response()
    return {
        "model": (response.model_name, response.model_version, response.id),
        "outputs": sorted((o.name, o.datatype, tuple(o.shape)) for o in response.outputs),
    }


def equal_answers(clients: Clients, call: Callable[[InferenceServerClient], InferResult], count: int) -> None:
    """Both answer the first ``count`` images alike, and rightly."""
    ours, theirs = from_both(clients, call)
    assert content(ours) == content(theirs)
    for name in (o.name for o in theirs.get_response().outputs):
        assert np.array_equal(ours.as_numpy(name), theirs.as_numpy(name)), name
    assert np.array_equal(ours.as_numpy("feature_sums"), SUMS[:count])


# Health and descriptions ---------------------------------------------------------------------------------------------


def test_both_are_live_and_ready(clients: Clients):
    assert same(clients, lambda c: c.is_server_live()) is True
    assert same(clients, lambda c: c.is_server_ready()) is True


@pytest.mark.parametrize(("name", "version"), [(MODEL, ""), (MODEL, "1")])
def test_the_model_is_ready(clients: Clients, name: str, version: str):
    assert same(clients, lambda c: c.is_model_ready(name, version)) is True


@pytest.mark.parametrize(("name", "version"), [(MODEL, "7"), ("inception", "")])
def test_a_model_that_is_not_there_is_not_ready(clients: Clients, name: str, version: str):
    for outcome in from_both(clients, lambda c: c.is_model_ready(name, version)):
        assert outcome is False or outcome == "StatusCode.NOT_FOUND"


def test_server_metadata_has_the_extensions_that_clients_look_for(clients: Clients):
    ours, theirs = from_both(clients, lambda c: set(c.get_server_metadata().extensions))
    assert ours <= theirs, "an extension that Triton does not have"
    assert {"statistics", "model_repository", "model_configuration", "system_shared_memory", "classification"} <= ours


def test_model_metadata(clients: Clients):
    def tensors(c: InferenceServerClient) -> Any:
        m = c.get_model_metadata(MODEL)
        inputs, outputs = ([(t.name, t.datatype, tuple(t.shape)) for t in ts] for ts in (m.inputs, m.outputs))
        return m.name, list(m.versions), inputs, outputs

    same(clients, tensors)


def test_model_config(clients: Clients):
    def config(c: InferenceServerClient) -> Any:
        m = c.get_model_config(MODEL).config
        inputs, outputs = ([(t.name, t.data_type, tuple(t.dims)) for t in ts] for ts in (m.input, m.output))
        return m.name, m.max_batch_size, inputs, outputs

    same(clients, config)


@pytest.mark.parametrize("call", ["get_model_metadata", "get_model_config", "get_inference_statistics"])
def test_descriptions_of_an_unknown_model_are_refused_alike(clients: Clients, call: str):
    ours, theirs = from_both(clients, lambda c: getattr(c, call)("inception"))
    assert ours == "StatusCode.NOT_FOUND"
    assert theirs in ("StatusCode.NOT_FOUND", "StatusCode.INVALID_ARGUMENT")


def test_repository_index(clients: Clients):
    same(clients, lambda c: [(m.name, m.version, m.state) for m in c.get_model_repository_index().models])


# Inference -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5])
def test_infer(clients: Clients, count: int):
    equal_answers(clients, lambda c: c.infer(MODEL, [image_input(IMAGES[:count])], outputs=wanted(*OUTPUTS)), count)


def test_infer_of_real_values_is_quantised_alike(clients: Clients):
    rng = np.random.default_rng(61)
    images = rng.uniform(-0.25, 1.25, IMAGES.shape).astype(np.float32)

    def infer(c: InferenceServerClient) -> bytes:
        return (
            c.infer(REAL_MODEL, [image_input(images, "FP32")], outputs=wanted("feature_sums"))
            .as_numpy("feature_sums")
            .tobytes()
        )

    grid = np.clip(np.rint(images.astype(np.float64) * 2.0**PROGRAM.image_fraction_bits), 0, 255).astype(np.uint8)
    expected = np.stack([feature_sums(featurizer_layers(61), image) for image in grid])
    assert same(clients, infer) == expected.tobytes(), "seed 61"


def test_what_is_no_number_is_refused_by_both(clients: Clients):
    images = np.zeros(IMAGES[:1].shape, np.float32)
    images[0, 1, 2, 0] = np.nan
    for client in clients.values():
        with pytest.raises(InferenceServerException, match="NaN or an infinity"):
            client.infer(REAL_MODEL, [image_input(images, "FP32")])


def test_infer_without_named_outputs_gives_all_of_them(clients: Clients):
    names = same(clients, lambda c: {o.name for o in c.infer(MODEL, [image_input(IMAGES[:1])]).get_response().outputs})
    assert names == set(OUTPUTS)


@pytest.mark.parametrize("outputs", [("feature_sums",), ("feature_sums", "features")])
def test_infer_gives_the_outputs_asked_for(clients: Clients, outputs: tuple[str, ...]):
    equal_answers(clients, lambda c: c.infer(MODEL, [image_input(IMAGES[:2])], outputs=wanted(*outputs)), 2)


@pytest.mark.parametrize(
    "options",
    [
        {"request_id": "jet-17"},
        {"model_version": "1"},
        {"compression_algorithm": "gzip"},
        {"compression_algorithm": "deflate"},
        {"timeout": 30_000_000},
        {"client_timeout": 60.0},
        {"priority": 1},
        {"headers": {"run": "2026a"}},
        {"parameters": {"triton_enable_empty_final_response": False}},
        {"parameters": {"colour": "blue"}},
        {"sequence_id": 0},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_infer_options(clients: Clients, options: dict[str, Any]):
    equal_answers(clients, lambda c: c.infer(MODEL, [image_input(IMAGES[:1])], outputs=wanted(*OUTPUTS), **options), 1)


def test_async_infer(clients: Clients):
    def call(c: InferenceServerClient) -> InferResult:
        done: queue.Queue[tuple[InferResult, InferenceServerException | None]] = queue.Queue()
        c.async_infer(
            MODEL, [image_input(IMAGES[:1])], lambda result, error: done.put((result, error)), outputs=wanted(*OUTPUTS)
        )
        result, error = done.get(timeout=60)
        assert error is None
        return result

    equal_answers(clients, call, 1)


def test_stream_infer_answers_in_order(clients: Clients):
    def call(c: InferenceServerClient) -> list[tuple[str, bytes]]:
        done: queue.Queue[tuple[InferResult, InferenceServerException | None]] = queue.Queue()
        c.start_stream(lambda result, error: done.put((result, error)))
        for i in range(len(IMAGES)):
            c.async_stream_infer(MODEL, [image_input(IMAGES[i : i + 1])], request_id=str(i))
        answers = [done.get(timeout=60) for _ in IMAGES]
        c.stop_stream()
        assert [error for _, error in answers] == [None] * len(IMAGES)
        return [(r.get_response().id, r.as_numpy("feature_sums").tobytes()) for r, _ in answers]

    answers = same(clients, call)
    assert answers == [(str(i), SUMS[i].tobytes()) for i in range(len(IMAGES))]


def test_an_error_in_a_stream_does_not_end_it(clients: Clients):
    def call(c: InferenceServerClient) -> list[bool]:
        done: queue.Queue[tuple[InferResult, InferenceServerException | None]] = queue.Queue()
        c.start_stream(lambda result, error: done.put((result, error)))
        for model in ("inception", MODEL):
            c.async_stream_infer(model, [image_input(IMAGES[:1])])
        outcomes = [done.get(timeout=60)[1] is None for _ in range(2)]
        c.stop_stream()
        return outcomes

    assert sorted(same(clients, call)) == [False, True]


def test_classification_output(clients: Clients):
    def call(c: InferenceServerClient) -> list[list[bytes]]:
        result = c.infer(MODEL, [image_input(IMAGES[:2])], outputs=wanted("features", class_count=3))
        return result.as_numpy("features").tolist()

    best = np.argsort(-PROGRAM.features(SUMS[:2]), axis=1, kind="stable")[:, :3]
    strings = same(clients, call)
    assert [[int(text.split(b":")[1]) for text in row] for row in strings] == best.tolist()


@pytest.mark.parametrize(
    ("name", "images", "datatype", "outputs"),
    [
        ("picture", IMAGES[:1], "UINT8", OUTPUTS),
        ("image", IMAGES[:1, :5], "UINT8", OUTPUTS),
        ("image", IMAGES[0], "UINT8", OUTPUTS),
        ("image", IMAGES[:1].astype(np.int8), "INT8", OUTPUTS),
        ("image", IMAGES[:1], "UINT8", ("fetures",)),
        ("image", np.repeat(IMAGES[:1], 65, axis=0), "UINT8", OUTPUTS),
    ],
    ids=["input-name", "shape", "no-batch", "datatype", "output-name", "batch-too-large"],
)
def test_bad_requests_get_the_same_status(
    clients: Clients, name: str, images: np.ndarray, datatype: str, outputs: tuple[str, ...]
):
    status = same(clients, lambda c: c.infer(MODEL, [image_input(images, datatype, name)], outputs=wanted(*outputs)))
    assert status == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize(("name", "version"), [("inception", ""), (MODEL, "7")])
def test_an_unknown_model_gets_the_same_status(clients: Clients, name: str, version: str):
    ours, theirs = from_both(clients, lambda c: c.infer(name, [image_input(IMAGES[:1])], model_version=version))
    assert ours == "StatusCode.NOT_FOUND"
    assert theirs in ("StatusCode.NOT_FOUND", "StatusCode.INVALID_ARGUMENT")  # Triton answers the latter for a version


def test_the_asyncio_client(servers: dict[str, str]):
    async def answers(address: str) -> list[bytes]:
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            calls = (client.infer(MODEL, [image_input(image[None])]) for image in IMAGES)
            return [result.as_numpy("feature_sums").tobytes() for result in await asyncio.gather(*calls)]

    ours, theirs = (asyncio.run(answers(servers[name])) for name in ("quarkwave", "triton"))
    assert ours == theirs == [sums.tobytes() for sums in SUMS]


# Shared memory -------------------------------------------------------------------------------------------------------


def once_released(unregister: Callable[[], None]) -> None:
    """Triton lets go of a request's regions a moment after its answer, and until then refuses to forget them, with INTERNAL."""

    def done() -> bool:
        try:
            unregister()
        except InferenceServerException as error:
            if error.status() != "StatusCode.INTERNAL":
                raise
            return False
        return True

    until(done, "the regions are forgotten")


@pytest.mark.parametrize("count", [1, 3])
def test_system_shared_memory(clients: Clients, count: int):
    def call(c: InferenceServerClient) -> tuple[list[str], bytes, list[str]]:
        size, answer = IMAGES[:count].nbytes, SUMS[:count].nbytes
        inputs = shared_memory.create_shared_memory_region("jets", "/quarkwave_test_jets", size)
        outputs = shared_memory.create_shared_memory_region("sums", "/quarkwave_test_sums", answer)
        try:
            shared_memory.set_shared_memory_region(inputs, [IMAGES[:count]])
            c.register_system_shared_memory("jets", "/quarkwave_test_jets", size)
            c.register_system_shared_memory("sums", "/quarkwave_test_sums", answer)
            status = c.get_system_shared_memory_status().regions
            tensor = InferInput("image", list(IMAGES[:count].shape), "UINT8")
            tensor.set_shared_memory("jets", size)
            output = InferRequestedOutput("feature_sums")
            output.set_shared_memory("sums", answer)
            c.infer(MODEL, [tensor], outputs=[output])
            sums = shared_memory.get_contents_as_numpy(outputs, np.int32, SUMS[:count].shape).tobytes()
            regions = sorted(f"{r.name} {r.key} {r.offset} {r.byte_size}" for r in status.values())
            once_released(lambda: c.unregister_system_shared_memory("jets"))
            once_released(c.unregister_system_shared_memory)
            return regions, sums, list(c.get_system_shared_memory_status().regions)
        finally:
            shared_memory.destroy_shared_memory_region(inputs)
            shared_memory.destroy_shared_memory_region(outputs)

    regions, sums, left = same(clients, call)
    assert len(regions) == 2
    assert sums == SUMS[:count].tobytes()
    assert left == []


def test_a_region_that_is_not_there_is_refused(clients: Clients):
    for outcome in from_both(clients, lambda c: c.register_system_shared_memory("x", "/quarkwave_nowhere", 64)):
        assert str(outcome).startswith("StatusCode.")


# Statistics and the repository ---------------------------------------------------------------------------------------


def test_statistics_count_alike(clients: Clients):
    def counts(c: InferenceServerClient) -> np.ndarray:
        (stats,) = c.get_inference_statistics(MODEL).model_stats
        inference = stats.inference_stats
        assert inference.success.ns >= inference.queue.ns
        return np.array([stats.inference_count, inference.success.count, inference.fail.count])

    def call(c: InferenceServerClient) -> list[int]:
        before = counts(c)
        for count in (1, 4):
            c.infer(MODEL, [image_input(IMAGES[:count])])
        until(lambda: counts(c)[1] == before[1] + 2, "both requests are counted")  # Triton does it after its answer
        return (counts(c) - before).tolist()

    assert same(clients, call) == [5, 2, 0]


def test_unload_and_load(clients: Clients):
    def call(c: InferenceServerClient) -> list[Any]:
        c.unload_model(MODEL)
        away = c.is_model_ready(MODEL)
        c.load_model(MODEL)
        return [
            away,
            c.is_model_ready(MODEL),
            c.infer(MODEL, [image_input(IMAGES[:1])]).as_numpy("feature_sums").tobytes(),
        ]

    assert same(clients, call) == [False, True, SUMS[0].tobytes()]


def test_a_model_that_the_folder_does_not_have_cannot_be_loaded(clients: Clients):
    for outcome in from_both(clients, lambda c: c.load_model("inception")):
        assert str(outcome).startswith("StatusCode.")


@pytest.mark.parametrize(
    "call",
    [
        lambda c: list(c.get_cuda_shared_memory_status().regions),
        lambda c: c.unregister_cuda_shared_memory("x"),
        lambda c: c.unregister_cuda_shared_memory(),
    ],
    ids=["status", "unregister", "unregister-all"],
)
def test_there_is_no_cuda_shared_memory_to_forget(clients: Clients, call: Callable[[InferenceServerClient], Any]):
    same(clients, call)


# What only Triton has ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.get_trace_settings(),
        lambda c: c.update_trace_settings(settings={"trace_level": ["OFF"]}),
        lambda c: c.get_log_settings(),
        lambda c: c.update_log_settings({"log_info": True}),
        lambda c: c.register_cuda_shared_memory("x", b"AAAA", 0, 64),
    ],
    ids=["trace", "set-trace", "log", "set-log", "cuda-register"],
)
def test_what_is_not_offered_is_unimplemented(clients: Clients, call: Callable[[InferenceServerClient], Any]):
    ours, _ = from_both(clients, call)
    assert ours == "StatusCode.UNIMPLEMENTED"


def test_every_call_of_the_client_is_covered():
    text = Path(__file__).read_text()
    calls = [name for name in vars(triton.InferenceServerClient) if not name.startswith("_") and name != "close"]
    assert [name for name in calls if name not in text and name != "register_plugin"] == []
