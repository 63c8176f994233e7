"""The timed device: a stand-in for benchmarks, busy for the stated time an image, that answers bytes of the image."""

import time

import numpy as np
import pytest
from random_networks import featurizer, random_image

from driver.device import DeviceError, DeviceTimeoutError, open_device
from driver.runtime import Npu

PROGRAM = featurizer(71)
IMAGES = [random_image(np.random.default_rng(seed), PROGRAM) for seed in range(20)]


def test_images_in_a_row_take_the_stated_time_each():
    with Npu(open_device("timed:10ms", PROGRAM.config)) as npu:
        npu.load(PROGRAM)
        begin = time.monotonic()
        list(npu.run_many(IMAGES))
        assert time.monotonic() - begin >= 0.200  # a busy machine may take longer, never shorter


def test_every_image_gets_its_own_bytes_back():
    with Npu(open_device("timed:0ms", PROGRAM.config)) as npu:
        npu.load(PROGRAM)
        results = [result.result for result in npu.run_many(IMAGES)]
    expected = [
        PROGRAM.pack_image(image).reshape(-1)[: len(result)] for image, result in zip(IMAGES, results, strict=True)
    ]
    assert np.array_equal(results, expected)


def test_a_time_limit_below_its_time_is_a_time_out():
    with Npu(open_device("timed:600s", PROGRAM.config), timeout=0.01) as npu:
        npu.load(PROGRAM)
        with pytest.raises(DeviceTimeoutError, match="busy after"):
            npu.run(IMAGES[0])


@pytest.mark.parametrize("setting", ["fast", "", "1.8", "-1ms"])
def test_a_time_without_number_and_unit_is_refused(setting: str):
    with pytest.raises(DeviceError, match=r"write a number and its unit, like timed:1\.8ms"):
        open_device(f"timed:{setting}", PROGRAM.config)


def test_a_device_without_setting_takes_none():
    with pytest.raises(DeviceError, match="has no setting"):
        open_device("golden:1.8ms", PROGRAM.config)
