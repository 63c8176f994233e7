"""TLS, client certificates, and bearer tokens for single models."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from random_networks import CHANNELS, feature_sums, featurizer, featurizer_layers, random_image
from running_service import Running, random_classifier, running_configuration
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.usefixtures("each_transport")
SEED = 101
PROGRAM = featurizer(SEED)
IMAGE = random_image(np.random.default_rng(SEED), PROGRAM)
SUMS = feature_sums(featurizer_layers(SEED), IMAGE)
TOKENS = [
    {"name": "cms", "secret": "cms-0123456789abcdef", "models": ["tagger"]},
    {"name": "dune", "secret": "dune-0123456789abcdef"},
    {"name": "operator", "secret": "operator-0123456789abcdef", "models": [], "admin": True},
]


def write(folder: Path, name: str, *blobs: trustme.Blob) -> str:
    (folder / name).write_bytes(b"".join(blob.bytes() for blob in blobs))
    return name


@dataclass
class Site:
    """A folder with a network and the certificates of two authorities."""

    folder: Path
    tls: dict[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("security")
    PROGRAM.save(folder / "net.npu")
    np.savez(folder / "net.npz", **{f"classifier/{k}": v for k, v in vars(random_classifier(1, CHANNELS)).items()})
    for name in ("ours", "strangers"):
        authority = trustme.CA()
        write(folder, f"{name}-ca.pem", authority.cert_pem)
        client = authority.issue_cert(f"jobs@{name}.example")
        write(folder, f"{name}-client.pem", *client.cert_chain_pems)
        write(folder, f"{name}-client.key", client.private_key_pem)
        if name == "ours":
            server = authority.issue_cert("localhost", "127.0.0.1")
            write(folder, "server.pem", *server.cert_chain_pems)
            write(folder, "server.key", server.private_key_pem)
    return Site(folder, {"certificate": "server.pem", "key": "server.key"})


def serve(site: Site, http: bool = False, **tables: object):
    models = {"program": "net.npu", "classifier": "net.npz"}
    return running_configuration(site.folder, http, models=models, **tables)


@pytest.fixture(scope="module")
def mutual(each_transport: str, site: Site) -> Iterator[Running]:
    with serve(site, tls={**site.tls, "client_ca": "ours-ca.pem"}) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(each_transport: str, site: Site) -> Iterator[Running]:
    with serve(site, tokens=TOKENS) as running:
        yield running


def sums(address: str, model: str = "featurizer", token: str = "", **tls: object) -> np.ndarray:
    with InferenceServerClient(address.replace("127.0.0.1", "localhost") if tls else address, **tls) as client:
        tensor = InferInput("image", [1, *IMAGE.shape], "UINT8")
        tensor.set_data_from_numpy(IMAGE[None])
        headers = {"authorization": token} if token else None
        return client.infer(model, [tensor], headers=headers, client_timeout=30).as_numpy("feature_sums")[0]


def certificates(site: Site, authority: str, client: str = "") -> dict[str, object]:
    own = (
        {"private_key": site.folder / f"{client}-client.key", "certificate_chain": site.folder / f"{client}-client.pem"}
        if client
        else {}
    )
    root = {"root_certificates": str(site.folder / f"{authority}-ca.pem")}
    return {"ssl": True, **root, **{key: str(path) for key, path in own.items()}}


# TLS -----------------------------------------------------------------------------------------------------------------


def test_a_client_that_trusts_the_authority_is_served(site: Site):
    with serve(site, tls=site.tls) as running:
        assert np.array_equal(sums(running.address, **certificates(site, "ours")), SUMS)
        with pytest.raises(InferenceServerException, match=r"handshake|failed to connect|CERTIFICATE"):
            sums(running.address, **certificates(site, "strangers"))
        with pytest.raises(InferenceServerException):
            sums(running.address)
        assert np.array_equal(sums(running.address, **certificates(site, "ours")), SUMS)


def test_a_client_with_a_certificate_of_ours_is_served(mutual: Running, site: Site):
    assert np.array_equal(sums(mutual.address, **certificates(site, "ours", "ours")), SUMS)


@pytest.mark.parametrize("client", ["", "strangers"])
def test_a_client_without_a_certificate_of_ours_is_not(mutual: Running, site: Site, client: str):
    with pytest.raises(InferenceServerException) as caught:
        sums(mutual.address, **certificates(site, "ours", client))
    assert caught.value.status() in ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")


# Tokens --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "token"),
    [
        ("tagger", "Bearer cms-0123456789abcdef"),
        ("tagger", "bearer dune-0123456789abcdef"),
        ("featurizer", "Bearer dune-0123456789abcdef"),
    ],
)
def test_a_token_opens_its_models(guarded: Running, model: str, token: str):
    assert np.array_equal(sums(guarded.address, model, token), SUMS)


@pytest.mark.parametrize(
    ("model", "token", "status", "text"),
    [
        ("tagger", "", "UNAUTHENTICATED", "wants a token"),
        ("tagger", "cms-0123456789abcdef", "UNAUTHENTICATED", "wants a token"),
        ("tagger", "Basic cms-0123456789abcdef", "UNAUTHENTICATED", "wants a token"),
        ("tagger", "Bearer cms-0123456789abcdeF", "UNAUTHENTICATED", "not one that this service knows"),
        ("tagger", "Bearer ", "UNAUTHENTICATED", "wants a token"),
        ("featurizer", "Bearer cms-0123456789abcdef", "PERMISSION_DENIED", "'cms' is not for model 'featurizer'"),
        ("tagger", "Bearer operator-0123456789abcdef", "PERMISSION_DENIED", "'operator' is not for model 'tagger'"),
        ("nobody", "", "UNAUTHENTICATED", "wants a token"),
    ],
)
def test_without_the_right_token_a_model_is_closed(guarded: Running, model: str, token: str, status: str, text: str):
    with pytest.raises(InferenceServerException, match=text) as caught:
        sums(guarded.address, model, token)
    assert caught.value.status() == f"StatusCode.{status}"


def test_the_tensorflow_call_and_streams_want_the_token_too(guarded: Running):
    with grpc.insecure_channel(guarded.address) as channel:
        request = b"\x0a\x08\x0a\x06tagger"  # model_spec { name: "tagger" }
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(request, timeout=30)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        data = pb.ModelInferRequest(model_name="tagger").SerializeToString()
        (answer,) = stream(iter([data]), timeout=30)
        assert "wants a token" in pb.ModelStreamInferResponse.FromString(answer).error_message


def test_only_an_operator_changes_what_is_served(guarded: Running):
    with InferenceServerClient(guarded.address) as client:
        for token, text in (("", "wants a token"), ("Bearer dune-0123456789abcdef", "may not load")):
            with pytest.raises(InferenceServerException, match=text):
                client.load_model("tagger", headers={"authorization": token} if token else None)
        with pytest.raises(InferenceServerException, match="has no model repository"):
            client.load_model("tagger", headers={"authorization": "Bearer operator-0123456789abcdef"})


def test_health_and_names_need_no_token(guarded: Running):
    with InferenceServerClient(guarded.address) as client:
        assert client.is_server_ready() and client.is_model_ready("tagger")
        assert len(client.get_model_repository_index().models) == 3
