"""Write, compile (g++ only) and run hls4ml's Vitis project of a QKeras network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hls.convert import IMAGE_FRACTION_BITS, convert
from hls.vitis.patches import allow_overlapping_pools

if TYPE_CHECKING:
    from hls4ml.model.graph import ModelGraph


class CSimulation:
    """hls4ml's C simulation of ``model`` in ``output_dir``, which it fills with the HLS project.

    Building takes g++ from seconds to minutes (ResNet-50). Raises CompileError for what has no exact conversion.
    """

    def __init__(self, model: Any, output_dir: Path, name: str = "network") -> None:
        graph = convert(model, "Vitis", str(output_dir), name, io_type="io_stream")
        graph.write()
        allow_overlapping_pools(output_dir)
        graph._compile()  # compile() would write the project again, without the patch
        self.graph: ModelGraph = graph

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Features [n, size] of uint8 images [n, height, width, channels]."""
        x = np.ascontiguousarray(images.astype(np.float64) / 2**IMAGE_FRACTION_BITS)
        return np.asarray(self.graph.predict(x)).reshape(len(images), -1)
