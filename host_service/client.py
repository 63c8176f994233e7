"""The driver's methods over the wire: code written for ``driver.runtime.Npu`` runs on a remote service by changing one line.

    with open_npu("rtl", "net.npu") as npu:                    # this machine
    with open_npu("grpc://fpga.example:8001", "net.npu") as npu:   # somebody else's
    with open_npu("grpcs://fpga.example:8001", "net.npu", token="...") as npu:   # with TLS
        result = npu.run(image)

Any Triton client can call the service as well; this one adds the driver's types, the certainty that the service runs the very program
that the caller has, and retries: a call that found no server or a full queue is sent again, after a pause that doubles each time, by gRPC
itself (https://github.com/grpc/proposal/blob/master/A6-client-retries.md).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from driver.device import DeviceError, DeviceTimeoutError, open_device
from driver.runtime import TIMEOUT, Counters, Npu, Result, in_order
from host_service.models import MAX_BATCH, fingerprint
from hw.program import Program

SCHEME, TLS_SCHEME = "grpc://", "grpcs://"
OUTPUTS = ("feature_sums", "features", "npu_counters")
ATTEMPTS = 5
"""Calls sent for one that the caller makes, the first included; gRPC allows no more."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds before the second attempt (gRPC varies it at random), and at most; a service with a full queue may name its own pause."""
RETRIED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
"""Statuses after which no device has seen the call, or no answer can come from it any more."""
RETRY_BUFFER = 1 << 28
"""Bytes of a request that gRPC keeps to send again; its default of 256 kB is less than one FP32 image."""


@dataclass(frozen=True)
class Tls:
    """Certificates, as PEM files. Without ``roots``, gRPC's own authorities; ``key`` and ``chain`` (mutual TLS) are the client's."""

    roots: Path | None = None
    key: Path | None = None
    chain: Path | None = None


def channel_options(attempts: int = ATTEMPTS) -> list[tuple[str, Any]]:
    """gRPC channel arguments with the retries; of use to any Triton client (``channel_args`` of tritonclient).

    Several servers of one name, or of a target like ``ipv4:10.0.0.1:8001,10.0.0.2:8001``, take turns; one that does not answer is passed
    over.
    """
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": f"{FIRST_PAUSE}s",
        "maxBackoff": f"{LONGEST_PAUSE}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": RETRIED,
    }
    service = {"name": [{"service": "inference.GRPCInferenceService"}]} | (
        {"retryPolicy": policy} if attempts > 1 else {}
    )
    config = {"methodConfig": [service], "loadBalancingConfig": [{"round_robin": {}}]}
    return [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.service_config", json.dumps(config)),
        ("grpc.per_rpc_retry_buffer_size", RETRY_BUFFER),
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]


