"""Wires that are broken between a port and the memory: what the RTL then reads and writes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from random_networks import SIM_SMALL, feature_sums, featurizer, featurizer_layers, random_image

from driver.runtime import Npu, NpuError
from hw.isa import ErrorCode
from sim.verilated import VerilatedDevice

SEED = 12
PROGRAM = featurizer(SEED)
IMAGE = random_image(np.random.default_rng(SEED), PROGRAM)
SUMS = feature_sums(featurizer_layers(SEED), IMAGE)


@pytest.fixture
def npu() -> Iterator[Npu]:
    with Npu(VerilatedDevice(SIM_SMALL, memory_bytes=4 << 20), watchdog=5000) as npu:
        npu.load(PROGRAM)
        yield npu


def broken(npu: Npu) -> VerilatedDevice:
    assert isinstance(npu.device, VerilatedDevice)
    return npu.device


def test_a_data_line_that_is_stuck_clears_its_bit_of_every_beat(npu: Npu):
    broken(npu).break_wires("features", data_low=9)
    low = np.array([~(1 << 9) & 0xFFFFFFFF, *[0xFFFFFFFF] * 3] * (len(SUMS) // 4), np.uint32).view(np.int32)
    assert np.array_equal(npu.run(IMAGE).result, SUMS & low)


def test_an_address_line_that_is_stuck_leads_elsewhere(npu: Npu):
    broken(npu).break_wires("weights0", address_low=1 << 28)
    with pytest.raises(NpuError) as caught:
        npu.run(IMAGE)
    assert caught.value.code == ErrorCode.WEIGHT_READ


@pytest.mark.parametrize("port", ["weights0", "image", "features"])
def test_a_port_that_is_stalled_ends_in_the_watchdog_and_recovers(npu: Npu, port: str):
    broken(npu).break_wires(port, stalled=True)
    with pytest.raises(NpuError) as caught:
        npu.run(IMAGE)
    assert caught.value.code == ErrorCode.WATCHDOG
    broken(npu).break_wires(port)
    assert np.array_equal(npu.run(IMAGE).result, SUMS)


def test_an_unknown_port_is_refused(npu: Npu):
    with pytest.raises(ValueError, match=r"no port 'weights1'; there are weights0, image, features"):
        broken(npu).break_wires("weights1")
