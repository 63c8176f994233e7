"""The timed device as a model of Triton's Python backend: every image takes exactly as long, and the answer is zeros.

Parameters (config.pbtxt): ``device_ms``, the time of one image; ``lock``, a file that instances lock around the device, so that several
of them share one device ("" for none).
"""

import fcntl
import json
import time
from contextlib import nullcontext

import numpy as np
import triton_python_backend_utils as pb_utils


class FileLock:
    """One holder among all processes that opened the same file."""

    def __init__(self, path):
        self._file = open(path, "w")  # noqa: SIM115 - held as long as the model lives

    def __enter__(self):
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *error):
        fcntl.flock(self._file, fcntl.LOCK_UN)


class TritonPythonModel:
    """image [batch, H, W, 3] -> features [batch, N]."""

    def initialize(self, args):
        """Read the parameters."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        self._seconds = float(parameters["device_ms"]) / 1e3
        self._device = FileLock(parameters["lock"]) if parameters["lock"] else nullcontext()
        self._features = int(config["output"][0]["dims"][0])

    def execute(self, requests):
        """Answer ``requests``, their images one after the other."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        images = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        for _ in images:
            with self._device:
                if self._seconds:
                    time.sleep(self._seconds)
        features = np.zeros((len(images), self._features), np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("features", features)])
