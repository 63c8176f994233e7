"""HlsOverlay on the real pynq package: between the streams of a simulated AXI DMA, or of two kernels, the C simulation of the projects."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from driver.board import HlsOverlay
from driver.device import DeviceError, DeviceTimeoutError
from driver.streamed import BEAT_BYTES, Port, StreamedNetwork
from hls import __main__ as command
from hls import compare
from hls.compare import integers
from hls.convert import convert
from hls.vitis.build import build
from hls.vitis.csim import Chain, find_projects
from quantize import checkpoint
from quantize.resnet import ResNetConfig
from sim.hls_board import SimulatedHlsBoard

SEED = 11
IMAGES = np.random.default_rng(SEED).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return checkpoint.to_keras(checkpoint.random_quantised(ResNetConfig((1,), 4, 12), seed=3))


@pytest.fixture(scope="module")
def out(model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two projects, joined by a stream of 16 elements of 19 bits."""
    out = tmp_path_factory.mktemp("hls")
    build(model, out, "xczu7ev-ffvc1156-2-e", target_ms=0.1, clock_ns=5, projects=2)
    return out


@pytest.fixture(scope="module")
def chain(out: Path) -> Chain:
    return Chain(find_projects(out), optimise=0)


@pytest.fixture(scope="module")
def network(out: Path) -> StreamedNetwork:
    return StreamedNetwork.load(out / "network.json")


@pytest.fixture(scope="module")
def npu(model, tmp_path_factory: pytest.TempPathFactory):
    npu = convert(model, "NPU", str(tmp_path_factory.mktemp("npu")))
    npu.compile()
    return npu


@pytest.fixture(scope="module")
def golden(npu) -> NDArray[np.int64]:
    return integers(npu.predict(IMAGES).reshape(len(IMAGES), -1), npu.npu.program.output)


@pytest.fixture(params=["zynq", "card"])
def board(request: pytest.FixtureRequest, network: StreamedNetwork, chain: Chain) -> SimulatedHlsBoard:
    return SimulatedHlsBoard(network, chain.run_beats, card=request.param == "card")


@pytest.fixture
def overlay(board: SimulatedHlsBoard, tmp_path: Path) -> Iterator[HlsOverlay]:
    with HlsOverlay(board.bitstream(tmp_path), timeout=60) as overlay:
        yield overlay
    assert board.memory_used == 0


def test_features_through_pynqs_driver_equal_the_golden_models(overlay: HlsOverlay, npu, golden):
    for image, sums in zip(IMAGES, golden, strict=True):
        assert (integers(overlay.run(image), npu.npu.program.output) == sums).all()


def test_images_of_a_batch_follow_one_another_and_keep_their_order(overlay: HlsOverlay, npu, golden):
    assert (integers(overlay.run_batch(IMAGES), npu.npu.program.output) == golden).all()
    assert (integers(overlay.run_batch(IMAGES[1:]), npu.npu.program.output) == golden[1:]).all()


def test_the_network_as_pynq_finds_it_has_the_projects_shapes(network: StreamedNetwork, out: Path):
    assert len(find_projects(out)) == 2
    assert network.shape == (12, 12, 3) and (network.image.words, network.image.fields) == (144, 4)


def test_buffers_come_from_the_banks_that_the_kernels_were_linked_to(network, chain, tmp_path: Path):
    board = SimulatedHlsBoard(network, chain.run_beats, card=True)
    with HlsOverlay(board.bitstream(tmp_path)) as overlay:
        overlay.run(IMAGES[0])
    assert [bank for bank in board.banks_used if bank.startswith("bank")] == ["bank0", "bank1"]


def test_a_network_that_stands_still_is_a_timeout_and_a_restart_recovers_it(overlay: HlsOverlay, board, npu, golden):
    overlay._timeout = 0.2
    board.streams.frozen = True
    with pytest.raises(DeviceTimeoutError, match=r"stands still: call restart\(\)"):
        overlay.run(IMAGES[0])
    overlay._timeout = 60
    with pytest.raises(DeviceError, match=r"call restart\(\)"):
        overlay.run(IMAGES[0])
    overlay.restart()
    assert (integers(overlay.run(IMAGES[1]), npu.npu.program.output) == golden[1]).all()


def test_closing_after_a_failure_resets_the_logic_before_the_memory_goes_back(board, tmp_path: Path, monkeypatch):
    with HlsOverlay(board.bitstream(tmp_path), timeout=0.2) as overlay:
        board.streams.frozen = True
        with pytest.raises(DeviceTimeoutError):
            overlay.run(IMAGES[0])
        held: list[int] = []
        download = board.download
        monkeypatch.setattr(board, "download", lambda *args: (held.append(board.memory_used), download(*args)))
    assert len(held) == 1 and held[0] > 0
    assert board.memory_used == 0 and board._armed is None


