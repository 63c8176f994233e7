"""The runtime: load, run, run_async, counters, errors, time-outs, and buffers that all come back."""

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_networks import SIM_SMALL, feature_sums, featurizer, featurizer_layers, random_image

from driver.device import DeviceError, DeviceTimeoutError, device_names, open_device
from driver.golden import GoldenDevice
from driver.runtime import Counters, Npu
from hw.isa import LAYER_COUNTERS_MAX, ArrayConfig, Control, Register, load_config
from hw.program import ProgramError

PROGRAM = featurizer(5)
LAYERS = featurizer_layers(5)
IMAGES = [random_image(np.random.default_rng(seed), PROGRAM) for seed in range(8)]
SUMS = [feature_sums(LAYERS, image) for image in IMAGES]


class CountingDevice(GoldenDevice):
    """The golden model with the cycle counters of a device that has a clock: register ``offset`` reads ``offset``."""

    def read_register(self, offset: int) -> int:
        if Register.CYCLES <= offset < Register.LAYERS_DONE or offset >= Register.LAYER_COUNTERS:
            return offset
        return super().read_register(offset)


class RecordingDevice(GoldenDevice):
    """The golden model, keeping what was written to its registers."""

    def __init__(self, config: ArrayConfig) -> None:
        super().__init__(config)
        self.writes: list[tuple[int, int]] = []

    def write_register(self, offset: int, value: int) -> None:
        self.writes.append((offset, value))
        super().write_register(offset, value)


class GatedDevice(GoldenDevice):
    """The golden model, which computes nothing while the test holds it."""

    def __init__(self, config: ArrayConfig) -> None:
        super().__init__(config)
        self._gate = threading.Event()
        self._gate.set()

    @contextmanager
    def holding(self) -> Iterator[None]:
        self._gate.clear()
        try:
            yield
        finally:
            self._gate.set()

    def wait(self, timeout: float) -> None:
        if not self._gate.wait(timeout):
            raise DeviceTimeoutError("held by the test")
        super().wait(timeout)


@pytest.fixture
def device() -> GoldenDevice:
    return GoldenDevice(SIM_SMALL)


@pytest.fixture
def npu(device: GoldenDevice) -> Iterator[Npu]:
    with Npu(device) as npu:
        npu.load(PROGRAM)
        yield npu


def test_run_gives_the_integers_and_their_real_values(npu: Npu):
    result = npu.run(IMAGES[0])
    assert np.array_equal(result.result, SUMS[0])
    assert result.features.dtype == np.float32
    assert np.array_equal(result.features, (SUMS[0] / (6 * 6 * 2.0**4)).astype(np.float32))
    assert result.counters.layers_done == len(LAYERS)
    assert result.seconds > 0


def test_a_program_file_loads_as_the_program_does(npu: Npu, tmp_path: Path):
    PROGRAM.save(tmp_path / "net.npu")
    assert npu.load(tmp_path / "net.npu") == PROGRAM
    assert np.array_equal(npu.run(IMAGES[1]).result, SUMS[1])


def test_async_results_come_back_to_their_own_images(npu: Npu):
    futures = [npu.run_async(image) for image in IMAGES]
    for future, sums in zip(futures, SUMS, strict=True):
        assert np.array_equal(future.result().result, sums)


def test_the_image_may_be_overwritten_as_soon_as_run_async_returns(npu: Npu):
    image = IMAGES[2].copy()
    futures = [npu.run_async(IMAGES[0]) for _ in range(10)]
    future = npu.run_async(image)
    image[:] = 0
    assert np.array_equal(future.result().result, SUMS[2])
    assert all(np.array_equal(f.result().result, SUMS[0]) for f in futures)


def test_twenty_threads_share_one_device(npu: Npu):
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(npu.run, IMAGES * 10))
    assert all(np.array_equal(r.result, sums) for r, sums in zip(results, SUMS * 10, strict=True))


