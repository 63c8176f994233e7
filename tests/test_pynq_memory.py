"""Contiguous memory on the simulated board: host and device have copies of their own, and every buffer is given back."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from random_networks import feature_sums, featurizer, featurizer_layers, random_image
from simulated_boards import overlay_on_board

from driver.board.memory import BoardBuffer
from driver.device import DeviceError
from driver.runtime import NpuError
from hw.isa import ErrorCode

SEED = 31
PROGRAM = featurizer(SEED)
RNG = np.random.default_rng(SEED)
IMAGES = [random_image(RNG, PROGRAM) for _ in range(2)]
SUMS = [feature_sums(featurizer_layers(SEED), image) for image in IMAGES]


def test_a_flush_that_is_left_out_is_a_wrong_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with overlay_on_board(tmp_path) as (_, overlay):
        npu = overlay.load(PROGRAM)
        assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])
        with monkeypatch.context() as patch:
            patch.setattr(BoardBuffer, "flush", lambda self: None)
            assert not np.array_equal(npu.run(IMAGES[1]).result, SUMS[1])
        assert np.array_equal(npu.run(IMAGES[1]).result, SUMS[1])


def test_an_invalidate_that_is_left_out_is_a_wrong_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with overlay_on_board(tmp_path) as (_, overlay):
        npu = overlay.load(PROGRAM)
        with monkeypatch.context() as patch:
            patch.setattr(BoardBuffer, "invalidate", lambda self: None)
            assert not np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])
        assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])


def test_a_program_that_is_not_flushed_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with overlay_on_board(tmp_path) as (_, overlay):
        with monkeypatch.context() as patch:
            patch.setattr(BoardBuffer, "flush", lambda self: None)
            npu = overlay.load(PROGRAM)
            with pytest.raises(NpuError) as caught:
                npu.run(IMAGES[0])
        assert caught.value.code == ErrorCode.BAD_MAGIC
        assert np.array_equal(overlay.load(PROGRAM).run(IMAGES[0]).result, SUMS[0])


def test_host_and_device_see_each_other_only_through_flush_and_invalidate(tmp_path: Path):
    with overlay_on_board(tmp_path) as (board, overlay):
        buffer = overlay.npu.allocate(5000)
        device = board.npu.memory.at(buffer.address, 5000)
        buffer.array[:] = 7
        assert not np.array_equal(device, buffer.array)
        buffer.flush()
        assert np.array_equal(device, buffer.array)
        device[:] = 9
        assert buffer.array[0] == 7
        buffer.invalidate()
        assert np.array_equal(buffer.array, device) and buffer.array[-1] == 9
        buffer.free()


def test_buffers_begin_at_pages_and_do_not_overlap(tmp_path: Path):
    with overlay_on_board(tmp_path) as (_, overlay):
        buffers = [overlay.npu.allocate(nbytes) for nbytes in (1, 4096, 4097, 10)]
        spans = sorted((b.address, b.address + b.array.size) for b in buffers)
        assert all(start % 4096 == 0 for start, _ in spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_closing_gives_back_what_was_not_freed(tmp_path: Path):
    with overlay_on_board(tmp_path) as (board, overlay):
        overlay.load(PROGRAM)
        overlay.npu.allocate(100)
        assert board.memory_used > 0
        overlay.close()
        assert board.memory_used == 0 and overlay.npu.memory.buffers == 0


def test_memory_that_is_short_is_an_error_and_the_program_before_stays(tmp_path: Path):
    with overlay_on_board(tmp_path, memory_bytes=16 * 4096) as (board, overlay):
        npu = overlay.load(PROGRAM)
        taken = overlay.npu.allocate(8 * 4096)
        used = board.memory_used
        with pytest.raises(DeviceError, match="no contiguous memory for"):
            npu.load(featurizer(SEED + 1))
        assert board.memory_used == used
        assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])
        taken.free()


def test_a_buffer_that_was_freed_is_not_used_again(tmp_path: Path):
    with overlay_on_board(tmp_path) as (_, overlay):
        buffer = overlay.npu.allocate(100)
        buffer.free()
        for use in (buffer.flush, buffer.invalidate):
            with pytest.raises(DeviceError, match="has been freed"):
                use()
        with pytest.raises(DeviceError, match="freed twice"):
            buffer.free()


def test_no_memory_is_given_back_while_the_npu_may_write_to_it(tmp_path: Path):
    with overlay_on_board(tmp_path, watchdog=0, timeout=0.2) as (board, overlay):
        npu = overlay.load(PROGRAM)
        used = board.memory_used
        board.inject(frozen=True)
        with pytest.raises(DeviceError):
            npu.run(IMAGES[0])  # it is still on when its time is up
        spare = overlay.npu.allocate(100)
        spare.free()
        assert board.memory_used > used
        with pytest.raises(DeviceError, match=r"a run is still on: .* restart"):
            overlay.npu.close()
        board.inject()
        overlay.restart()
        assert board.memory_used == used


def test_pynqs_own_buffers_share_the_memory(tmp_path: Path):
    import pynq

    with overlay_on_board(tmp_path) as (board, _):
        with pynq.allocate((4, 10), "u2") as buffer:
            buffer[:] = 513
            buffer[1:3].flush()
            device = board.npu.memory.at(buffer.device_address, buffer.nbytes).view("<u2").reshape(4, 10)
            assert np.array_equal(device[1:3], buffer[1:3]) and not np.array_equal(device[0], buffer[0])
        assert board.memory_used == 0
