"""Several devices as one: images are spread, each is answered once, and a device that fails loses nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from random_networks import SIM_SMALL, feature_sums, featurizer, featurizer_layers, random_image

from driver import pool as pool_module
from driver.device import DeviceError, DeviceTimeoutError
from driver.golden import GoldenDevice
from driver.pool import ATTEMPTS, Pool, State
from driver.runtime import NpuError
from hw.isa import Control, ErrorCode, Register

SEED = 77
PROGRAM = featurizer(SEED)
RNG = np.random.default_rng(SEED)
IMAGES = [random_image(RNG, PROGRAM) for _ in range(8)]
SUMS = [feature_sums(featurizer_layers(SEED), image) for image in IMAGES]
PATIENCE = 60.0


class FaultyDevice(GoldenDevice):
    """A golden device that can be told to hang, to answer with an error, or to break altogether."""

    def __init__(self, errors: int = 0, dead: bool = False) -> None:
        super().__init__(SIM_SMALL)
        self.errors = errors
        """Runs that end with an error code, of those that come."""
        self.dead = dead
        self.gate = threading.Event()
        self.gate.set()
        self.runs = self.resets = 0
        self.closed = False

    def write_register(self, offset: int, value: int) -> None:
        if offset == Register.CONTROL and value & Control.START:
            self.runs += 1
        super().write_register(offset, value)

    def read_register(self, offset: int) -> int:
        if self.dead:
            raise DeviceError("the bus does not answer")
        if offset == Register.ERROR_CODE and self.errors:
            self.errors -= 1
            return ErrorCode.IMAGE_READ
        return super().read_register(offset)

    def wait(self, timeout: float) -> None:
        if not self.gate.wait(timeout):
            raise DeviceTimeoutError("held by the test")
        super().wait(timeout)

    def reset(self) -> None:
        self.resets += 1
        self.errors = 0
        super().close()

    def close(self) -> None:
        self.closed = True
        super().close()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "PAUSE_SECONDS", (0.01, 0.05))


@pytest.fixture
def devices() -> list[FaultyDevice]:
    return [FaultyDevice() for _ in range(3)]


@pytest.fixture
def pool(devices: list[FaultyDevice]) -> Iterator[Pool]:
    with Pool(devices, timeout=PATIENCE) as pool:
        pool.load(PROGRAM)
        yield pool


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    tick = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError(f"did not happen within {PATIENCE} s")


def all_right(pool: Pool, count: int) -> bool:
    """Whether ``count`` images come back right and in order."""
    numbers = [n % len(IMAGES) for n in range(count)]
    results = list(pool.run_many(IMAGES[n] for n in numbers))
    return len(results) == count and all(
        np.array_equal(r.result, SUMS[n]) for r, n in zip(results, numbers, strict=True)
    )


def test_results_come_in_the_order_of_the_images_and_every_npu_works(pool: Pool):
    assert all_right(pool, 60)
    assert sum(member.images for member in pool.members) == 60
    assert all(member.images for member in pool.members)


def test_an_image_goes_to_the_npu_that_has_room(pool: Pool, devices: list[FaultyDevice]):
    devices[0].gate.clear()
    futures = [pool.run_async(IMAGES[n % len(IMAGES)]) for n in range(40)]
    until(lambda: pool.members[1].images + pool.members[2].images >= 40 - pool_module.AHEAD)
    assert pool.members[0].images == 0
    devices[0].gate.set()
    assert all(np.array_equal(f.result(PATIENCE).result, SUMS[n % len(IMAGES)]) for n, f in enumerate(futures))


def test_threads_share_a_pool(pool: Pool):
    with ThreadPoolExecutor(12) as threads:
        results = list(threads.map(pool.run, IMAGES * 6))
    assert all(np.array_equal(r.result, sums) for r, sums in zip(results, SUMS * 6, strict=True))


async def test_runs_can_be_awaited(pool: Pool):
    results = await asyncio.gather(*(asyncio.wrap_future(pool.run_async(image)) for image in IMAGES))
    assert all(np.array_equal(r.result, sums) for r, sums in zip(results, SUMS, strict=True))


def test_an_image_that_failed_is_computed_on_another_npu(pool: Pool, devices: list[FaultyDevice]):
    devices[0].errors = 1
    assert all_right(pool, 30)
    assert sum(member.images for member in pool.members) == 30, "each image is answered once"
    assert [member.failures for member in pool.members] == [1, 0, 0]


def test_an_npu_that_failed_comes_back(pool: Pool, devices: list[FaultyDevice]):
    devices[1].errors = 2
    assert all_right(pool, 40)
    until(lambda: all(member.state is State.IN_SERVICE for member in pool.members))
    before = pool.members[1].images
    assert all_right(pool, 40)
    assert pool.members[1].images > before
    assert pool.members[1].failures_in_a_row == 0


def test_an_npu_that_fails_again_at_once_is_reset(pool: Pool, devices: list[FaultyDevice]):
    devices[2].errors = 1_000_000
    while not devices[2].resets:
        assert all_right(pool, 12)
    until(lambda: pool.members[2].state is State.IN_SERVICE)
    assert pool.members[2].failures == 2


def test_an_npu_that_hangs_is_reset_and_its_image_computed_elsewhere():
    devices = [FaultyDevice(), FaultyDevice()]
    with Pool(devices, timeout=1.0) as pool:
        pool.load(PROGRAM)
        devices[0].gate.clear()
        assert all_right(pool, 10)
        devices[0].gate.set()
        until(lambda: pool.members[0].state is State.IN_SERVICE)
        assert devices[0].resets >= 1
        assert all_right(pool, 10)


def test_a_lost_npu_is_tried_again_until_it_answers(pool: Pool, devices: list[FaultyDevice]):
    devices[0].dead = True
    assert all_right(pool, 30)
    until(lambda: pool.members[0].state is State.LOST)
    assert "the bus does not answer" in str(pool.members[0].error)
    assert all_right(pool, 30)
    devices[0].dead = False
    until(lambda: pool.members[0].state is State.IN_SERVICE)
    assert all_right(pool, 30)


def test_without_any_npu_left_every_image_is_answered_with_the_reasons(pool: Pool, devices: list[FaultyDevice]):
    for device in devices:
        device.dead = True
    futures = [pool.run_async(image) for image in IMAGES * 3]
    for future in futures:
        assert isinstance(future.exception(PATIENCE), DeviceError)
    until(lambda: all(member.state is State.LOST for member in pool.members))
    with pytest.raises(DeviceError, match=r"no NPU of the pool is in service any more .*golden 2: the bus does not"):
        pool.run(IMAGES[0])
    for device in devices:
        device.dead = False
    until(lambda: any(member.state is State.IN_SERVICE for member in pool.members))
    assert all_right(pool, 10)


def test_an_image_that_fails_everywhere_gets_the_error_after_its_attempts(pool: Pool, devices: list[FaultyDevice]):
    for device in devices:
        device.errors = 1_000_000
    with pytest.raises(NpuError) as caught:
        pool.run(IMAGES[0])
    assert caught.value.code == ErrorCode.IMAGE_READ
    assert sum(device.runs for device in devices) == ATTEMPTS
    for device in devices:
        device.errors = 0
    assert all_right(pool, 10)


def test_a_pool_of_one_tries_again_on_the_same_npu():
    device = FaultyDevice(errors=1)
    with Pool([device], timeout=PATIENCE) as pool:
        pool.load(PROGRAM)
        assert all_right(pool, 4)
        assert pool.members[0].failures == 1


def test_a_wrong_image_is_refused_at_once(pool: Pool):
    with pytest.raises(ValueError, match="the program expects"):
        pool.run_async(IMAGES[0][:-1])
    with pytest.raises(ValueError, match="expects uint8"):
        pool.run_async(IMAGES[0].astype(np.float32))


def test_a_cancelled_image_is_not_computed(pool: Pool, devices: list[FaultyDevice]):
    for device in devices:
        device.gate.clear()
    futures = [pool.run_async(IMAGES[0]) for _ in range(30)]
    assert futures[-1].cancel()
    for device in devices:
        device.gate.set()
    assert all(np.array_equal(f.result(PATIENCE).result, SUMS[0]) for f in futures[:-1])
    assert sum(member.images for member in pool.members) == 29


def test_another_program_follows_the_images_that_were_given_before(pool: Pool):
    futures = [pool.run_async(image) for image in IMAGES * 3]
    other = featurizer(6)
    pool.load(other)
    assert pool.program is other
    assert all(np.array_equal(f.result(PATIENCE).result, s) for f, s in zip(futures, SUMS * 3, strict=True))
    expected = feature_sums(featurizer_layers(6), IMAGES[0])
    assert all(np.array_equal(r.result, expected) for r in pool.run_many([IMAGES[0]] * 12))


def test_an_npu_that_cannot_load_is_taken_out_and_loads_later(devices: list[FaultyDevice], tmp_path: Path):
    PROGRAM.save(tmp_path / "net.npu")
    devices[0].dead = True
    with Pool(devices, timeout=PATIENCE) as pool:
        pool.load(tmp_path / "net.npu")
        assert all_right(pool, 10)
        assert pool.members[0].state is not State.IN_SERVICE
        devices[0].dead = False
        until(lambda: pool.members[0].state is State.IN_SERVICE)
        assert all_right(pool, 10)


def test_a_program_that_no_npu_can_load_leaves_the_one_before(pool: Pool, devices: list[FaultyDevice]):
    for device in devices:
        device.dead = True
    with pytest.raises(DeviceError, match="does not answer"):
        pool.load(featurizer(6))
    for device in devices:
        device.dead = False
    assert pool.program is PROGRAM
    assert all_right(pool, 10)


def test_closing_finishes_what_runs_cancels_what_waits_and_closes_every_device(devices: list[FaultyDevice]):
    pool = Pool(devices, timeout=PATIENCE)
    pool.load(PROGRAM)
    futures = [pool.run_async(image) for image in IMAGES * 8]
    pool.close()
    for number, future in enumerate(futures):
        assert future.cancelled() or np.array_equal(future.result(PATIENCE).result, SUMS[number % len(IMAGES)])
    assert all(device.closed and device.memory.arena.used == 0 for device in devices)
    pool.close()
    with pytest.raises(DeviceError, match="closed"):
        pool.run_async(IMAGES[0])


def test_a_pool_needs_a_device_and_a_program():
    with pytest.raises(ValueError, match="needs a device"):
        Pool([])
    with Pool([FaultyDevice()]) as pool, pytest.raises(DeviceError, match=r"call load\(\) first"):
        pool.run(IMAGES[0])
