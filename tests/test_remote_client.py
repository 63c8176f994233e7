"""What the client adds for calls that leave the machine: batches, retries with back-off, failover, TLS and tokens."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import trustme
from random_networks import feature_sums, featurizer, featurizer_layers, random_image
from running_service import devices_held, running_configuration, until
from service_servers import serving
from stock_triton import free_port

from driver.device import DeviceError, DeviceTimeoutError
from host_service.client import RemoteNpu, Tls, open_npu
from host_service.models import MAX_BATCH
from host_service.runners import AHEAD

PROGRAM = featurizer(91)
IMAGES = np.stack([random_image(np.random.default_rng(seed), PROGRAM) for seed in range(MAX_BATCH + 6)])
SUMS = np.stack([feature_sums(featurizer_layers(91), image) for image in IMAGES[:8]])
MODELS = {"program": "net.npu"}
TOKEN = "remote-client-0123456789"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, and certificates for localhost and for a client."""
    folder = tmp_path_factory.mktemp("client")
    PROGRAM.save(folder / "net.npu")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, certificate in (
        ("server", authority.issue_cert("localhost")),
        ("client", authority.issue_cert("job@site.example")),
    ):
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        (folder / f"{name}.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with running_configuration(folder, models=MODELS) as running:
        yield running.address


# Batches -------------------------------------------------------------------------------------------------------------


def test_a_batch_gives_what_single_images_give(address: str):
    with RemoteNpu(address) as npu:
        batch = npu.run_batch(IMAGES[:8])
    assert np.array_equal([r.result for r in batch], SUMS)
    assert all(np.array_equal(r.features, PROGRAM.features(sums)) for r, sums in zip(batch, SUMS, strict=True))


def test_more_images_than_a_call_may_carry_go_in_several(address: str):
    with RemoteNpu(address) as npu:
        batch = npu.run_batch(IMAGES)
        assert np.array_equal([r.result for r in batch], [r.result for r in npu.run_many(IMAGES)])


def test_an_empty_batch_has_no_results(address: str):
    with RemoteNpu(address) as npu:
        assert npu.run_batch(IMAGES[:0]) == []


@pytest.mark.parametrize("images", [IMAGES[:2].astype(np.float32), IMAGES[:2, :5], IMAGES[0]])
def test_a_bad_batch_is_refused_before_it_is_sent(address: str, images: np.ndarray):
    with RemoteNpu(address) as npu, pytest.raises(ValueError, match="the program expects"):
        npu.run_batch(images)


# Retries -------------------------------------------------------------------------------------------------------------


def flood(npu: RemoteNpu, calls: int) -> list[Future]:
    """Send ``calls`` at once."""
    return [npu.run_async(IMAGES[i % len(IMAGES)]) for i in range(calls)]


def test_calls_that_find_the_queue_full_are_sent_again(folder: Path):
    overload = {"devices": [{"name": "timed:20ms"}], "limits": {"queue": MAX_BATCH}}
    calls = 2 * MAX_BATCH + 20
    with running_configuration(folder, models=MODELS, **overload) as running:
        scheduler = running.service.scheduler
        with RemoteNpu(running.address, attempts=1) as npu:
            with devices_held(running):
                futures = flood(npu, calls)
                until(lambda: scheduler.refused == calls - MAX_BATCH - AHEAD, "what the queue cannot hold is refused")
            errors = [str(error) for error in map(Future.exception, futures) if error]
        assert len(errors) == scheduler.refused and all("the queue holds" in error for error in errors)
        with RemoteNpu(running.address) as npu:
            assert [future.exception() for future in flood(npu, calls)] == [None] * calls, "with retries nobody notices"


def start(stack: ExitStack, folder: Path, port: int):
    log = folder / f"service-{port}.log"
    return stack.enter_context(serving(["--program", folder / "net.npu"], log, port=port))


def test_a_service_that_restarts_is_found_again(folder: Path):
    port = free_port()
    with ExitStack() as stack:
        server = start(stack, folder, port)
        npu = stack.enter_context(RemoteNpu(server.address, timeout=300))
        assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])
        os.kill(server.pid, signal.SIGKILL)
        start(stack, folder, port)
        assert np.array_equal(npu.run(IMAGES[1]).result, SUMS[1])


def test_of_two_services_the_one_that_lives_answers(folder: Path):
    with ExitStack() as stack:
        servers = [start(stack, folder, free_port()) for _ in range(2)]
        target = "ipv4:" + ",".join(server.address for server in servers)
        npu = stack.enter_context(RemoteNpu(target, timeout=300))
        assert np.array_equal([npu.run(image).result for image in IMAGES[:4]], SUMS[:4])
        os.kill(servers[0].pid, signal.SIGKILL)
        assert np.array_equal([npu.run(image).result for image in IMAGES[:8]], SUMS)


def test_the_timeout_holds_for_all_attempts_together(folder: Path):
    with (
        running_configuration(folder, models=MODELS) as running,
        RemoteNpu(running.address) as npu,
        devices_held(running),
        pytest.raises(DeviceTimeoutError),
    ):
        npu._timeout = 0.5
        npu.run(IMAGES[0])


@pytest.mark.parametrize("attempts", [0, 6])
def test_a_number_of_attempts_that_grpc_cannot_do_is_refused(attempts: int):
    with pytest.raises(ValueError, match="1 to 5"):
        RemoteNpu("127.0.0.1:1", attempts=attempts)


# TLS and tokens ------------------------------------------------------------------------------------------------------


def test_mutual_tls_with_a_token(folder: Path):
    tls = {"certificate": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
    tokens = [{"name": "site", "secret": TOKEN, "models": ["featurizer"]}]
    with running_configuration(folder, models=MODELS, tls=tls, tokens=tokens) as running:
        where = f"grpcs://localhost:{running.address.split(':')[1]}"
        mine = Tls(roots=folder / "ca.pem", key=folder / "client.key", chain=folder / "client.pem")
        with open_npu(where, PROGRAM, tls=mine, token=TOKEN) as npu:
            assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])
        with pytest.raises(DeviceError, match="token"):
            open_npu(where, PROGRAM, tls=mine)
        with pytest.raises(DeviceError, match="service at localhost"):
            open_npu(where, PROGRAM, tls=Tls(roots=folder / "ca.pem"), token=TOKEN, attempts=1)
        with pytest.raises(DeviceError, match="service at localhost"):
            open_npu(where, PROGRAM, token=TOKEN, attempts=1)  # gRPC's own authorities do not know this one
