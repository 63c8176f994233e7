"""One inference API: the same user code on a device of this machine and on a remote service, and the same answers."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from random_networks import feature_sums, featurizer, featurizer_layers, random_image
from running_service import running_service

from driver.device import DeviceError, DeviceTimeoutError
from driver.golden import GoldenDevice
from driver.runtime import Npu
from host_service.client import RemoteNpu, open_npu
from hw.isa import Register
from hw.program import ProgramError
from sim.verilated import VerilatedDevice

PROGRAM = featurizer(31)
IMAGES = [random_image(np.random.default_rng(seed), PROGRAM) for seed in range(8)]
SUMS = [feature_sums(featurizer_layers(31), image) for image in IMAGES]

Device = Npu | RemoteNpu


@pytest.fixture(scope="module")
def device() -> GoldenDevice:
    return GoldenDevice(PROGRAM.config)


@pytest.fixture(scope="module")
def address(device: GoldenDevice) -> Iterator[str]:
    with running_service(PROGRAM, device=device) as address:
        yield address


@pytest.fixture(params=["golden", "rtl", "grpc"])
def where(request: pytest.FixtureRequest, address: str) -> str:
    return f"grpc://{address}" if request.param == "grpc" else request.param


# What a user writes, once.


def one_by_one(npu: Device) -> list[np.ndarray]:
    return [npu.run(image).result for image in IMAGES]


def all_at_once(npu: Device) -> list[np.ndarray]:
    return [future.result().result for future in [npu.run_async(image) for image in IMAGES]]


def in_a_row(npu: Device) -> list[np.ndarray]:
    return [result.result for result in npu.run_many(IMAGES)]


def awaited(npu: Device) -> list[np.ndarray]:
    async def gather() -> list[np.ndarray]:
        results = await asyncio.gather(*(asyncio.wrap_future(npu.run_async(image)) for image in IMAGES))
        return [r.result for r in results]

    return asyncio.run(gather())


@pytest.mark.parametrize("user_code", [one_by_one, all_at_once, in_a_row, awaited])
def test_the_same_code_gives_the_same_integers(where: str, user_code: Callable[[Device], list[np.ndarray]]):
    with open_npu(where, PROGRAM) as npu:
        assert np.array_equal(user_code(npu), SUMS)


def test_results_have_the_same_types_and_real_values(where: str):
    with open_npu(where, PROGRAM) as npu:
        result = npu.run(IMAGES[0])
        assert npu.program == PROGRAM
    assert (result.result.dtype, result.features.dtype) == (np.int32, np.float32)
    assert np.array_equal(result.features, PROGRAM.features(SUMS[0]))
    assert result.counters.layers_done == len(PROGRAM.layer_names)
    assert result.seconds > 0
    result.features[0] = 1.0  # the arrays are the caller's own


def test_a_program_file_is_enough(where: str, tmp_path: Path):
    PROGRAM.save(tmp_path / "net.npu")
    with open_npu(where, tmp_path / "net.npu") as npu:
        assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])


@pytest.mark.parametrize(
    "image",
    [np.zeros((12, 12, 3), np.float32), np.zeros((12, 11, 3), np.uint8), np.zeros((12, 12), np.uint8)],
    ids=["float", "narrow", "grey"],
)
def test_a_bad_image_is_the_same_error(where: str, image: np.ndarray):
    with open_npu(where, PROGRAM) as npu:
        with pytest.raises(ValueError, match="the program expects"):
            npu.run(image)
        assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])


def test_a_bad_file_is_the_same_error(where: str, tmp_path: Path):
    (tmp_path / "net.npu").write_bytes(b"nonsense")
    with pytest.raises(ProgramError, match="is not an NPU program"):
        open_npu(where, tmp_path / "net.npu")


def test_close_may_be_called_again(where: str):
    npu = open_npu(where, PROGRAM)
    npu.close()
    npu.close()


# Only remotely -------------------------------------------------------------------------------------------------------


def test_a_service_with_another_program_is_refused(address: str):
    with RemoteNpu(address) as npu:
        with pytest.raises(DeviceError, match=r"runs another program \('random-31'\) than yours \('random-32'\)"):
            npu.load(featurizer(32))
        assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])


def test_without_a_program_the_services_own_is_used(address: str):
    with RemoteNpu(address) as npu:
        assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])
        with pytest.raises(DeviceError, match=r"call load\(\) first"):
            _ = npu.program


def test_nobody_there_is_an_error_with_the_address():
    with pytest.raises(DeviceError, match=r"service at 127\.0\.0\.1:1:"):
        RemoteNpu("127.0.0.1:1", timeout=5)


def test_an_error_of_the_remote_npu_says_what_the_local_one_says():
    class Broken(GoldenDevice):
        def write_register(self, offset: int, value: int) -> None:
            super().write_register(offset, value - 1 if offset == Register.PROGRAM_BEATS else value)

    with (
        running_service(PROGRAM, device=Broken(PROGRAM.config)) as address,
        RemoteNpu(address) as npu,
        pytest.raises(DeviceError, match=r"NPU stopped with WATCHDOG at layer 2 \(last\)"),
    ):
        npu.run(IMAGES[0])


def test_no_answer_in_time_is_a_time_out_and_the_next_call_works(address: str):
    with RemoteNpu(address) as npu:
        npu._timeout = 1e-6
        with pytest.raises(DeviceTimeoutError):
            npu.run(IMAGES[0])
        npu._timeout = 60.0
        assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])


def test_the_rtl_answers_over_the_wire_with_its_own_cycles():
    device = VerilatedDevice(PROGRAM.config)
    with running_service(PROGRAM, device=device) as address, open_npu(f"grpc://{address}", PROGRAM) as npu:
        before = device.cycles
        result = npu.run(IMAGES[0])
        elapsed = device.cycles - before
    c = result.counters
    assert np.array_equal(result.result, SUMS[0])
    assert c.cycles == c.mac_busy + c.weight_stall + c.image_stall + c.drain + c.overhead
    assert 0 < c.cycles < elapsed, "the simulator's clock also ran for the register accesses"
    assert 0 < c.utilisation(PROGRAM.macs, PROGRAM.config) < 1
