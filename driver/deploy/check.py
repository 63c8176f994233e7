"""What the installer asks of a release: whether it is whole, before the switch; whether it answers rightly, after."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from driver.deploy.archive import MANIFEST, read_facts
from driver.device import DeviceError
from hw.isa import VERSION
from hw.program import Program, ProgramError

LOOK_SECONDS = 0.5
CALL_SECONDS = 600.0
"""For one jet: a whole ResNet-50 on the simulated board takes minutes."""


def check_release(folder: Path) -> str:
    """Whether the release in ``folder`` fits together with the software that runs this; a sentence on it.

    Raises ProgramError or OSError for a program file that is damaged or missing, DeviceError for another instruction set.
    """
    facts = read_facts((folder / MANIFEST).read_text())
    if facts["isa"] != str(VERSION):
        raise DeviceError(
            f"the archive is for instruction set {facts['isa']}, its software has {VERSION}: make it again"
        )
    program = Program.load(folder / "model" / "program.npu")
    with np.load(folder / "notebook" / "jets.npz", allow_pickle=False) as jets:
        if jets["sums"].shape[1:] != (program.output.channels,):
            raise ProgramError(f"the expected features do not fit the program {program.name!r}: make the archive again")
    return f"{program.name} for {facts['board']}, {len(program.layer_names)} layers"


def check_answer(folder: Path, configuration: Path, seconds: float) -> str:
    """Wait up to ``seconds`` for the service of the file ``configuration``, send it the release's first jet, compare every feature.

    Returns a sentence on it. Where the service wants TLS, only its port is looked at: it may ask for a certificate that nobody here
    has. Raises DeviceError when nobody answers in time, or the answer is wrong.
    """
    values = tomllib.loads(configuration.read_text())
    server = values.get("server", {})
    tokens = [t for t in values.get("tokens", []) if {"*", "featurizer"} & set(t.get("models", ["*"]))]
    host, port = server.get("host", "127.0.0.1"), server.get("port", 8001)
    address = f"{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    if "tls" in values:
        _wait_for_port(address, seconds)
        return f"{address} is open; with TLS it was not asked for a jet"
    with np.load(folder / "notebook" / "jets.npz", allow_pickle=False) as jets:
        image, expected = jets["images"][:1], jets["sums"][0]
    tensor = InferInput("image", list(image.shape), "UINT8")
    tensor.set_data_from_numpy(image)
    headers = {"authorization": f"Bearer {tokens[0]['secret']}"} if tokens else None
    client = InferenceServerClient(address, channel_args=[("grpc.max_reconnect_backoff_ms", round(1e3 * LOOK_SECONDS))])
    try:
        _wait_until_ready(client, address, seconds, headers)
        answer = client.infer("featurizer", [tensor], client_timeout=CALL_SECONDS, headers=headers)
    except InferenceServerException as error:
        raise DeviceError(f"the service at {address} does not answer: {error.message()}") from error
    finally:
        client.close()
    sums = answer.as_numpy("feature_sums")[0]
    if not np.array_equal(sums, expected):
        wrong = f"{np.count_nonzero(sums != expected)} of {len(expected)}" if sums.shape == expected.shape else "all"
        raise DeviceError(
            f"the service at {address} answers wrongly: {wrong} features differ from the golden model's; "
            "does the bitstream belong to this release, or is another service running there?"
        )
    return f"{len(expected)} of {len(expected)} features equal the golden model's"


def _wait_until_ready(
    client: InferenceServerClient, address: str, seconds: float, headers: dict[str, str] | None
) -> None:
    end = time.monotonic() + seconds
    reason = "the featurizer is not ready"
    while True:
        try:
            if client.is_model_ready("featurizer", client_timeout=LOOK_SECONDS * 10, headers=headers):
                return
        except InferenceServerException as error:
            reason = error.message()
        if time.monotonic() > end:
            raise DeviceError(f"nobody answers at {address} after {seconds:g} s ({reason}): look at the service's log")
        time.sleep(LOOK_SECONDS)


def _wait_for_port(address: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    host, _, port = address.rpartition(":")
    while True:
        try:
            with socket.create_connection((host, int(port)), LOOK_SECONDS * 10):
                return
        except OSError as error:
            if time.monotonic() > end:
                raise DeviceError(
                    f"nobody listens at {address} after {seconds:g} s ({error}): look at the service's log"
                ) from error
        time.sleep(LOOK_SECONDS)