async def test_runs_can_be_awaited(npu: Npu):
    results = await asyncio.gather(*(asyncio.wrap_future(npu.run_async(image)) for image in IMAGES))
    assert all(np.array_equal(r.result, sums) for r, sums in zip(results, SUMS, strict=True))


def test_another_program_takes_the_place_of_the_first(npu: Npu, device: GoldenDevice):
    used = device.memory.arena.used
    npu.load(featurizer(6))
    assert np.array_equal(npu.run(IMAGES[0]).result, feature_sums(featurizer_layers(6), IMAGES[0]))
    assert device.memory.arena.used == used, "the first program's buffers must be given back"


def test_the_registers_are_written_before_start():
    device = RecordingDevice(SIM_SMALL)
    with Npu(device, watchdog=77) as npu:
        npu.load(PROGRAM)
        npu.run(IMAGES[0])
    offsets = [offset for offset, _ in device.writes]
    assert offsets[-1] == Register.CONTROL and offsets.count(Register.CONTROL) == 1
    assert device.writes[-1] == (Register.CONTROL, Control.START)
    assert (Register.PROGRAM_BEATS, PROGRAM.beats) in device.writes
    assert (Register.WATCHDOG, 77) in device.writes
    assert {Register.PROGRAM_ADDRESS, Register.IMAGE_ADDRESS, Register.FEATURE_ADDRESS} < set(offsets)


# Counters ------------------------------------------------------------------------------------------------------------


def test_counters_are_what_the_device_counted():
    with Npu(CountingDevice(SIM_SMALL)) as npu:
        npu.load(PROGRAM)
        counters = npu.run(IMAGES[0]).counters
    assert (counters.cycles, counters.mac_busy, counters.weight_stall) == (0x60, 0x64, 0x68)
    assert (counters.image_stall, counters.drain, counters.overhead, counters.layers_done) == (0x6C, 0x70, 0x74, 3)
    assert [layer.name for layer in counters.layers] == [layer.name for layer in LAYERS]
    last = counters.layers[2]
    assert (last.cycles, last.mac_busy, last.weight_stall, last.drain) == (0x1020, 0x1024, 0x1028, 0x102C)
    assert len(counters.layers) <= LAYER_COUNTERS_MAX


def test_layer_counters_can_be_left_unread():
    with Npu(CountingDevice(SIM_SMALL), layer_counters=False) as npu:
        npu.load(PROGRAM)
        assert npu.run(IMAGES[0]).counters.layers == ()


def test_utilisation_is_work_done_per_work_possible():
    counters = Counters(1000, 0, 0, 0, 0, 0, 0)
    assert counters.utilisation(128_000, SIM_SMALL) == 0.5


def test_a_device_without_a_clock_claims_no_cycles_and_no_utilisation(npu: Npu):
    counters = npu.run(IMAGES[0]).counters
    assert counters.cycles == 0
    assert math.isnan(counters.utilisation(PROGRAM.macs, SIM_SMALL))


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [np.zeros((12, 12, 3), np.float32), np.zeros((12, 11, 3), np.uint8), np.zeros((12, 12), np.uint8)],
    ids=["float", "narrow", "grey"],
)
def test_an_image_that_does_not_fit_is_refused_and_costs_nothing(npu: Npu, image: np.ndarray):
    with pytest.raises(ValueError, match="the program expects"):
        npu.run(image)
    assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])


def test_a_program_for_another_array_is_refused_and_the_loaded_one_stays(npu: Npu, device: GoldenDevice):
    used = device.memory.arena.used
    with pytest.raises(DeviceError, match=r"compiled for 'zcu104'.*cp is 16, the program needs 64.*for 'sim-small'"):
        npu.load(featurizer(5, load_config("zcu104")))
    assert device.memory.arena.used == used
    assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])


def test_a_program_too_large_for_the_memory_is_refused_and_leaves_nothing_behind():
    device = GoldenDevice(SIM_SMALL, memory_bytes=1 << 14)
    with Npu(device) as npu:
        with pytest.raises(DeviceError, match="no room for"):
            npu.load(PROGRAM)
        assert device.memory.arena.used == 0


