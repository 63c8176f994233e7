"""What holds on every device: the integers, the error codes, and that the run after a failure is right."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from random_networks import SIM_SMALL, feature_sums, featurizer, featurizer_layers, random_image

from driver.device import DeviceTimeoutError, open_device
from driver.golden import GoldenDevice
from driver.runtime import WATCHDOG_CYCLES, Npu, NpuError
from hw.isa import VERSION, Control, ErrorCode, Register
from hw.stream import payload_bytes
from sim.verilated import VerilatedDevice

PROGRAM = featurizer(3)
IMAGE = random_image(np.random.default_rng(3), PROGRAM)
SUMS = feature_sums(featurizer_layers(3), IMAGE)
RECORD = SIM_SMALL.padded(64)
FIRST, SECOND = PROGRAM.descriptors()[:2]
SECOND_AT = RECORD + RECORD + payload_bytes(FIRST, SIM_SMALL)

Edit = Callable[[bytearray], None]
Simulated = GoldenDevice | VerilatedDevice


@pytest.fixture(params=["emulator", "golden", "rtl"])
def device(request: pytest.FixtureRequest) -> Simulated:
    return open_device(request.param, SIM_SMALL)  # the Npu of each test closes it


@pytest.mark.parametrize("seed", range(10))
def test_every_device_gives_the_same_integers(device: Simulated, seed: int):
    program, layers = featurizer(seed), featurizer_layers(seed)
    rng = np.random.default_rng(seed)
    with Npu(device) as npu:
        npu.load(program)
        for _ in range(3):
            image = random_image(rng, program)
            assert np.array_equal(npu.run(image).result, feature_sums(layers, image)), f"seed {seed}"


def put(at: int, record: bytes) -> Edit:
    """Overwrite the stream from byte ``at``."""

    def edit(stream: bytearray) -> None:
        stream[at : at + len(record)] = record

    return edit


def flip(at: int) -> Edit:
    """Flip one bit of byte ``at``, as a fault in memory would."""

    def edit(stream: bytearray) -> None:
        stream[at] ^= 0x10

    return edit


FAULTS = {
    "no program at all": (put(0, bytes(RECORD)), ErrorCode.BAD_MAGIC, 0),
    "another instruction set": (put(0, replace(PROGRAM.header, version=VERSION + 1).pack()), ErrorCode.BAD_VERSION, 0),
    "a damaged header": (flip(9), ErrorCode.BAD_CRC, 0),
    "another array": (put(0, replace(PROGRAM.header, cp=64).pack()), ErrorCode.WRONG_CONFIGURATION, 0),
    "no layers": (put(0, replace(PROGRAM.header, layers=0).pack()), ErrorCode.BAD_DESCRIPTOR, 0),
    "an image beyond the banks": (
        put(0, replace(PROGRAM.header, image_base=SIM_SMALL.total_words).pack()),
        ErrorCode.BAD_ADDRESS,
        0,
    ),
    "features beyond the banks": (
        put(0, replace(PROGRAM.header, feature_base=SIM_SMALL.total_words).pack()),
        ErrorCode.BAD_ADDRESS,
        3,
    ),
    "a damaged descriptor": (flip(SECOND_AT + 3), ErrorCode.BAD_CRC, 1),
    "a zero kernel": (put(SECOND_AT, replace(SECOND, kernel_h=0).pack()), ErrorCode.BAD_DESCRIPTOR, 1),
    "a tile larger than the accumulators": (
        put(SECOND_AT, replace(SECOND, tile_rows=513).pack()),
        ErrorCode.BAD_DESCRIPTOR,
        1,
    ),
    "an output beyond the banks": (
        put(SECOND_AT, replace(SECOND, out_base=SIM_SMALL.total_words - 1).pack()),
        ErrorCode.BAD_ADDRESS,
        1,
    ),
    "an input before the banks": (put(SECOND_AT, replace(SECOND, in_origin=-500).pack()), ErrorCode.BAD_ADDRESS, 1),
    "a damaged weight": (flip(SECOND_AT + RECORD + 200), ErrorCode.BAD_PAYLOAD, 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_memory_stops_with_its_own_code_and_the_next_run_is_right(device: Simulated, name: str):
    edit, code, layer = FAULTS[name]
    with Npu(device) as npu:
        npu.load(PROGRAM)
        assert np.array_equal(npu.run(IMAGE).result, SUMS)
        memory = device.memory.at(device.read_register(Register.PROGRAM_ADDRESS), len(PROGRAM.stream))
        damaged = bytearray(PROGRAM.stream)
        edit(damaged)
        memory[:] = np.frombuffer(bytes(damaged), np.uint8)
        with pytest.raises(NpuError) as caught:
            npu.run(IMAGE)
        assert (caught.value.code, caught.value.layer) == (code, layer)
        assert device.read_register(Register.CYCLES) < WATCHDOG_CYCLES / 10, "it must stop at once, not by the watchdog"
        memory[:] = np.frombuffer(PROGRAM.stream, np.uint8)
        assert np.array_equal(npu.run(IMAGE).result, SUMS)


@pytest.mark.parametrize(
    ("register", "code"),
    [
        (Register.PROGRAM_ADDRESS, ErrorCode.WEIGHT_READ),
        (Register.IMAGE_ADDRESS, ErrorCode.IMAGE_READ),
        (Register.FEATURE_ADDRESS, ErrorCode.FEATURE_WRITE),
    ],
)
def test_an_address_outside_the_memory_is_a_bus_error(device: Simulated, register: Register, code: ErrorCode):
    with Npu(device) as npu:
        npu.load(PROGRAM)
        npu.run(IMAGE)
        device.write_register(register, 0)
        device.write_register(Register.CONTROL, Control.START)
        device.wait(60)
        assert device.read_register(Register.ERROR_CODE) == code
        assert np.array_equal(npu.run(IMAGE).result, SUMS)


# Only with a clock ----------------------------------------------------------------------------------------------------


@pytest.fixture
def rtl() -> VerilatedDevice:
    return VerilatedDevice(SIM_SMALL)


def test_every_cycle_is_counted_once(rtl: VerilatedDevice):
    with Npu(rtl) as npu:
        npu.load(PROGRAM)
        c = npu.run(IMAGE).counters
    assert c.cycles == c.mac_busy + c.weight_stall + c.image_stall + c.drain + c.overhead
    assert sum(layer.mac_busy for layer in c.layers) == c.mac_busy
    assert sum(layer.cycles for layer in c.layers) <= c.cycles
    assert [layer.name for layer in c.layers] == list(PROGRAM.layer_names)
    assert 0 < c.utilisation(PROGRAM.macs, SIM_SMALL) < 1


def test_a_run_that_timed_out_does_not_disturb_the_next(rtl: VerilatedDevice):
    with Npu(rtl, timeout=0.1, watchdog=0) as npu:
        npu.load(PROGRAM)
        rtl.inject(frozen=True)
        with pytest.raises(DeviceTimeoutError):
            npu.run(IMAGE)
        rtl.inject()
        npu._pipeline.timeout = 60.0
        other = random_image(np.random.default_rng(4), PROGRAM)
        assert np.array_equal(npu.run(other).result, feature_sums(featurizer_layers(3), other))


def test_a_late_interrupt_does_not_end_the_next_run(rtl: VerilatedDevice):
    with Npu(rtl) as npu:
        npu.load(PROGRAM)
        npu.run(IMAGE)
        rtl.read_register(Register.CONTROL)  # clears DONE
        rtl.write_register(Register.CONTROL, Control.START)
        while not rtl.read_register(Register.CONTROL) & Control.DONE:  # nobody waits: the interrupt stays pending
            pass
        assert rtl.read_register(Register.INTERRUPT_STATUS)
        assert np.array_equal(npu.run(IMAGE).result, SUMS)


def test_a_memory_that_stops_answering_is_caught_by_the_watchdog(rtl: VerilatedDevice):
    with Npu(rtl, watchdog=5000) as npu:
        npu.load(PROGRAM)
        rtl.inject(frozen=True)
        with pytest.raises(NpuError) as caught:
            npu.run(IMAGE)
        assert caught.value.code == ErrorCode.WATCHDOG
        rtl.inject()
        assert np.array_equal(npu.run(IMAGE).result, SUMS)
