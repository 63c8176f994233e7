"""Several NPUs in one overlay, and several boards in one host, are one pool: under the real pynq, around the RTL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pynq
import pytest
from random_networks import SIM_SMALL, feature_sums, featurizer, featurizer_layers, random_image
from simulated_boards import overlay_on_board

from driver import pool as pool_module
from driver.board import NpuOverlay
from driver.device import DeviceError, DeviceResetError, open_device, open_devices
from driver.pool import Pool, State
from driver.runtime import Npu
from hw.isa import Register
from sim.board import SimulatedBoard, on_zynq

SEED = 61
PROGRAM = featurizer(SEED)
RNG = np.random.default_rng(SEED)
IMAGES = [random_image(RNG, PROGRAM) for _ in range(6)]
SUMS = [feature_sums(featurizer_layers(SEED), image) for image in IMAGES]
PATIENCE = 120.0

Two = tuple[SimulatedBoard, NpuOverlay]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "PAUSE_SECONDS", (0.01, 0.1))


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    """One board with two NPUs, and a check for leaks."""
    with overlay_on_board(tmp_path, npus=2, memory_bytes=8 << 20, watchdog=20_000) as pair:
        yield pair


def all_right(pool: Pool | Npu, count: int) -> bool:
    numbers = [n % len(IMAGES) for n in range(count)]
    results = list(pool.run_many(IMAGES[n] for n in numbers))
    return len(results) == count and all(
        np.array_equal(r.result, SUMS[n]) for r, n in zip(results, numbers, strict=True)
    )


def until(condition: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(int(PATIENCE / 0.02)):
        if condition():
            return
        tick.wait(0.02)
    raise AssertionError(f"did not happen within {PATIENCE} s")


def pool_on(overlay: NpuOverlay) -> Pool:
    pool = overlay.load(PROGRAM)
    assert isinstance(pool, Pool)
    return pool


def test_both_npus_compute_and_results_come_in_order(two: Two):
    pool = pool_on(two[1])
    assert all_right(pool, 24), f"seed {SEED}"
    assert [member.images for member in pool.members if not member.images] == []
    assert sum(member.images for member in pool.members) == 24


def test_each_npu_has_registers_and_an_interrupt_of_its_own(two: Two):
    overlay = two[1]
    first, second = overlay.npus
    assert second.mmio.base_addr - first.mmio.base_addr == 0x1_0000
    assert first.uses_interrupt and second.uses_interrupt
    first.write_register(Register.IMAGE_ADDRESS, 0x1234)
    assert second.read_register(Register.IMAGE_ADDRESS) == 0
    pool = pool_on(overlay)
    until(lambda: all_right(pool, 4) and bool(first.interrupts and second.interrupts))


def test_the_two_are_found_behind_the_interrupt_controller(two: Two):
    pins = two[0].interrupt_pins
    assert {pin: entry["controller"] for pin, entry in pins.items() if pin.startswith("npu_")} == {
        "npu_0/interrupt": "interrupts",
        "npu_1/interrupt": "interrupts",
    }
    assert sorted(pins[f"npu_{n}/interrupt"]["index"] for n in range(2)) == [0, 1]


def test_one_npu_can_be_taken_by_itself(two: Two):
    with Npu(two[1].npus[1]) as npu:
        npu.load(PROGRAM)
        assert all_right(npu, 4)
    assert two[1].npus[0].read_register(Register.RUNS) == 0


def test_a_fault_of_one_npu_loses_no_image(two: Two):
    board, overlay = two
    pool = pool_on(overlay)
    board.inject(error_address=overlay.npus[0].read_register(Register.PROGRAM_ADDRESS), npu=0)
    assert all_right(pool, 12), f"seed {SEED}"
    assert sum(member.images for member in pool.members) == 12, "each image is answered once"


def test_an_npu_that_is_well_again_comes_back(two: Two):
    board, overlay = two
    pool = pool_on(overlay)
    board.break_wires("image", npu=1, stalled=True)
    until(lambda: all_right(pool, 6) and pool.members[1].failures > 0)
    board.break_wires("image", npu=1)
    until(lambda: pool.members[1].state is State.IN_SERVICE)
    before = pool.members[1].images
    until(lambda: all_right(pool, 6) and pool.members[1].images > before)


def test_an_npu_that_hangs_is_reset_with_the_bitstream_and_both_come_back(tmp_path: Path):
    with overlay_on_board(tmp_path, npus=2, memory_bytes=8 << 20, watchdog=0, timeout=2.0) as (board, overlay):
        pool = pool_on(overlay)
        assert all_right(pool, 6)
        board.break_wires("image", npu=0, stalled=True)  # the reset mends it
        old = board.npus
        until(lambda: all_right(pool, 6) and board.npus is not old)
        until(lambda: all(member.state is State.IN_SERVICE for member in pool.members))
        before = [member.images for member in pool.members]
        until(lambda: all_right(pool, 6) and all(m.images > n for m, n in zip(pool.members, before, strict=True)))


def test_a_reset_reaches_the_other_npu_as_a_clear_error(two: Two):
    first, second = two[1].npus
    first.reset()
    with pytest.raises(DeviceResetError, match="restarted: run the image again"):
        second.read_register(Register.RUNS)
    loaded = two[0].npus
    second.reset()
    assert two[0].npus is loaded, "the bitstream is loaded once for both"
    assert second.read_register(Register.RUNS) == 0
    assert all_right(pool_on(two[1]), 6)


def test_restarting_the_overlay_restarts_the_pool(two: Two):
    board, overlay = two
    assert all_right(pool_on(overlay), 6)
    used = board.memory_used
    overlay.restart()
    assert board.memory_used == used
    pool = pool_on(overlay)
    assert all_right(pool, 6)
    until(lambda: all_right(pool, 4) and all(npu.interrupts for npu in overlay.npus))


def test_lost_interrupts_are_replaced_by_polling(two: Two):
    board, overlay = two
    board.lose_interrupts(1000)
    pool = pool_on(overlay)
    assert all_right(pool, 8)
    board.lose_interrupts(0)
    before = [npu.interrupts for npu in overlay.npus]
    until(lambda: all_right(pool, 4) and all(npu.interrupts > n for npu, n in zip(overlay.npus, before, strict=True)))


def test_two_boards_are_one_pool(tmp_path: Path):
    with ExitStack() as boards:
        overlays = []
        for number in range(2):
            board = boards.enter_context(SimulatedBoard(on_zynq(SIM_SMALL), memory_bytes=8 << 20))
            (tmp_path / str(number)).mkdir()
            # One kernel serves one set of interrupt lines: the second board polls, as cards do.
            overlay = NpuOverlay(board.bitstream(tmp_path / str(number)), device=board, interrupts=number == 0)
            overlays.append((board, overlay))
        with Pool([npu for _, overlay in overlays for npu in overlay.npus]) as pool:
            pool.load(PROGRAM)
            assert all_right(pool, 12)
            assert all(member.images for member in pool.members)
            overlays[0][0].inject(error_address=overlays[0][1].npus[0].read_register(Register.PROGRAM_ADDRESS))
            assert all_right(pool, 12)
            overlays[0][0].inject()
        assert [board.memory_used for board, _ in overlays] == [0, 0]


def test_all_npus_of_a_board_open_by_name():
    with Pool(open_devices("simulated-board:2", SIM_SMALL)) as pool:
        pool.load(PROGRAM)
        assert len(pool.members) == 2
        assert all_right(pool, 6)


def test_numbers_choose_the_npus_of_a_bitstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with SimulatedBoard(on_zynq(SIM_SMALL, npus=2), memory_bytes=8 << 20) as board:
        monkeypatch.setenv("QUARKWAVE_BITSTREAM", str(board.bitstream(tmp_path)))
        with pytest.raises(DeviceError, match=r"'board' is 2 NPUs: name one \(board:0\), or take all as a pool"):
            open_device("board", SIM_SMALL)
        assert len(open_devices("board", SIM_SMALL)) == len(open_devices("board:1,0", SIM_SMALL)) == 2  # and left open
        with Npu(open_device("board:1", SIM_SMALL)) as npu:
            npu.load(PROGRAM)
            assert all_right(npu, 2)
        with pytest.raises(DeviceError, match="holds the NPUs 0 to 1, not '2'"):
            open_device("board:2", SIM_SMALL)


def test_a_card_is_chosen_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with SimulatedBoard(on_zynq(SIM_SMALL), memory_bytes=8 << 20) as board:
        monkeypatch.setattr(pynq.Device, "_devices", [board], raising=False)
        monkeypatch.setenv("QUARKWAVE_BITSTREAM", str(board.bitstream(tmp_path)))
        open_device(f"board@{board.tag}", SIM_SMALL).close()
        with pytest.raises(DeviceError, match=f"PYNQ finds no card 'xrt7'; there are: {board.tag}"):
            open_device("board@xrt7", SIM_SMALL)


def test_devices_of_different_kinds_make_one_pool():
    with Pool(open_devices("golden+rtl+golden", SIM_SMALL)) as pool:
        pool.load(PROGRAM)
        assert [member.name for member in pool.members] == ["golden 0", "rtl 1", "golden 2"]
        assert all_right(pool, 24)


@pytest.mark.parametrize("spec", ["golden+nothing", "golden:2", "golden@here", "simulated-board:9"])
def test_a_name_that_makes_no_sense_opens_nothing(spec: str):
    with pytest.raises(DeviceError):
        open_devices(spec, SIM_SMALL)
