"""The stem rewrite: a convolution over the laid-out image equals the convolution over the image."""

import numpy as np
import pytest

from hw.golden import convolve
from hw.image_layout import ImageLayout


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("size", [(16, 16), (15, 17), (9, 8)])
def test_the_rewritten_stem_computes_the_same_sums(size: tuple[int, int], kernel: int, stride: int):
    rng = np.random.default_rng(kernel)
    image = rng.integers(0, 256, (*size, 3))
    weights = rng.integers(-128, 128, (5, 3, kernel, kernel))
    pad = kernel // 2
    out = tuple((n + 2 * pad - kernel) // stride + 1 for n in size)
    layout = ImageLayout.for_stem((*size, 3), kernel, stride, pad, out)
    rewritten = convolve(layout.arrange(image), layout.rewrite_weights(weights), 1, 0, 0, *out)
    assert (rewritten == convolve(image, weights, stride, pad, pad, *out)).all()


def test_the_resnet_stem_takes_4_passes_instead_of_49():
    layout = ImageLayout.for_stem((224, 224, 3), 7, 2, 3, (112, 112))
    assert (layout.rows, layout.cols, layout.lanes, layout.taps) == (115, 112, 48, 4)
    assert layout.rewrite_weights(np.zeros((64, 3, 7, 7))).shape == (64, 48, 4, 1)


@pytest.mark.parametrize("cp", [8, 16, 64])
def test_packing_fills_the_lanes_of_a_word_with_channels_then_zeros(cp: int):
    image = np.random.default_rng(cp).integers(1, 256, (5, 7, 19), dtype=np.uint8)
    layout = ImageLayout.plain(5, 7, 19)
    blocks = -(-19 // cp)
    words = layout.pack(image, cp, cp).reshape(blocks, 5, 7, cp)
    lanes = words.transpose(1, 2, 0, 3).reshape(5, 7, blocks * cp)
    assert (lanes[:, :, :19] == image).all() and (lanes[:, :, 19:] == 0).all()


def test_an_image_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"the image is \(8, 8, 1\), the program expects \(8, 8, 3\)"):
        ImageLayout.plain(8, 8, 3).pack(np.zeros((8, 8, 1), np.uint8), 16, 16)
