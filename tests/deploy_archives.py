"""Archives for the tests of deployment: two releases of small random networks on the array sim-small, with a wheel of today's sources."""

from __future__ import annotations

import tarfile
from functools import cache
from pathlib import Path

import numpy as np
from random_networks import SIM_SMALL, featurizer, random_image

from driver.deploy.package import Sample, build_wheel, package
from hw.isa import ArrayConfig
from hw.program import Program


@cache
def program(seed: int, config: ArrayConfig = SIM_SMALL) -> Program:
    """The network of the release ``seed``."""
    return featurizer(seed, config)


def sample(seed: int, count: int = 2) -> Sample:
    """Random images in place of jets."""
    rng = np.random.default_rng(seed)
    images = np.stack([random_image(rng, program(seed)) for _ in range(count)])
    return Sample(images, np.arange(count) % 2 == 0)


def classifier(seed: int, folder: Path, features: int | None = None) -> Path:
    """An .npz with an untrained classifier for the network of ``seed``."""
    path = folder / f"classifier-{seed}.npz"
    rng = np.random.default_rng(seed)
    shapes = {"w1": (features or program(seed).output.channels, 16), "b1": (16,), "w2": (16, 2), "b2": (2,)}
    np.savez(path, **{f"classifier/{n}": rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()})
    return path


class Releases:
    """Unpacked archives by seed, made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheel = build_wheel(folder / "wheel")

    def __call__(self, seed: int, features: int | None = None) -> Path:
        """The folder of the release; ``features``: how many its classifier expects, to be wrong."""
        out = self.folder / f"{seed}-{features or 'right'}"
        [*found] = out.glob("quarkwave-*/MANIFEST")
        if found:
            return found[0].parent
        net = classifier(seed, self.folder, features)
        path = package("sim-small", program(seed), net, sample(seed), out, wheel=self.wheel)
        with tarfile.open(path) as archive:
            archive.extractall(out, filter="data")
        return path.with_name(path.name.removesuffix(".tar.gz"))
