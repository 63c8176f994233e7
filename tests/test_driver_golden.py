"""The golden model as a device: the board's registers, and the arrays that it stands for."""

import numpy as np
import pytest
from random_networks import SIM_SMALL, feature_sums, featurizer, featurizer_layers, random_image

from driver.device import DeviceTimeoutError, open_device
from driver.golden import GoldenDevice
from driver.runtime import Npu
from hw.isa import MAGIC, Control, ErrorCode, Register, load_config

PROGRAM = featurizer(3)


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
