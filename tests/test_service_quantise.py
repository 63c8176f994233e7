"""FP32 images to the NPU's grid: equal to rounding in float64, for ties, neighbours of ties, and values far outside."""

import numpy as np
import pytest

from host_service.errors import RequestError
from host_service.quantise import Quantiser


@pytest.mark.parametrize("fraction_bits", range(-3, 13))
@pytest.mark.parametrize("beyond", [False, True])
def test_equals_rounding_half_to_even_in_float64(fraction_bits: int, beyond: bool):
    rng = np.random.default_rng(fraction_bits + 100)
    ties = np.arange(511, dtype=np.float32) / 2
    steps = np.concatenate([rng.random(10_000) * 255, ties, np.nextafter(ties, -1), np.nextafter(ties, 255), [1e-38]])
    outside = [-1e-30, -0.5, -3e30, 255.5, 256, 257, 3e30]
    steps = np.concatenate([steps, outside]) if beyond else steps[(steps >= 0) & (steps <= 255)]
    image = (steps * 2.0**-fraction_bits).astype(np.float32)
    expected = np.clip(np.rint(image.astype(np.float64) * 2.0**fraction_bits), 0, 255)
    found = np.empty(image.shape, np.uint8)
    Quantiser(fraction_bits).write(image, found)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value: float):
    image = np.zeros((4, 4, 3), np.float32)
    image[1, 2, 0] = value
    with pytest.raises(RequestError, match="NaN or an infinity"):
        Quantiser(8).write(image, np.empty(image.shape, np.uint8))


@pytest.mark.parametrize("offset", range(4))
def test_a_tensor_may_stand_anywhere_in_its_message(offset: int):
    values = np.random.default_rng(offset).random((5, 7, 3), dtype=np.float32)
    message = bytes(offset) + values.tobytes()
    found = np.empty(values.shape, np.uint8)
    Quantiser(8).write(np.frombuffer(message, np.float32, offset=offset).reshape(values.shape), found)
    assert np.array_equal(found, np.minimum(np.rint(values.astype(np.float64) * 256), 255))
