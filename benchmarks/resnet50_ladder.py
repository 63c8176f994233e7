"""The rungs above the RTL for the whole ResNet-50: eager QKeras == golden model on jets, and hls4ml's C simulation == golden model.

``make resnet50-ladder`` climbs both. The first rung takes a minute; for the second one g++ compiles a project of 700 megabytes and the
image itself takes minutes, so ``--csim 0``, the default here, leaves it out. Fails when one integer differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import workload
from numpy.typing import NDArray
from tqdm import tqdm

from driver.golden import GoldenDevice
from driver.runtime import Npu
from hw.sources import BUILD

Features = Callable[[NDArray[np.uint8]], NDArray[Any]]
BOARD = "zcu104"
"""Any board would do: the golden model gives the same integers for all."""


def compare(name: str, features: Features, images: NDArray[np.uint8], expected: Iterable[NDArray[Any]]) -> bool:
    """Compute every image, [height, width, channels] uint8, and say how many integers equal the golden model's."""
    begin = time.perf_counter()
    found = [features(image) for image in tqdm(images, desc=name, unit="image")]
    equal = [a == b for a, b in zip(found, expected, strict=True)]
    right = all(same.all() for same in equal)
    count, size = sum(int(np.count_nonzero(same)) for same in equal), sum(same.size for same in equal)
    each = (time.perf_counter() - begin) / len(images)
    print(
        f"{'OK' if right else 'FAILED'}: {name} == golden model, {count}/{size} features, {len(images)} jets, {each:.1f} s each"
    )
    return right


def main() -> int:
    """Climb; returns 0 only when every integer was equal."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--version", default="v1.5", choices=workload.VERSIONS, help="of ResNet-50 (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the weights (default: %(default)s)")
    parser.add_argument("--images", type=int, default=4, help="jets for QKeras (default: %(default)s)")
    parser.add_argument("--csim", type=int, default=0, help="jets for hls4ml's C simulation too (default: %(default)s)")
    parser.add_argument(
        "--build", type=Path, help="folder for the HLS project (default: build/resnet50/csim-<version>)"
    )
    options = parser.parse_args()
    build = options.build or BUILD / "resnet50" / f"csim-{options.version}"

    images = workload.jet_sample(max(options.images, options.csim))
    program = workload.program(BOARD, options.version, options.seed)
    with Npu(GoldenDevice(program.config)) as npu:
        npu.load(program)
        golden = [npu.run(image).result for image in tqdm(images, desc="golden model", unit="image")]

    from hls.compare import integers
    from hls.convert import IMAGE_FRACTION_BITS
    from hls.vitis.csim import CSimulation
    from hls.vitis.project import convert_sized, write_project
    from quantize import checkpoint

    model = checkpoint.load_quantised(workload.network_file(options.version, options.seed))

    def qkeras(image: NDArray[np.uint8]) -> NDArray[np.int64]:
        features = model(image[None].astype(np.float32) / 2**IMAGE_FRACTION_BITS)
        return integers(np.asarray(features)[0], program.output)

    right = compare("eager QKeras", qkeras, images[: options.images], golden[: options.images])
    if options.csim:
        print(f"writing and compiling hls4ml's project in {build}: this takes minutes", flush=True)
        begin = time.perf_counter()
        simulation = CSimulation(write_project(convert_sized(model, build)), optimise=3)
        print(f"built in {time.perf_counter() - begin:.0f} s", flush=True)

        def csim(image: NDArray[np.uint8]) -> NDArray[np.int64]:
            return integers(simulation.predict(image[None])[0], program.output)

        right &= compare("hls4ml C simulation", csim, images[: options.csim], golden[: options.csim])
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
