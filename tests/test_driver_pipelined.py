"""Images that follow each other without a gap: one computes, one waits, and every answer reaches the image that it belongs to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from random_networks import SIM_SMALL, feature_sums, featurizer, featurizer_layers, random_image

from driver.device import Buffer, DeviceError, DeviceTimeoutError, open_device
from driver.golden import GoldenDevice
from driver.runtime import Npu, NpuError, Result
from hw.isa import Control, ErrorCode, Register
from sim.verilated import VerilatedDevice

SEED = 11
PROGRAM = featurizer(SEED)
LAYERS = featurizer_layers(SEED)
IMAGES = [random_image(np.random.default_rng(seed), PROGRAM) for seed in range(50)]
SUMS = [feature_sums(LAYERS, image) for image in IMAGES]


class Observed:
    """A device under observation: counts its STARTs, and can be made slow or broken."""

    def __init__(self, device: GoldenDevice | VerilatedDevice) -> None:
        self.device = device
        self.waiting_at_start: list[int] = []
        """For every START the runs that had not finished yet, itself left out."""
        self.unreadable: list[np.ndarray] = []
        """Packed images in place of whose address the NPU gets one that is not memory."""
        self._image = 0
        """The address (low half) that the driver wants its images read from."""
        self.buffers: list[int] = []
        """The address of the features (low half) of every run that got its START."""
        self.restless: np.random.Generator | None = None
        """Lets, at random, a run come to its end between one register access and the next."""
        self.late = False
        """Whether the host sees an interrupt only when nothing is left to compute."""
        self._open = threading.Event()
        self._open.set()
        self._write, self._wait, self._read = device.write_register, device.wait, device.read_register
        device.write_register, device.wait, device.read_register = (
            self._observed_write,
            self._observed_wait,
            self._observed_read,
        )

    def _observed_write(self, offset: int, value: int) -> None:
        if offset == Register.IMAGE_ADDRESS:
            self._image = value
        if offset == Register.CONTROL:
            damaged = any(self._holds(self._image, words) for words in self.unreadable)
            self._write(Register.IMAGE_ADDRESS, 0 if damaged else self._image)
            unfinished = self.unfinished
            feature_address = self._read(Register.FEATURE_ADDRESS)
            assert feature_address not in self.buffers[len(self.buffers) - unfinished :], "two runs share a buffer"
            self.buffers.append(feature_address)
            self.waiting_at_start.append(unfinished)
        self._write(offset, value)

    def _observed_read(self, offset: int) -> int:
        value = self._read(offset)
        if self.restless:
            runs = self._read(Register.RUNS)
            if self.starts != runs and self.restless.random() < 0.1:
                while self._read(Register.RUNS) == runs:
                    self._read(Register.CONTROL)  # time passes; the interrupt stays pending
        return value

    def _observed_wait(self, timeout: float) -> None:
        if not self._open.wait(timeout):
            raise DeviceTimeoutError("the test holds the device")
        self._wait(timeout)
        while self.late and self.unfinished:
            self._wait(timeout)

    def _holds(self, address: int, words: np.ndarray) -> bool:
        return np.array_equal(self.device.memory.at(address, words.size), words.reshape(-1))

    @property
    def starts(self) -> int:
        """Runs that got their START."""
        return len(self.waiting_at_start)

    @property
    def unfinished(self) -> int:
        """Runs that got their START and have not finished."""
        return self.starts - self._read(Register.RUNS)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Nothing is computed meanwhile; registers can be written."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread to bring ``condition`` about."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.001)


@pytest.fixture(params=["golden", "rtl"])
def observed(request: pytest.FixtureRequest) -> Observed:
    return Observed(open_device(request.param, SIM_SMALL))


@pytest.fixture
def npu(observed: Observed) -> Iterator[Npu]:
    with Npu(observed.device, timeout=60.0) as npu:
        npu.load(PROGRAM)
        yield npu


def right(result: Result, number: int) -> bool:
    """Whether ``result`` is that of image ``number``."""
    return np.array_equal(result.result, SUMS[number]) and result.counters.layers_done == len(LAYERS)


def test_fifty_queued_images_each_get_their_own_answer(npu: Npu, observed: Observed):
    with observed.holding():
        futures = [npu.run_async(image) for image in IMAGES]
    assert [n for n, future in enumerate(futures) if not right(future.result(), n)] == [], f"seed {SEED}"


def test_one_run_waits_while_one_computes(npu: Npu, observed: Observed):
    with observed.holding():
        futures = [npu.run_async(image) for image in IMAGES[:10]]
        until(lambda: observed.starts == 2)
    for future in futures:
        future.result()
    assert observed.waiting_at_start == [0] + 9 * [1], "the first START finds an idle device, the others one run each"


def test_an_image_that_comes_during_a_run_is_started_before_it_ends(npu: Npu, observed: Observed):
    with observed.holding():
        first = npu.run_async(IMAGES[0])
        until(lambda: observed.starts == 1)
        second = npu.run_async(IMAGES[1])
        until(lambda: observed.starts == 2)
        third = npu.run_async(IMAGES[2])
        time.sleep(0.02)
        assert observed.starts == 2, "the device takes one run that waits, not two"
    assert [right(future.result(), n) for n, future in enumerate([first, second, third])] == [True] * 3


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True], ids=["prompt host", "late host"])
@pytest.mark.parametrize("unreadable", [{0}, {1}, {0, 2, 4}, {1, 2, 5}, set(range(7))], ids=str)
def test_a_failed_run_fails_its_own_image_only(npu: Npu, observed: Observed, unreadable: set[int], late: bool):
    """A host so late that two runs have finished finds the registers of the second, and must not take them for those of the first."""
    observed.unreadable = [PROGRAM.pack_image(IMAGES[n]) for n in unreadable]
    observed.late = late
    with observed.holding():
        futures = [npu.run_async(image) for image in IMAGES[:7]]
        until(lambda: observed.starts == 2)
    for number, future in enumerate(futures):
        if number in unreadable:
            with pytest.raises(NpuError) as caught:
                future.result()
            assert caught.value.code == ErrorCode.IMAGE_READ
        else:
            assert right(future.result(), number)
    observed.unreadable = []
    assert right(npu.run(IMAGES[0]), 0)


def test_a_late_host_still_gets_every_answer(npu: Npu, observed: Observed):
    observed.late = True
    with observed.holding():
        futures = [npu.run_async(image) for image in IMAGES[:9]]
        until(lambda: observed.starts == 2)
    assert [right(future.result(), n) for n, future in enumerate(futures)] == [True] * 9
    assert observed.starts > 9, "what nobody can know any more is computed again"
    assert max(observed.waiting_at_start) == 1


@pytest.mark.parametrize("seed", range(4))
def test_runs_may_end_between_any_two_register_accesses(npu: Npu, observed: Observed, seed: int):
    observed.restless = np.random.default_rng(seed)
    observed.unreadable = [PROGRAM.pack_image(IMAGES[n]) for n in (3, 4, 11)]
    with observed.holding():
        futures = [npu.run_async(image) for image in IMAGES[:20]]
    answers = [right(f.result(), n) if not f.exception() else type(f.exception()) for n, f in enumerate(futures)]
    assert answers == [NpuError if n in (3, 4, 11) else True for n in range(20)], f"seed {seed}"


def test_a_time_out_fails_both_images_in_the_device_and_the_next_is_right(observed: Observed):
    with Npu(observed.device, timeout=0.2) as npu:
        npu.load(PROGRAM)
        with observed.holding():
            futures = [npu.run_async(image) for image in IMAGES[:3]]
            assert [type(future.exception()) for future in futures] == [DeviceTimeoutError] * 3
            assert observed.starts == 2, "no third START behind two runs that have not ended"
        npu._pipeline.timeout = 60.0
        assert [right(result, n) for n, result in enumerate(npu.run_many(IMAGES[:4]))] == [True] * 4


def test_a_program_is_loaded_only_when_both_runs_have_ended(
    npu: Npu, observed: Observed, monkeypatch: pytest.MonkeyPatch
):
    unfinished: list[int] = []
    allocate = observed.device.allocate

    def observed_allocate(nbytes: int) -> Buffer:
        unfinished.append(observed.unfinished)
        return allocate(nbytes)

    monkeypatch.setattr(observed.device, "allocate", observed_allocate)
    with observed.holding():
        first, second = [npu.run_async(image) for image in IMAGES[:2]]
        until(lambda: observed.starts == 2)
        assert second.cancel(), "nobody waits for its result, but the device computes it"
        loading = threading.Thread(target=npu.load, args=(featurizer(SEED + 1),))
        loading.start()
    assert right(first.result(), 0)
    loading.join()
    assert unfinished and set(unfinished) == {0}
    assert np.array_equal(npu.run(IMAGES[0]).result, feature_sums(featurizer_layers(SEED + 1), IMAGES[0]))


def test_an_image_for_a_program_that_is_gone_is_not_started(
    npu: Npu, observed: Observed, monkeypatch: pytest.MonkeyPatch
):
    """As when a thread packs its image while another one loads a program."""
    gone = npu._pipeline
    npu.load(PROGRAM)
    with observed.holding():
        first = npu.run_async(IMAGES[0])
        with monkeypatch.context() as patch:
            patch.setattr(npu, "_current", lambda: gone)
            stale = npu.run_async(IMAGES[1])
        last = npu.run_async(IMAGES[2])
        until(lambda: observed.starts == 1)
        time.sleep(0.02)
        assert observed.starts == 1
    assert right(first.result(), 0) and right(last.result(), 2)
    with pytest.raises(DeviceError, match="another program was loaded"):
        stale.result()


# Cancelling and closing ----------------------------------------------------------------------------------------------


def test_images_cancelled_after_their_start_disturb_nobody(npu: Npu, observed: Observed):
    for round_ in range(3):
        before = observed.starts
        with observed.holding():
            futures = [npu.run_async(image) for image in IMAGES[:8]]
            until(lambda before=before: observed.starts == before + 2)
            assert [futures[n].cancel() for n in (1, 2, 5)] == [True] * 3
        assert all(right(futures[n].result(), n) for n in (0, 3, 4, 6, 7)), f"round {round_}"
        assert observed.starts == before + 6, "2 and 5 were never started"


def test_close_waits_for_a_run_that_was_cancelled_after_its_start(observed: Observed):
    npu = Npu(observed.device, timeout=60.0)
    npu.load(PROGRAM)
    with observed.holding():
        futures = [npu.run_async(image) for image in IMAGES[:5]]
        until(lambda: observed.starts == 2)
        runs: list[int] = []
        close, observed.device.close = observed.device.close, lambda: runs.append(observed._read(Register.RUNS))
        closing = threading.Thread(target=npu.close)
        closing.start()
        until(lambda: futures[1].cancelled())
    closing.join()
    assert right(futures[0].result(), 0) and all(future.cancelled() for future in futures[1:])
    assert runs == [2], "the device was closed while a run used its buffers"
    assert observed.device.memory.arena.used == 0
    close()


# run_many ------------------------------------------------------------------------------------------------------------


def test_run_many_takes_images_as_they_are_needed(npu: Npu):
    taken: list[int] = []

    def source() -> Iterator[np.ndarray]:
        for number, image in enumerate(IMAGES):
            taken.append(number)
            yield image

    for number, result in enumerate(npu.run_many(source())):
        assert right(result, number)
        assert len(taken) <= number + 3
    assert taken == list(range(len(IMAGES)))


def test_run_many_raises_at_the_image_that_failed(npu: Npu, observed: Observed):
    observed.unreadable = [PROGRAM.pack_image(IMAGES[2])]
    results = npu.run_many(IMAGES[:6])
    assert [right(next(results), n) for n in (0, 1)] == [True] * 2
    with pytest.raises(NpuError):
        next(results)
    assert next(results, None) is None
    assert right(npu.run(IMAGES[5]), 5)


# Registers -----------------------------------------------------------------------------------------------------------


def test_a_start_during_a_run_waits_and_its_registers_are_kept(npu: Npu, observed: Observed):
    device = observed.device
    npu.run(IMAGES[0])
    address = device.read_register(Register.FEATURE_ADDRESS)
    device.read_register(Register.CONTROL)
    runs = device.read_register(Register.RUNS)
    device.write_register(Register.CONTROL, Control.START)
    device.write_register(Register.FEATURE_ADDRESS, 0)  # for the run after this one
    device.write_register(Register.CONTROL, Control.START)
    device.write_register(Register.FEATURE_ADDRESS, address)  # too late: it waits already
    assert device.read_register(Register.CONTROL) == Control.START | Control.READY
    device.wait(60)
    assert (device.read_register(Register.RUNS), device.read_register(Register.ERROR_CODE)) == (
        runs + 1,
        ErrorCode.NONE,
    )
    assert not device.read_register(Register.CONTROL) & Control.IDLE
    device.wait(60)
    assert device.read_register(Register.ERROR_CODE) == ErrorCode.FEATURE_WRITE
    assert device.read_register(Register.RUNS) == runs + 2
    assert device.read_register(Register.CONTROL) & (Control.IDLE | Control.START) == Control.IDLE
    assert right(npu.run(IMAGES[1]), 1)


# Only with a clock ---------------------------------------------------------------------------------------------------


def test_the_next_image_is_loaded_while_the_present_one_computes():
    rtl = VerilatedDevice(SIM_SMALL)
    observed = Observed(rtl)
    with Npu(rtl) as npu:
        npu.load(PROGRAM)
        alone = []
        for image in IMAGES[:4]:
            begin = rtl.cycles
            alone.append(npu.run(image).counters)
            alone_clock = rtl.cycles - begin
        ends: list[int] = []
        with observed.holding():
            futures = [npu.run_async(image) for image in IMAGES[:8]]
            for future in futures:
                future.add_done_callback(lambda _: ends.append(rtl.cycles))
            until(lambda: observed.starts == 4 + 2)
        counters = [future.result().counters for future in futures]
        until(lambda: len(ends) == 8)
    assert all(c.image_stall > 0 for c in alone)
    assert [c.image_stall for c in counters[1:]] == [0] * 7
    per_image = (ends[-1] - ends[0]) / 7
    assert per_image < min(c.cycles for c in alone) < alone_clock
