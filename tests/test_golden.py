"""The golden arithmetic against exact fractions and a second, plainer implementation."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import reference

from hw.golden import convolve, pool, read_tensor, requantise, round_shift, write_tensor
from hw.isa import LayerDescriptor, Pool


@pytest.mark.parametrize("shift", range(7))
def test_a_shift_rounds_half_to_even(shift: int):
    values = np.arange(-300, 301)
    exact = [round(Fraction(int(v), 2**shift)) for v in values]
    assert round_shift(values, shift).tolist() == exact


def test_a_shift_rounds_the_largest_accumulators_right():
    values = np.array([2**31 - 1, -(2**31), 2**31 - 2**20, -(2**31) + 2**20 + 1])
    assert round_shift(values, 21).tolist() == [round(Fraction(int(v), 2**21)) for v in values]


def test_the_residual_is_added_before_rounding():
    # 3/2 + 1/2 = 2, but 3/2 rounds to 2 and 1/2 to 0; and 1/4 + 1/4 = 1/2 rounds to 0, as does each.
    one, four = np.array([1]), np.array([2])
    assert requantise(np.array([3]), np.array([0]), np.array([1]), np.array([0]), one, 0, 255) == 2
    assert requantise(np.array([1]), np.array([0]), np.array([1]), np.array([0]), four, 0, 255) == 0
    assert requantise(np.array([2]), np.array([1]), np.array([3]), np.array([0]), four, 0, 255) == 2


def test_every_channel_has_its_own_shifts():
    acc, residual = np.array([[100, 100, -100]]), np.array([[1, 1, -1]])
    out = requantise(acc, np.array([4, 0, 0]), residual, np.array([3, 6, 1]), np.array([4, 2, 0]), -128, 127)
    assert out.tolist() == [[7, 41, -102]]


@pytest.mark.parametrize("seed", range(12))
def test_a_convolution_equals_its_sum_over_taps(seed: int):
    rng = np.random.default_rng(seed)
    h, w, c_in, c_out = rng.integers(1, 9, 4)
    kh, kw = rng.integers(1, 6, 2)
    stride, top, left = int(rng.integers(1, 4)), int(rng.integers(0, kh)), int(rng.integers(0, kw))
    rows, columns = ((n + 2 * p - k) // stride + 1 for n, p, k in ((h, top, kh), (w, left, kw)))
    rows, columns = max(1, rows), max(1, columns)
    x = rng.integers(-128, 256, (h, w, c_in))
    weights = rng.integers(-128, 128, (c_out, c_in, kh, kw))
    expected = reference.convolution(x, weights, stride, top, left, rows, columns)
    assert (convolve(x, weights, stride, top, left, rows, columns) == expected).all(), f"seed {seed}"


@pytest.mark.parametrize("pad", [0, 1])
def test_max_pooling_sees_zeros_outside(pad: int):
    d = LayerDescriptor(
        pool_mode=Pool.MAX, pool_kernel=3, pool_stride=2, pool_pad=pad, pooled_width=3 - pad, pooled_height=3 - pad
    )
    x = -np.arange(1, 26).reshape(5, 5, 1)
    windows = {0: [[-1, -3, 0], [-11, -13, 0], [0, 0, 0]], 1: [[0, 0], [0, -7]]}
    assert pool(x, d)[:, :, 0].tolist() == windows[pad]


def test_a_2x2_average_rounds_half_to_even():
    d = LayerDescriptor(
        pool_mode=Pool.AVERAGE, pool_kernel=2, pool_stride=2, pool_shift=2, pooled_width=4, pooled_height=1
    )
    x = np.array([[[1], [1], [2], [2], [3], [3], [250], [251]], [[0], [0], [1], [1], [1], [3], [251], [252]]])
    assert pool(x, d).reshape(-1).tolist() == [0, 2, 2, 251]  # 0.5, 1.5, 2.5, 251


def test_a_global_sum_is_exact():
    x = np.full((100, 100, 2), 255)
    assert pool(x, LayerDescriptor(pool_mode=Pool.GLOBAL_SUM)).reshape(-1).tolist() == [2_550_000, 2_550_000]


@pytest.mark.parametrize("signed", [False, True])
def test_a_tensor_reads_back_as_written(signed: bool):
    memory = np.full((60, 8), 0xA5, np.uint8)
    x = np.random.default_rng(0).integers(-128 if signed else 0, 128 if signed else 256, (3, 5, 16))
    write_tensor(memory, 20, x)
    assert (read_tensor(memory, 20, 3, 5, 2, signed) == x).all()
    assert (memory[:20] == 0xA5).all() and (memory[50:] == 0xA5).all()


def test_writing_fewer_channels_leaves_the_other_lanes_alone():
    memory = np.full((4, 8), 0xA5, np.uint8)
    write_tensor(memory, 0, np.zeros((2, 2, 3), np.int64))
    assert (memory[:, :3] == 0).all() and (memory[:, 3:] == 0xA5).all()


def test_a_descriptor_packs_into_64_bytes_and_back():
    d = LayerDescriptor(in_origin=-77, clip_low=-128, clip_high=255, out_base=(1 << 24) - 1, payload_check=0xDEADBEEF)
    assert LayerDescriptor.unpack(d.pack()) == d
    assert LayerDescriptor.unpack(replace(d, in_origin=-(1 << 24)).pack()).in_origin == -(1 << 24)
