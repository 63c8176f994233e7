"""The NPU as a backend of hls4ml: ``convert_from_keras_model(model, hls_config=..., backend="NPU", board="zcu104")``.

hls4ml finds ``register`` through the entry point group ``hls4ml.backends``; nobody needs to import this module. The resulting model
graph does what every hls4ml model does: ``write()`` writes ``<output_dir>/<project_name>.npu``, ``compile()`` loads it into a device
("golden" or "rtl", see driver.device), ``predict()`` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hls4ml.backends import backend as hls4ml_backend
from hls4ml.backends.fpga.fpga_backend import FPGABackend
from hls4ml.model.flow import register_flow
from hls4ml.model.optimizer import model_optimizer
from hls4ml.writer import writers as hls4ml_writers
from hls4ml.writer.writers import Writer
from numpy.typing import NDArray

from hls.npu.emit import compile_layers
from hls.npu.lower import lower
from hw.isa import load_config

if TYPE_CHECKING:
    from hls4ml.model.graph import ModelGraph

NAME = "NPU"


class NpuBackend(FPGABackend):
    """Lowers a model graph to fused layers as soon as it is converted, so that what the NPU cannot do is refused there."""

    def __init__(self) -> None:
        super().__init__(NAME)
        initialised = register_flow("init_layers", self._get_layer_initializers(), requires=["optimize"], backend=NAME)
        self._default_flow = register_flow("lower", ["npu:lower_to_layers"], requires=[initialised], backend=NAME)
        self._writer_flow = register_flow("write", ["npu:write_program"], requires=[self._default_flow], backend=NAME)

    def get_default_flow(self) -> str:
        """Name of the flow that a conversion runs."""
        return self._default_flow

    def get_writer_flow(self) -> str:
        """Name of the flow that ``write()`` runs."""
        return self._writer_flow

    def create_initial_config(
        self,
        board: str = "sim-small",
        device: str = "golden",
        device_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """The options of ``convert_from_keras_model`` that are ours.

        ``board``: configuration in hw/boards that the program is compiled for. ``device``, ``device_options``: where ``compile()`` and
        ``predict()`` run it, as for driver.device.open_device. ``metadata``: what the program file should remember (JSON).
        """
        load_config(board)
        return {
            "Board": board,
            "Device": device,
            "DeviceOptions": device_options or {},
            "Metadata": metadata or {},
            "IOType": "io_stream",
            "HLSConfig": {},
        }

    @model_optimizer()
    def lower_to_layers(self, model: ModelGraph) -> None:
        """Keep the fused layers with the graph; raises CompileError for what the NPU cannot do."""
        model.fused_layers = lower(model)

    @model_optimizer()
    def write_program(self, model: ModelGraph) -> None:
        """Hand over to the writer."""
        self.writer.write_hls(model)

    def compile(self, model: ModelGraph) -> None:
        """Load the written program into the device that the conversion named."""
        from driver.device import open_device
        from driver.runtime import Npu

        config = model.config
        if getattr(model, "npu", None) is not None:
            model.npu.close()
        device = open_device(
            config.get_config_value("Device"),
            config.get_config_value("Board"),
            **config.get_config_value("DeviceOptions"),
        )
        model.npu = Npu(device)
        model.npu.load(program_path(model))

    def predict(self, model: ModelGraph, x: NDArray[Any]) -> NDArray[np.float32]:
        """Features of one image or a batch, [height, width, channels] or [n, height, width, channels], uint8 or image / 256.

        Shaped as hls4ml shapes predictions: [size] for one image, [n, size] for more. Raises ValueError for values between the
        integers, and RuntimeError before ``compile()``.
        """
        npu = getattr(model, "npu", None)
        if npu is None:
            raise RuntimeError("no device yet: call compile() before predict()")
        program = npu.program
        shape = (program.image.height, program.image.width, program.image.channels)
        images = to_uint8(np.asarray(x), program.image_fraction_bits)
        if images.shape[-3:] != shape or images.ndim not in (3, 4):
            raise ValueError(f"the images are {images.shape}, the network takes {shape} or a batch of them")
        features = [npu.run(image).features.reshape(-1) for image in images.reshape(-1, *shape)]
        return features[0] if len(features) == 1 else np.stack(features)


class NpuWriter(Writer):
    """Writes the program file, whole or not at all."""

    def write_hls(self, model: ModelGraph) -> None:
        """Compile the graph's fused layers for its board and save ``<output_dir>/<project_name>.npu``."""
        config = model.config
        board = load_config(config.get_config_value("Board"))
        metadata = config.get_config_value("Metadata")
        compile_layers(config.get_project_name(), model.fused_layers, board, metadata=metadata).save(
            program_path(model)
        )


def program_path(model: ModelGraph) -> Path:
    """Where ``write()`` writes the program."""
    return Path(model.config.get_output_dir()) / f"{model.config.get_project_name()}.npu"


def to_uint8(x: NDArray[Any], fraction_bits: int) -> NDArray[np.uint8]:
    """Images as the NPU takes them: uint8 as they are, floats as ``value * 2**fraction_bits``, which must be 0 to 255 exactly."""
    if x.dtype == np.uint8:
        return x
    scaled = x.astype(np.float64) * 2.0**fraction_bits
    wrong = (scaled != np.rint(scaled)) | (scaled < 0) | (scaled > 255)
    if wrong.any():
        value = x[wrong].flat[0]
        raise ValueError(
            f"the images hold {value!r}, which is not uint8 / {2**fraction_bits}: give uint8 images, or divide them by {2**fraction_bits}"
        )
    return scaled.astype(np.uint8)


def register(register_backend: Callable[..., None], register_writer: Callable[..., None]) -> None:
    """hls4ml's entry point; a second call does nothing. The backend asks for its writer when it is made, so the writer comes first."""
    if NAME.lower() not in hls4ml_backend.get_available_backends():
        register_writer(NAME, NpuWriter)
        register_backend(NAME, NpuBackend)


# Imported before hls4ml, this module makes hls4ml ask for register() while it is only half there: hls4ml warns, and this makes it good.
register(hls4ml_backend.register_backend, hls4ml_writers.register_writer)
