"""The driver's methods over the wire: code written for ``driver.runtime.Npu`` runs on a remote service by changing one line.

    with open_npu("rtl", "net.npu") as npu:                    # this machine
    with open_npu("grpc://fpga.example:8001", "net.npu") as npu:   # somebody else's
        result = npu.run(image)

Any Triton client can call the service as well; this one adds the driver's types, and the certainty that the service runs the very
program that the caller has.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from driver.device import DeviceError, DeviceTimeoutError, open_device
from driver.runtime import TIMEOUT, Counters, Npu, Result, in_order
from host_service.models import fingerprint
from hw.program import Program

SCHEME = "grpc://"
OUTPUTS = ("feature_sums", "features", "npu_counters")


class RemoteNpu:
    """An NPU behind the service at ``address`` ("host:port"), with the methods of ``driver.runtime.Npu``.

    ``timeout``: seconds for one image, the wait for other callers' images included. Raises DeviceError when nobody answers there.
    """

    def __init__(self, address: str, *, timeout: float = TIMEOUT, model: str = "featurizer") -> None:
        self.address = address
        self._timeout = timeout
        self._model = model
        self._program: Program | None = None
        self._client = InferenceServerClient(address)
        try:
            config = self._client.get_model_config(model, client_timeout=min(timeout, 30.0)).config
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
        if image.dtype != np.uint8:
            raise ValueError(f"the image is {image.dtype}, the program expects uint8")
        if image.shape != self._image_shape:
            raise ValueError(f"the image is {image.shape}, the program expects {self._image_shape}")
        tensor = InferInput("image", [1, *image.shape], "UINT8")
        tensor.set_data_from_numpy(image[None])
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()
        begin = time.perf_counter()

        def finish(result: InferResult | None, error: InferenceServerException | None) -> None:
            try:
                if error is not None or result is None:
                    raise self._error(error)
                sums, features, counters = (result.as_numpy(name)[0] for name in OUTPUTS)
                elapsed = time.perf_counter() - begin
                answer = Result(sums.copy(), features.copy(), Counters(*counters.tolist()), elapsed)
            except Exception as failure:
                future.set_exception(failure)
            else:
                future.set_result(answer)

        outputs = [InferRequestedOutput(name) for name in OUTPUTS]
        self._client.async_infer(self._model, [tensor], finish, outputs=outputs, client_timeout=self._timeout)
        return future

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

    def _error(self, error: InferenceServerException | None) -> DeviceError:
        """The driver's error for what the wire reports."""
        text = f"service at {self.address}: {error.message() if error else 'no answer'}"
        if error is not None and error.status() == "StatusCode.DEADLINE_EXCEEDED":
            return DeviceTimeoutError(text)
        return DeviceError(text)


def open_npu(where: str, program: Program | str | Path) -> Npu | RemoteNpu:
    """An NPU with ``program`` (or program file) ready to run: a device of this machine by name, or ``grpc://host:port``.

    Raises ProgramError or OSError for a bad file, DeviceError when there is no such device or service or it cannot run the program.
    """
    if not isinstance(program, Program):
        program = Program.load(program)
    npu = RemoteNpu(where[len(SCHEME) :]) if where.startswith(SCHEME) else Npu(open_device(where, program.config))
    try:
        npu.load(program)
    except BaseException:
        npu.close()
        raise
    return npu
