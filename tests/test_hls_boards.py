"""The demo's network on every board: it fits, and gives the same features everywhere; ResNet-50 at 224 x 224 fits where it can."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_hls_place import resnet50

from driver.device import open_device
from driver.runtime import Npu
from hls.convert import convert
from hls.npu.emit import compile_layers
from hls.npu.layer import FusedLayer
from hls.npu.listing import listing
from hls.npu.place import PlacementError, place
from hw.board import board_names
from hw.isa import load_config
from quantize import checkpoint

ROOT = Path(__file__).parents[1]
BOARDS = board_names()
LARGE = ("kv260", "zcu104", "u250", "sim-small")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> list[FusedLayer]:
    """The demo's trained network as fused layers, before any board is chosen."""
    model = checkpoint.load_quantised(ROOT / "quantize" / "trained" / "demo.npz")
    graph: Any = convert(model, "NPU", str(tmp_path_factory.mktemp("demo")), "demo")
    return list(graph.fused_layers)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(2026).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def features(demo: list[FusedLayer], board: str, image: np.ndarray, path: Path) -> np.ndarray:
    """Of one image, by the golden model of ``board``'s array."""
    compile_layers("demo", demo, load_config(board)).save(path)
    with Npu(open_device("golden", board)) as npu:
        npu.load(path)
        return npu.run(image).features


@pytest.fixture(scope="module")
def reference(demo: list[FusedLayer], image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The features on the simulated array."""
    return features(demo, "sim-small", image, tmp_path_factory.mktemp("reference") / "demo.npu")


@pytest.mark.parametrize("board", BOARDS)
def test_the_demos_network_fits_and_gives_the_same_features(
    demo: list[FusedLayer], image: np.ndarray, reference: np.ndarray, tmp_path: Path, board: str
):
    assert np.array_equal(features(demo, board, image, tmp_path / "demo.npu"), reference)
    assert reference.any()


def test_the_listing_says_what_the_network_takes_of_the_board(demo: list[FusedLayer]):
    text = listing(compile_layers("demo", demo, load_config("pynq-z2")))
    assert "128 of 220 multipliers, 124 of 140 block RAM blocks of xc7z020clg400-1" in text
    assert "of 28,672 words of 16 bytes in 7 banks of 4,096" in text


@pytest.mark.parametrize("board", LARGE)
def test_resnet50_at_224_fits_the_large_boards(board: str):
    config = load_config(board)
    assert place(resnet50("v1.5"), config).high_water <= config.total_words


@pytest.mark.parametrize("board", sorted(set(BOARDS) - set(LARGE)))
def test_resnet50_at_224_is_refused_on_the_small_ones_with_what_is_short(board: str):
    words = load_config(board).total_words
    with pytest.raises(PlacementError, match=rf"needs \d+ activation words at once, {board} has {words}: \d+ short"):
        place(resnet50("v1.5"), load_config(board))


def test_resnet50_at_160_fits_the_ultra96():
    config = load_config("ultra96v2")
    assert place(resnet50("v1.5", 160), config).high_water <= config.total_words