@pytest.mark.parametrize("channels", [8, 64], ids=["less", "more"])
def test_a_network_json_of_another_bitstream_is_noticed_by_tlast(network, chain, tmp_path: Path, channels: int):
    board = SimulatedHlsBoard(network, chain.run_beats)
    path = board.bitstream(tmp_path)
    wrong = replace(network, features=replace(network.features, channels=channels))
    (tmp_path / "network.json").write_text(wrong.json())
    assert wrong.features.nbytes != network.features.nbytes
    with HlsOverlay(path) as overlay, pytest.raises(DeviceError, match=r"is (network\.json|it) of this bitstream"):
        overlay.run(IMAGES[0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((12, 13, 3), np.uint8), r"uint8 \[12, 12, 3\], not uint8 \[12, 13, 3\]"),
        (np.zeros((12, 12, 3)), "not float64"),
    ],
    ids=["shape", "type"],
)
def test_an_image_that_does_not_fit_is_refused(overlay: HlsOverlay, image, message: str):
    with pytest.raises(ValueError, match=message):
        overlay.run(image)


def test_more_than_the_dma_carries_is_refused(network, chain, npu, golden, tmp_path: Path):
    with HlsOverlay(SimulatedHlsBoard(network, chain.run_beats).bitstream(tmp_path)) as overlay:
        overlay.dma.buffer_max_size = 1000
        with pytest.raises(ValueError, match=r"carries 1000 bytes at a time, not 1728: use smaller batches"):
            overlay.run_batch(IMAGES)
        assert (integers(overlay.run(IMAGES[0]), npu.npu.program.output) == golden[0]).all()


def test_a_bitstream_of_something_else_is_refused(network, chain, tmp_path: Path):
    class Other(SimulatedHlsBoard):
        def get_bitfile_metadata(self, bitfile_name, **options):
            found = super().get_bitfile_metadata(bitfile_name, **options)
            found.ip_dict.clear()
            return found

    with pytest.raises(DeviceError, match="holds no network of the HLS route"):
        HlsOverlay(Other(network, chain.run_beats).bitstream(tmp_path))


def test_a_description_that_is_none_is_refused(tmp_path: Path):
    (tmp_path / "network.bit").touch()
    with pytest.raises(FileNotFoundError, match=r"network\.json"):
        HlsOverlay(tmp_path / "network.bit")
    (tmp_path / "network.json").write_text('{"shape": [4, 4, 3]}')
    with pytest.raises(ValueError, match="does not describe a network of `make hls`"):
        HlsOverlay(tmp_path / "network.bit")


def test_the_command_compares_the_features_behind_the_ports(
    model, out: Path, chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(checkpoint, "load_quantised", lambda path: model)
    monkeypatch.setattr(compare, "Chain", lambda projects: chain)  # compiled already
    monkeypatch.setattr(chain, "predict", None)
    arguments = ["csim", "--checkpoint", "net.npz", "--projects", str(out), "--ports", "--build", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["hls", *arguments])
    command.main()
    assert "hls4ml C simulation  32/32 features equal to the golden model" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------------------------
# The format of the streams
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "values", "words"),
    [
        (Port(1, 3, 16, 4, True), [-1, 2, 0x1234], [0x0002FFFF, 0x00001234]),
        (Port(2, 1, 8, 0, False), [255, 7], [0xFF, 0x07]),
        (Port(1, 2, 32, 9, True), [-(2**31), 5], [0x80000000, 5]),
    ],
    ids=["16 signed", "8, a word a beat", "32"],
)
def test_element_0_lies_lowest_and_each_word_takes_whole_beats(port: Port, values: list[int], words: list[int]):
    network = StreamedNetwork((1, 1, 1), Port(1, 1, 8, 8, False), port)
    data = np.array(words, "<u4").view(np.uint8)
    assert port.nbytes == len(data) and not len(data) % BEAT_BYTES
    assert network.unpack(data).tolist() == [value / 2**port.fraction_bits for value in values]


def test_an_image_goes_in_pixel_by_pixel_in_raster_order():
    network = StreamedNetwork((2, 2, 3), Port(4, 3, 8, 8, False), Port(1, 1, 8, 0, False))
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert network.pack(image).view("<u4").tolist() == [0x020100, 0x050403, 0x080706, 0x0B0A09]