class RemoteNpu:
    """An NPU behind the service at ``address``, with the methods of ``driver.runtime.Npu``.

    ``address``: "host:port", or any target of gRPC (see channel_options()). ``timeout``: seconds for one call, the wait for other callers'
    images and all attempts included. ``tls``: certificates; None for a connection in the clear. ``token``: sent as the bearer token.
    ``attempts``: 1 for no retries, at most 5. Raises DeviceError when nobody answers there.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = TIMEOUT,
        model: str = "featurizer",
        tls: Tls | None = None,
        token: str = "",
        attempts: int = ATTEMPTS,
    ) -> None:
        if not 1 <= attempts <= ATTEMPTS:
            raise ValueError(f"{attempts} attempts: there may be 1 to {ATTEMPTS}")
        self.address = address
        self._timeout = timeout
        self._model = model
        self._program: Program | None = None
        self._headers = {"authorization": f"Bearer {token}"} if token else None
        files = (
            {}
            if tls is None
            else {"root_certificates": tls.roots, "private_key": tls.key, "certificate_chain": tls.chain}
        )
        self._client = InferenceServerClient(
            address, ssl=tls is not None, channel_args=channel_options(attempts), **files
        )
        try:
            more = {"headers": self._headers, "client_timeout": min(timeout, 30.0)}
            config = self._client.get_model_config(model, **more).config
        except InferenceServerException as error:
            self._client.close()
            raise self._error(error) from error
        self._image_shape = tuple(config.input[0].dims)
        self._fingerprint = config.parameters["program_sha256"].string_value
        self._program_name = config.parameters["program"].string_value

    def load(self, program: Program | str | Path) -> Program:
        """Make sure that the service runs exactly ``program`` (or program file); returns it.

        A service keeps the program it was started with. Raises DeviceError when that is another one, ProgramError or OSError for a
        bad file.
        """
        if not isinstance(program, Program):
            program = Program.load(program)
        if fingerprint(program) != self._fingerprint:
            raise DeviceError(
                f"the service at {self.address} runs another program ({self._program_name!r}) than yours ({program.name!r}): "
                "start it with your program file, or use its own"
            )
        self._program = program
        return program

    @property
    def program(self) -> Program:
        """The program that was compared with the service's. Raises DeviceError when there was none."""
        if self._program is None:
            raise DeviceError("no program is loaded: call load() first")
        return self._program

    def run(self, image: NDArray[np.uint8]) -> Result:
        """Compute one image, uint8 [height, width, channels]; the counters of single layers stay with the service.

        Raises ValueError for another shape or type, DeviceError (with the service's text) when the NPU or the network fails,
        DeviceTimeoutError when no answer comes in time.
        """
        return self.run_async(image).result()

    def run_async(self, image: NDArray[np.uint8]) -> Future[Result]:
        """Like run(), without waiting: the future has the result. A bad image raises ValueError here."""
        self._check(image)
        return self._send(image[None], lambda results: results[0])

    def run_batch(self, images: NDArray[np.uint8]) -> list[Result]:
        """Compute ``images``, uint8 [n, height, width, channels], with up to 64 in one call: fewer calls, the same integers.

        Raises what run() raises; then no image has a result.
        """
        for image in images:
            self._check(image)
        parts = [images[i : i + MAX_BATCH] for i in range(0, len(images), MAX_BATCH)]
        futures = [self._send(part, lambda results: results) for part in parts]
        return [result for future in futures for result in future.result()]

    def run_many(self, images: Iterable[NDArray[np.uint8]]) -> Iterator[Result]:
        """The results of ``images``, in order, with a few requests under way at a time. Raises what run() raises, in its place."""
        return in_order(self.run_async, images)

    def close(self) -> None:
        """Close the connection; what is under way fails. May be called again."""
        self._client.close()

    def __enter__(self) -> RemoteNpu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, image: NDArray[np.uint8]) -> None:
        if image.dtype != np.uint8:
            raise ValueError(f"the image is {image.dtype}, the program expects uint8")
        if image.shape != self._image_shape:
            raise ValueError(f"the image is {image.shape}, the program expects {self._image_shape}")

    def _send(self, images: NDArray[np.uint8], take: Callable[[list[Result]], Any]) -> Future[Any]:
        """One call with a batch; the future has ``take`` of its results."""
        tensor = InferInput("image", list(images.shape), "UINT8")
        tensor.set_data_from_numpy(images)
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        begin = time.perf_counter()

        def finish(result: InferResult | None, error: InferenceServerException | None) -> None:
            try:
                if error is not None or result is None:
                    raise self._error(error)
                elapsed = time.perf_counter() - begin
                sums, features, counters = (result.as_numpy(name) for name in OUTPUTS)
                rows = zip(sums, features, counters, strict=True)
                future.set_result(take([_result(*row, seconds=elapsed) for row in rows]))
            except Exception as failure:
                future.set_exception(failure)

        outputs = [InferRequestedOutput(name) for name in OUTPUTS]
        more = {"headers": self._headers, "client_timeout": self._timeout}
        self._client.async_infer(self._model, [tensor], finish, outputs=outputs, **more)
        return future

    def _error(self, error: InferenceServerException | None) -> DeviceError:
        """The driver's error for what the wire reports."""
        text = f"service at {self.address}: {error.message() if error else 'no answer'}"
        if error is not None and error.status() == "StatusCode.DEADLINE_EXCEEDED":
            return DeviceTimeoutError(text)
        return DeviceError(text)


def _result(
    sums: NDArray[np.int32], features: NDArray[np.float32], counters: NDArray[np.uint32], seconds: float
) -> Result:
    features = features.copy()  # of the service, which divides as Program.features does
    return Result(sums.copy(), Counters(*counters.tolist()), seconds, lambda _: features)


def open_npu(where: str, program: Program | str | Path, **options: Any) -> Npu | RemoteNpu:
    """An NPU with ``program`` (or program file) ready to run: a device of this machine by name, or a service.

    ``grpc://host:port`` is a service, ``grpcs://host:port`` one with TLS; ``options`` are then RemoteNpu's, else the device's. Raises
    ProgramError or OSError for a bad file, DeviceError when there is no such device or service or it cannot run the program.
    """
    if not isinstance(program, Program):
        program = Program.load(program)
    npu: Npu | RemoteNpu
    if where.startswith(SCHEME):
        npu = RemoteNpu(where.removeprefix(SCHEME), **options)
    elif where.startswith(TLS_SCHEME):
        npu = RemoteNpu(where.removeprefix(TLS_SCHEME), **{"tls": Tls()} | options)
    else:
        npu = Npu(open_device(where, program.config, **options))
    try:
        npu.load(program)
    except BaseException:
        npu.close()
        raise
    return npu
