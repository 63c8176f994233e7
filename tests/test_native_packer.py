"""The compiled packer writes what NumPy's does, byte for byte, and is not needed."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hw.image_layout import ImageLayout, Packer, fastest_packer
from hw.native import FLAGS
from hw.native_packer import SOURCE, NativePacker
from hw.sources import ROOT

RESNET50 = ImageLayout.for_stem((224, 224, 3), 7, 2, 3, (112, 112))
SMALL = ImageLayout.for_stem((9, 8, 3), 7, 2, 3, (5, 4))


def random_layout(rng: np.random.Generator) -> ImageLayout:
    """Small; the image may reach beyond what words read, or end before it, on any side."""
    block, rows, cols, columns = (int(rng.integers(1, 5)) for _ in range(4))
    return ImageLayout(
        *(int(n) for n in rng.integers(1, 17, 2)),
        channels=int(rng.integers(1, 6)),
        block=block,
        columns=columns,
        pad_top=int(rng.integers(rows * block)),
        pad_left=int(rng.integers((cols + columns - 1) * block)),
        rows=rows,
        cols=cols,
    )


def random_image(rng: np.random.Generator, layout: ImageLayout) -> np.ndarray:
    return rng.integers(0, 256, (layout.height, layout.width, layout.channels), np.uint8)


def both(layout: ImageLayout, cp: int, word_bytes: int, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What NumPy's and the compiled packer make of memory full of ones."""
    packers = Packer(layout, cp, word_bytes), NativePacker(layout, cp, word_bytes)
    packed = [np.full(packer.nbytes, 255, np.uint8) for packer in packers]
    for packer, out in zip(packers, packed, strict=True):
        packer.pack(image, out)
    return packed[0], packed[1]


@pytest.mark.parametrize("seed", range(300))
def test_both_packers_write_the_same_bytes(seed: int):
    rng = np.random.default_rng(seed)
    layout = random_layout(rng)
    cp = int(rng.integers(1, layout.lanes + 9))
    word_bytes = min(cp, layout.lanes) + int(rng.integers(0, 9))
    expected, found = both(layout, cp, word_bytes, random_image(rng, layout))
    assert np.array_equal(found, expected), f"{layout}, cp {cp}, words of {word_bytes} bytes"


@pytest.mark.parametrize("cp", [8, 16, 32, 48, 64])
def test_both_packers_write_the_same_bytes_for_resnet50(cp: int):
    expected, found = both(RESNET50, cp, RESNET50.word_bytes(cp, 8), random_image(np.random.default_rng(cp), RESNET50))
    assert np.array_equal(found, expected)


def test_nothing_is_left_of_the_image_before():
    rng = np.random.default_rng(1)
    packer = NativePacker(SMALL, 64, 64)
    found = np.empty(packer.nbytes, np.uint8)
    for image in (random_image(rng, SMALL), random_image(rng, SMALL)):
        packer.pack(image, found)
        assert np.array_equal(found, both(SMALL, 64, 64, image)[0])


@pytest.mark.parametrize("view", ["every second pixel", "transposed", "mirrored", "read only"])
def test_an_image_may_stand_in_memory_in_any_way(view: str):
    layout = ImageLayout.for_stem((12, 12, 3), 7, 2, 3, (6, 6))
    pixels = np.random.default_rng(2).integers(0, 256, (24, 24, 3), np.uint8)
    image = {
        "every second pixel": pixels[::2, ::2],
        "transposed": pixels[:12, :12].transpose(1, 0, 2),
        "mirrored": pixels[11::-1, :12],
        "read only": pixels[:12, :12].copy(),
    }[view]
    image.flags.writeable = False
    expected, found = both(layout, 16, 16, image)
    assert np.array_equal(found, expected)


def test_an_image_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"the image is \(8, 9, 3\), the program expects \(9, 8, 3\)"):
        NativePacker(SMALL, 64, 48).pack(np.zeros((8, 9, 3), np.uint8), np.zeros(0, np.uint8))


def test_an_image_of_another_type_is_refused():
    with pytest.raises(ValueError, match="the image is float32, the program expects uint8"):
        NativePacker(SMALL, 64, 48).pack(np.zeros((9, 8, 3), np.float32), np.zeros(0, np.uint8))


@pytest.mark.parametrize("wrong", ["short", "of words", "in two dimensions", "with gaps", "read only"])
def test_memory_that_a_packed_image_does_not_fit_into_is_refused(wrong: str):
    packer = NativePacker(SMALL, 64, 48)
    out = {
        "short": np.zeros(packer.nbytes - 1, np.uint8),
        "of words": np.zeros(packer.nbytes, np.uint16),
        "in two dimensions": np.zeros((1, packer.nbytes), np.uint8),
        "with gaps": np.zeros(2 * packer.nbytes, np.uint8)[::2],
        "read only": np.frombuffer(bytes(packer.nbytes), np.uint8),
    }[wrong]
    with pytest.raises(ValueError, match="packed image"):
        packer.pack(np.zeros((9, 8, 3), np.uint8), out)


@pytest.mark.parametrize(
    "wrong", [{"pad_left": -1}, {"block": 0}, {"channels": 0}, {"rows": 2**31}, {"pad_top": 2**64}]
)
def test_a_layout_that_no_image_can_have_is_refused(wrong: dict[str, int]):
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"cannot have {name} = {value}"):
        NativePacker(ImageLayout(**SMALL.to_json() | wrong), 64, 48)


def test_words_too_small_for_their_lanes_are_refused():
    with pytest.raises(ValueError, match="words of 47 bytes do not hold 48 lanes"):
        NativePacker(SMALL, 64, 47)


def test_the_compiled_packer_is_the_one_that_is_used():
    assert isinstance(fastest_packer(SMALL, 64, 48), NativePacker)


def test_without_a_compiler_numpy_packs_and_one_line_says_what_to_install(tmp_path: Path):
    code = f"""
import hashlib, logging, numpy
from hw.image_layout import ImageLayout, fastest_packer
logging.basicConfig(level=logging.INFO)
layout = {SMALL!r}
print(type(fastest_packer(layout, 16, 16)).__name__)
image = numpy.random.default_rng(3).integers(0, 256, (9, 8, 3), numpy.uint8)
print(hashlib.sha256(layout.pack(image, 16, 16)).hexdigest())
"""
    environment = {**os.environ, "PATH": "", "QUARKWAVE_BUILD": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    image = random_image(np.random.default_rng(3), SMALL)
    assert done.stdout.split() == ["Packer", hashlib.sha256(SMALL.pack(image, 16, 16)).hexdigest()], done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("INFO:hw.image_layout:images are laid out by NumPy")
    assert line.endswith("(Debian: apt-get install g++)")


def test_the_source_compiles_without_a_warning(tmp_path: Path):
    command = ["g++", *FLAGS, "-Werror", "-o", str(tmp_path / "out.so"), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
