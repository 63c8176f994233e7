"""What goes wrong on a board, seeded on the simulated one: a clear error, and the next image is right."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from random_networks import feature_sums, featurizer, featurizer_layers, random_image
from simulated_boards import overlay_on_board

from driver.board import npu_ip
from driver.device import DeviceError, DeviceTimeoutError
from driver.runtime import Npu, NpuError
from hw.isa import Control, ErrorCode, Register

SEED = 41
PATIENCE = 60
"""Seconds that something may take which needs moments."""
PROGRAM = featurizer(SEED)
RNG = np.random.default_rng(SEED)
IMAGES = [random_image(RNG, PROGRAM) for _ in range(6)]
SUMS = [feature_sums(featurizer_layers(SEED), image) for image in IMAGES]


def is_right(npu: Npu, number: int = 0) -> bool:
    return np.array_equal(npu.run(IMAGES[number]).result, SUMS[number])


def run_until(npu: Npu, condition: Callable[[], bool]) -> None:
    """Run images, all of them right, until ``condition`` holds: a host that is slow may find a run finished without waiting for it."""
    end = time.monotonic() + PATIENCE
    for number in count():
        assert is_right(npu, number % len(IMAGES)), f"image {number}, seed {SEED}"
        if condition():
            return
        assert time.monotonic() < end, f"{number + 1} images in {PATIENCE} s were not enough"


@pytest.mark.parametrize(
    ("register", "code"),
    [
        (Register.PROGRAM_ADDRESS, ErrorCode.WEIGHT_READ),
        (Register.IMAGE_ADDRESS, ErrorCode.IMAGE_READ),
        (Register.FEATURE_ADDRESS, ErrorCode.FEATURE_WRITE),
    ],
)
def test_a_bus_error_names_what_failed_and_the_layer(tmp_path: Path, register: Register, code: ErrorCode):
    with overlay_on_board(tmp_path) as (board, overlay):
        npu = overlay.load(PROGRAM)
        assert is_right(npu)
        board.inject(error_address=overlay.npu.read_register(register))
        with pytest.raises(NpuError) as caught:
            npu.run(IMAGES[1])
        assert caught.value.code == code
        assert caught.value.layer_name in str(caught.value) and code.meaning in str(caught.value)
        board.inject()
        assert is_right(npu, 1)


def test_an_error_in_the_weights_names_the_layer_that_wanted_them(tmp_path: Path):
    with overlay_on_board(tmp_path) as (board, overlay):
        npu = overlay.load(PROGRAM)
        assert is_right(npu)
        last_weights = overlay.npu.read_register(Register.PROGRAM_ADDRESS) + len(PROGRAM.stream) - 64
        board.inject(error_address=last_weights)
        with pytest.raises(NpuError, match=r"WEIGHT_READ at layer \d \(\w+\)") as caught:
            npu.run(IMAGES[1])
        assert caught.value.layer_name in PROGRAM.layer_names
        board.inject()
        assert is_right(npu, 1)


def test_a_memory_that_stops_answering_is_found_by_the_watchdog(tmp_path: Path):
    with overlay_on_board(tmp_path, watchdog=5000) as (board, overlay):
        npu = overlay.load(PROGRAM)
        board.inject(frozen=True)
        with pytest.raises(NpuError, match="does the memory answer") as caught:
            npu.run(IMAGES[0])
        assert caught.value.code == ErrorCode.WATCHDOG
        board.inject()
        assert is_right(npu)


def test_a_run_that_takes_too_long_ends_with_a_time_out_and_the_next_is_right(tmp_path: Path):
    with overlay_on_board(tmp_path, watchdog=0, timeout=0.3) as (board, overlay):
        npu = overlay.load(PROGRAM)
        board.inject(frozen=True)
        with pytest.raises(DeviceTimeoutError, match=r"was not done after .* restart the overlay"):
            npu.run(IMAGES[0])
        board.inject()
        assert is_right(npu, 1)


def test_restarting_recovers_an_npu_that_does_not_come_back(tmp_path: Path):
    with overlay_on_board(tmp_path, watchdog=0, timeout=0.3) as (board, overlay):
        npu = overlay.load(PROGRAM)
        used = board.memory_used
        board.inject(frozen=True)
        for _ in range(2):
            with pytest.raises(DeviceTimeoutError):
                npu.run(IMAGES[0])
        overlay.restart()  # resets the NPU; the new one's memory answers
        assert np.array_equal(overlay.run(IMAGES[2]).result, SUMS[2])
        assert board.memory_used == used
        run_until(overlay.load(PROGRAM), lambda: overlay.npu.interrupts > 0)


def test_restarting_does_not_wait_for_a_run_that_hangs(tmp_path: Path):
    with overlay_on_board(tmp_path, watchdog=0, timeout=600.0) as (board, overlay):
        npu = overlay.load(PROGRAM)
        used = board.memory_used
        board.inject(frozen=True)
        lost = npu.run_async(IMAGES[0])
        while overlay.npu.idle():
            pass
        begin = time.monotonic()
        overlay.restart()
        assert time.monotonic() - begin < 20
        with pytest.raises(DeviceError, match="restarted: run the image again"):
            lost.result(0)
        assert np.array_equal(overlay.run(IMAGES[1]).result, SUMS[1])
        assert board.memory_used == used


def test_a_lost_interrupt_costs_a_moment_and_nothing_else(tmp_path: Path):
    with overlay_on_board(tmp_path) as (board, overlay):
        npu = overlay.load(PROGRAM)
        assert is_right(npu)
        board.lose_interrupts(1)
        begin = time.monotonic()
        assert is_right(npu, 1)
        assert time.monotonic() - begin < 5
        before = overlay.npu.interrupts
        run_until(npu, lambda: overlay.npu.interrupts > before)  # they come again


def test_interrupts_that_never_come_are_replaced_by_polling(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with overlay_on_board(tmp_path) as (board, overlay):
        npu = overlay.load(PROGRAM)
        board.lose_interrupts(1000)
        with caplog.at_level(logging.WARNING):
            run_until(npu, lambda: overlay.npu.lost_interrupts >= npu_ip.LOST_MAX)
        assert caplog.text.count("polls until one does") == 1
        assert overlay.npu.interrupts == 0
        board.lose_interrupts(0)
        run_until(npu, lambda: overlay.npu.interrupts > 0)  # they are taken up again


def test_interrupts_are_taken_up_again_where_every_run_ends_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with overlay_on_board(tmp_path, watchdog=0) as (board, overlay):
        npu = overlay.load(PROGRAM)
        board.lose_interrupts(1000)
        run_until(npu, lambda: overlay.npu.lost_interrupts >= npu_ip.LOST_MAX)
        board.lose_interrupts(0)
        overdue = overlay.npu._overdue

        def overdue_when_done(seconds: float) -> bool:
            board.inject()
            while not overlay.npu.idle():
                pass
            return overdue(seconds)

        monkeypatch.setattr(overlay.npu, "_overdue", overdue_when_done)
        lost = overlay.npu.lost_interrupts
        for number in range(len(IMAGES)):
            board.inject(frozen=True)
            assert is_right(npu, number)
        assert overlay.npu.interrupts > 0
        assert overlay.npu.lost_interrupts <= lost + 1


def test_an_interrupt_without_a_reason_ends_no_run_and_keeps_no_other_from_coming(tmp_path: Path):
    with overlay_on_board(tmp_path) as (board, overlay):
        npu = overlay.load(PROGRAM)
        board.interrupt()
        run_until(npu, lambda: overlay.npu.interrupts > 0)


def test_an_interrupt_that_was_left_pending_does_not_end_the_next_run(tmp_path: Path):
    with overlay_on_board(tmp_path) as (_, overlay):
        npu = overlay.load(PROGRAM)
        assert is_right(npu)
        overlay.npu.write_register(Register.CONTROL, Control.START)  # somebody else's run
        while overlay.npu.read_register(Register.RUNS) < 2:
            pass
        assert is_right(npu, 3)


def test_an_error_belongs_to_its_image_and_the_images_around_it_are_right(tmp_path: Path):
    with overlay_on_board(tmp_path) as (board, overlay):
        npu = overlay.load(PROGRAM)
        for number in range(len(IMAGES)):
            if number == 3:
                board.inject(error_address=overlay.npu.read_register(Register.FEATURE_ADDRESS))
                with pytest.raises(NpuError):
                    npu.run(IMAGES[number])
                board.inject()
            else:
                assert is_right(npu, number), f"image {number}, seed {SEED}"


def test_a_register_access_that_nothing_answers_is_an_error(tmp_path: Path):
    import pynq

    with overlay_on_board(tmp_path) as (board, _), pytest.raises(DeviceError, match="nothing answers at 0x80000000"):
        pynq.MMIO(0x8000_0000, 4, device=board).read(0)


def test_the_clock_cannot_be_changed_during_a_run(tmp_path: Path):
    with overlay_on_board(tmp_path, watchdog=0, timeout=0.2) as (board, overlay):
        npu = overlay.load(PROGRAM)
        overlay.npu.config = board.board.array
        board.inject(frozen=True)
        with pytest.raises(DeviceTimeoutError):
            npu.run(IMAGES[0])
        with pytest.raises(DeviceError, match="during a run"):
            overlay.clock_mhz = 100.0
        board.inject()
        assert is_right(npu)
