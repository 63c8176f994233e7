"""Three rungs of the ladder on the same images: eager QKeras, the NPU's golden model, hls4ml's C simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driver.streamed import StreamedNetwork
from hls.convert import IMAGE_FRACTION_BITS, convert
from hls.vitis.csim import Chain
from hls.vitis.ports import NETWORK
from hls.vitis.project import convert_sized, write_project
from hw.program import Output


@dataclass(frozen=True)
class Comparison:
    """Integers of the same features by each level, [images, features]."""

    qkeras: NDArray[np.int64]
    golden: NDArray[np.int64]
    csim: NDArray[np.int64]

    @property
    def equal(self) -> bool:
        """Whether all three agree in every feature."""
        return bool((self.qkeras == self.golden).all() and (self.csim == self.golden).all())

    def __str__(self) -> str:
        pairs = (("QKeras (eager)", self.qkeras), ("hls4ml C simulation", self.csim))
        return "\n".join(
            f"{name:20} {int((values == self.golden).sum())}/{values.size} features equal to the golden model"
            for name, values in pairs
        )


def integers(features: NDArray[Any], output: Output) -> NDArray[np.int64]:
    """The integers behind real features: sums of the last activation, or its elements."""
    return np.rint(features.astype(np.float64) * output.divisor * 2.0**output.fraction_bits).astype(np.int64)


def run(
    model: Any,
    build: Path,
    images: int = 2,
    seed: int = 0,
    report: Callable[[str], None] = lambda step: None,
    projects: Sequence[Path] = (),
    progress: bool = False,
    through_ports: bool = False,
) -> Comparison:
    """Compute random images with a QKeras ``model`` on all three.

    ``build``: folder for the HLS project and the program. ``report`` is told what begins, since g++ takes its time. ``projects``: HLS
    projects of the model to simulate; without any it is written as hls4ml sizes it. ``through_ports``: beat by beat through the ports that
    `make hls` gave them, as a board's memory holds images and features.
    """
    report("compiling for the golden model")
    npu = convert(model, "NPU", str(build), "network")
    npu.compile()
    output = npu.npu.program.output
    x = np.random.default_rng(seed).integers(0, 256, (images, *model.input_shape[1:]), dtype=np.uint8)
    report(f"computing {images} image(s) with QKeras and the golden model")
    qkeras = np.asarray(model(x.astype(np.float32) / 2**IMAGE_FRACTION_BITS)).reshape(images, -1)
    golden = np.asarray(npu.predict(x)).reshape(images, -1)
    if not projects:
        report("writing the HLS project")
        projects = [write_project(convert_sized(model, build / "vitis"))]
    report("compiling with g++ (about a minute)")
    simulation = Chain(projects)
    report(f"simulating {images} image(s), FIFOs as deep as the project says")
    if through_ports:
        streamed = StreamedNetwork.load(projects[0].parent / NETWORK)
        beats, _ = simulation.run_beats(np.stack([streamed.pack(image) for image in x]))
        csim = np.stack([streamed.unpack(features) for features in beats])
    else:
        csim = simulation.predict(x, progress=progress)
    return Comparison(integers(qkeras, output), integers(golden, output), integers(csim, output))