def test_a_file_that_is_no_program_is_refused(npu: Npu, tmp_path: Path):
    (tmp_path / "net.npu").write_bytes(b"hello")
    with pytest.raises(ProgramError, match=r"net\.npu is not an NPU program"):
        npu.load(tmp_path / "net.npu")


def test_running_without_a_program_says_so():
    with Npu(GoldenDevice(SIM_SMALL)) as npu, pytest.raises(DeviceError, match=r"call load\(\) first"):
        npu.run(IMAGES[0])


def test_a_device_that_is_no_npu_is_refused():
    class Stranger(GoldenDevice):
        def read_register(self, offset: int) -> int:
            return 0xDEAD if offset == Register.ID_MAGIC else super().read_register(offset)

    with Npu(Stranger(SIM_SMALL)) as npu, pytest.raises(DeviceError, match="bitstream"):
        npu.load(PROGRAM)


def test_an_error_code_of_a_later_release_is_reported_as_such():
    class Later(GoldenDevice):
        def read_register(self, offset: int) -> int:
            return 99 if offset == Register.ERROR_CODE else super().read_register(offset)

    with Npu(Later(SIM_SMALL)) as npu:
        npu.load(PROGRAM)
        with pytest.raises(DeviceError, match="error 99"):
            npu.run(IMAGES[0])


def test_after_a_time_out_the_next_run_is_right():
    class SlowOnce(GoldenDevice):
        slow = True

        def wait(self, timeout: float) -> None:
            super().wait(0.0 if self.slow else timeout)

    device = SlowOnce(SIM_SMALL)
    with Npu(device, timeout=0.2) as npu:
        npu.load(PROGRAM)
        with pytest.raises(DeviceTimeoutError):
            npu.run(IMAGES[0])
        device.slow = False
        npu._pipeline.timeout = 60.0
        assert np.array_equal(npu.run(IMAGES[1]).result, SUMS[1])


def test_an_image_overtaken_by_another_program_fails_and_does_not_use_freed_buffers():
    """While the first image is computed, a program and then an image for the old one are queued."""
    with Npu(GatedDevice(SIM_SMALL)) as npu:
        npu.load(PROGRAM)
        with npu.device.holding():
            first = npu.run_async(IMAGES[0])
            loading = threading.Thread(target=npu.load, args=(featurizer(6),))
            loading.start()
            while npu._worker._work_queue.qsize() < 1:
                time.sleep(0.001)
            overtaken = npu.run_async(IMAGES[1])
        assert np.array_equal(first.result().result, SUMS[0])
        with pytest.raises(DeviceError, match="another program was loaded"):
            overtaken.result()
        loading.join()
        assert np.array_equal(npu.run(IMAGES[0]).result, feature_sums(featurizer_layers(6), IMAGES[0]))


def test_a_program_whose_stream_disagrees_with_its_file_is_refused(npu: Npu):
    wrong = replace(PROGRAM, image=replace(PROGRAM.image, rows=PROGRAM.image.rows + 1))
    with pytest.raises(ProgramError, match="image"):
        npu.load(wrong)
    assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])


# Closing -------------------------------------------------------------------------------------------------------------


def test_close_gives_every_buffer_back(device: GoldenDevice):
    with Npu(device) as npu:
        npu.load(PROGRAM)
        assert device.memory.arena.used > 0
    assert device.memory.arena.used == 0
    npu.close()


def test_close_finishes_what_runs_and_cancels_what_waits(npu: Npu):
    futures = [npu.run_async(IMAGES[0]) for _ in range(200)]
    npu.close()
    finished = [f for f in futures if not f.cancelled()]
    assert all(np.array_equal(f.result().result, SUMS[0]) for f in finished)
    assert all(f.done() for f in futures)


def test_devices_are_known_by_name():
    assert {"golden", "rtl"} <= set(device_names())
    with pytest.raises(DeviceError, match=r"no device named 'gold'; installed here: .*golden"):
        open_device("gold", "sim-small")
