"""The golden model as a device: the board's registers, and the board's error codes for everything that can be wrong."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from random_networks import SIM_SMALL, feature_sums, featurizer, featurizer_layers, random_image

from driver.device import DeviceTimeoutError, open_device
from driver.golden import GoldenDevice
from driver.runtime import Npu, NpuError
from hw.isa import MAGIC, VERSION, Control, ErrorCode, Register, load_config
from hw.stream import payload_bytes

PROGRAM = featurizer(3)
IMAGE = random_image(np.random.default_rng(3), PROGRAM)
SUMS = feature_sums(featurizer_layers(3), IMAGE)
RECORD = SIM_SMALL.padded(64)
FIRST, SECOND = PROGRAM.descriptors()[:2]
SECOND_AT = RECORD + RECORD + payload_bytes(FIRST, SIM_SMALL)

Edit = Callable[[bytearray], None]


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
def test_a_fault_in_memory_stops_with_its_own_code_and_the_next_run_is_right(name: str):
    edit, code, layer = FAULTS[name]
    device = GoldenDevice(SIM_SMALL)
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
def test_an_address_outside_the_memory_is_a_bus_error(register: Register, code: ErrorCode):
    device = GoldenDevice(SIM_SMALL)
    with Npu(device) as npu:
        npu.load(PROGRAM)
        npu.run(IMAGE)
        device.write_register(register, 0)
        device.write_register(Register.CONTROL, Control.START)
        device.wait(10)
        assert device.read_register(Register.ERROR_CODE) == code
        assert np.array_equal(npu.run(IMAGE).result, SUMS)


def started_short(watchdog: int) -> GoldenDevice:
    """A device that has just been told to read fewer beats than its program has."""
    device = GoldenDevice(SIM_SMALL)
    program = device.allocate(len(PROGRAM.stream))
    program.array[:] = np.frombuffer(PROGRAM.stream, np.uint8)
    program.flush()
    for register in (Register.PROGRAM_ADDRESS, Register.IMAGE_ADDRESS, Register.FEATURE_ADDRESS):
        device.write_register(register, program.address)
    device.write_register(Register.PROGRAM_BEATS, PROGRAM.beats - 1)
    device.write_register(Register.WATCHDOG, watchdog)
    device.write_register(Register.CONTROL, Control.START)
    return device


def test_a_stream_that_ends_early_is_caught_by_the_watchdog():
    device = started_short(watchdog=1000)
    device.wait(10)
    assert device.read_register(Register.ERROR_CODE) == ErrorCode.WATCHDOG
    assert device.read_register(Register.ERROR_LAYER) == len(PROGRAM.layer_names) - 1


def test_a_stream_that_ends_early_hangs_without_the_watchdog():
    device = started_short(watchdog=0)
    with pytest.raises(DeviceTimeoutError):
        device.wait(0.05)
    assert not device.read_register(Register.CONTROL) & Control.IDLE


def test_done_clears_when_control_is_read():
    device = started_short(watchdog=1000)
    device.wait(10)
    assert device.read_register(Register.CONTROL) == Control.DONE | Control.READY | Control.IDLE
    assert device.read_register(Register.CONTROL) == Control.IDLE


def test_polling_control_reaches_done_without_wait():
    device = started_short(watchdog=1000)
    for _ in range(len(PROGRAM.layer_names) + 1):
        if device.read_register(Register.CONTROL) & Control.DONE:
            return
    raise AssertionError("never done")


def test_id_registers_describe_the_configuration():
    config = load_config("zcu104")
    device = GoldenDevice(config)
    assert device.read_register(Register.ID_MAGIC) == MAGIC
    assert device.read_register(Register.ID_ARRAY) == 32 << 16 | 64
    assert device.read_register(Register.ID_MEMORY) == 8 * 4096
    assert device.read_register(Register.ID_STREAM) == 512 << 16 | 48


def test_read_only_registers_keep_their_value():
    device = GoldenDevice(SIM_SMALL)
    device.write_register(Register.ID_MAGIC, 0)
    device.write_register(Register.CYCLES, 5)
    assert device.read_register(Register.ID_MAGIC) == MAGIC
    assert device.read_register(Register.CYCLES) == 0


@pytest.mark.parametrize("offset", [-4, 2, 1 << 13])
def test_offsets_that_are_no_registers_are_refused(offset: int):
    with pytest.raises(ValueError, match="no register"):
        GoldenDevice(SIM_SMALL).read_register(offset)


def test_it_opens_by_name():
    device = open_device("golden", "sim-small")
    assert (device.kind, device.config) == ("golden", SIM_SMALL)


@pytest.mark.parametrize("board", ["sim-small", "zcu104", "u250"])
@pytest.mark.parametrize("seed", range(3))
def test_every_array_gives_the_same_integers(board: str, seed: int):
    config = load_config(board)
    image = random_image(np.random.default_rng(seed), PROGRAM)
    with Npu(GoldenDevice(config)) as npu:
        npu.load(featurizer(seed, config))
        assert np.array_equal(npu.run(image).result, feature_sums(featurizer_layers(seed), image)), f"seed {seed}"
