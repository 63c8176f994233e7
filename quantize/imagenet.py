"""ImageNet and any other folder of pictures: bring trained weights, quantise them on one folder, measure them on another.

An evaluation folder has one sub-folder of pictures for each class, as ImageNet's validation set is usually laid out. The
pictures are resized and cropped as usual (shorter side to 8/7 of the size, then the centre). No picture comes with this project.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from quantize.classifier import Classifier
from quantize.evaluate import Measured, share

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")
Features = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A featurizer: float32 [n, size, size, 3] (image / 256) to float32 [n, features]."""


@dataclass(frozen=True)
class PictureFolder:
    """Files of pictures and the class of each, int64 [n]."""

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class TopK:
    """How often the right class was first, or among the first five."""

    first: Measured
    first_five: Measured
    pictures: int

    def __str__(self) -> str:
        return f"top-1 {self.first}, top-5 {self.first_five} ({self.pictures} pictures)"


def pictures_below(folder: Path, limit: int) -> tuple[Path, ...]:
    """Return up to `limit` picture files below `folder`, evenly spread over their sorted names."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise FileNotFoundError(f"no pictures below {folder}: it needs files that end in one of {', '.join(SUFFIXES)}")
    return tuple(found[i] for i in np.linspace(0, len(found) - 1, min(limit, len(found))).astype(int))


def labelled_folder(folder: Path, classes: tuple[str, ...], count: int) -> PictureFolder:
    """Find the pictures of a folder with one sub-folder a class.

    classes: names of the sub-folders in the order of the classifier's `count` outputs; when empty there must be as many as outputs, and
    their sorted names are the order, as ImageNet's are. Raises FileNotFoundError or ValueError.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not classes and len(found) != count:
        raise ValueError(
            f"{folder} has {len(found)} sub-folders and the classifier {count} classes: give the names of all classes in "
            "their order with --classes"
        )
    order = classes or tuple(found)
    if len(order) != count or set(found) - set(order):
        raise ValueError(f"{len(order)} class names do not fit {count} outputs and the sub-folders {found[:3]}...")
    pairs = [(path, order.index(name)) for name in found for path in pictures_below(folder / name, 10**9)]
    return PictureFolder(tuple(path for path, _ in pairs), np.array([label for _, label in pairs], np.int64))


def read_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """Return the centre of a picture, uint8 [size, size, 3], red, green, blue."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except Exception as error:  # a picture may be damaged in many ways
        raise ValueError(f"{path} is not a whole picture ({error}): remove it or fetch it again") from error
    shorter = round(size * 8 / 7)
    factor = shorter / min(picture.size)
    width, height = (max(shorter, round(side * factor)) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def read_pictures(paths: tuple[Path, ...], size: int) -> NDArray[np.uint8]:
    """Return pictures, uint8 [n, size, size, 3]."""
    return np.stack([read_picture(path, size) for path in tqdm(paths, desc="pictures", unit="picture")])


def measure(folder: PictureFolder, featurizer: Features, classifier: Classifier, size: int, batch: int = 16) -> TopK:
    """Measure a featurizer with its classifier on labelled pictures."""
    ranks = np.concatenate(list(_ranks(folder, featurizer, classifier, size, batch)))
    return TopK(share(ranks < 1), share(ranks < 5), len(ranks))


def _ranks(
    folder: PictureFolder, featurizer: Features, classifier: Classifier, size: int, batch: int
) -> Iterator[NDArray[np.int64]]:
    """Of each picture: how many classes were thought more likely than the right one."""
    for start in tqdm(range(0, len(folder.paths), batch), desc="evaluation", unit="batch"):
        images = np.stack([read_picture(path, size) for path in folder.paths[start : start + batch]])
        probabilities = classifier.probabilities(featurizer((images / 256).astype(np.float32)))
        right = np.take_along_axis(probabilities, folder.labels[start : start + batch, None], axis=1)
        yield (probabilities > right).sum(axis=1)
