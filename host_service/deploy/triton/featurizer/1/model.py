"""The NPU as a model of Triton's Python backend: image [batch, H, W, C] -> features, integer sums and counters.

The image is UINT8, or FP32 of 0..1 where config.pbtxt says so; then it is quantised as our own service does it. The driver runs inside the
server's Python, so Quarkwave must be installed there (`pip install quarkwave`). One instance owns the device: for several devices, make
several models of this folder.
"""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from driver.device import DeviceError, open_device
from driver.runtime import Counters, Npu
from host_service.errors import RequestError
from host_service.quantise import Quantiser
from hw.program import Program

PROGRAM = Path(__file__).with_name("program.npu")
COUNTERS = [field.name for field in fields(Counters) if field.name != "layers"]
"""Columns of the output npu_counters."""


class TritonPythonModel:
    """What the Python backend calls; one object for each instance."""

    @staticmethod
    def auto_complete_config(config):
        """Describe inputs and outputs from the program file, so that config.pbtxt need not repeat them."""
        program = Program.load(PROGRAM)
        image, channels = program.image, program.output.channels
        dims = [image.height, image.width, image.channels]
        datatype = _parameter(config.as_dict(), "datatype", "UINT8")
        config.add_input({"name": "image", "data_type": f"TYPE_{datatype}", "dims": dims})
        config.add_output({"name": "features", "data_type": "TYPE_FP32", "dims": [channels]})
        config.add_output({"name": "feature_sums", "data_type": "TYPE_INT32", "dims": [channels]})
        config.add_output({"name": "npu_counters", "data_type": "TYPE_UINT32", "dims": [len(COUNTERS)]})
        return config

    def initialize(self, args):
        """Open the device and load the program; what fails here keeps the model from being ready, with its message."""
        device = _parameter(json.loads(args["model_config"]), "device", "board")
        program = Program.load(PROGRAM)
        self._npu = Npu(open_device(device, program.config), layer_counters=False)
        self._npu.load(program)
        self._quantiser = Quantiser(program.image_fraction_bits)

    def execute(self, requests):
        """Answer ``requests``: all their images are queued first, so that the NPU runs them back to back."""
        pending = [self._submit(request) for request in requests]
        return [self._answer(futures) for futures in pending]

    def _submit(self, request):
        """The images' futures, or why there are none."""
        images = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        try:
            images = [self._pixels(image) for image in images]
        except RequestError as error:
            return error
        return [self._npu.run_async(image) for image in images]

    def _pixels(self, image):
        """The NPU's image."""
        if image.dtype == np.uint8:
            return image
        pixels = np.empty(image.shape, np.uint8)
        self._quantiser.write(image, pixels)
        return pixels

    def _answer(self, futures):
        if isinstance(futures, RequestError):
            return pb_utils.InferenceResponse([], pb_utils.TritonError(str(futures)))
        try:
            results = [future.result() for future in futures]
        except DeviceError as error:
            return pb_utils.InferenceResponse([], pb_utils.TritonError(str(error)))
        counters = [[getattr(result.counters, name) for name in COUNTERS] for result in results]
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("features", np.stack([result.features for result in results])),
                pb_utils.Tensor("feature_sums", np.stack([result.result for result in results])),
                pb_utils.Tensor("npu_counters", np.array(counters, np.uint32)),
            ]
        )

    def finalize(self):
        """Close the device."""
        self._npu.close()


def _parameter(config, name, default):
    """A parameter of config.pbtxt."""
    return config.get("parameters", {}).get(name, {}).get("string_value", default)
