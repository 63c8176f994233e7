"""The stem rewrite: a convolution over the laid-out image equals the convolution over the image."""

import numpy as np
import pytest

from hw.golden import convolve
from hw.image_layout import ImageLayout, Packer


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


@pytest.mark.parametrize("cp", [8, 16, 64])
@pytest.mark.parametrize("size", [(16, 16), (15, 17), (9, 8)])
def test_a_packer_leaves_nothing_of_the_image_before(size: tuple[int, int], cp: int):
    layout = ImageLayout.for_stem((*size, 3), 7, 2, 3, tuple((n - 1) // 2 + 1 for n in size))
    rng = np.random.default_rng(cp)
    packer = Packer(layout, cp, layout.word_bytes(cp, 8))
    out = np.full(packer.nbytes, 255, np.uint8)
    for _ in range(3):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        packer.pack(image, out)
        assert np.array_equal(out.reshape(-1, layout.word_bytes(cp, 8)), blocks_of(layout, image, cp)), f"seed {cp}"


def blocks_of(layout: ImageLayout, image: np.ndarray, cp: int) -> np.ndarray:
    """The words lane by lane, as the layout's definition says it."""
    b, sent = layout.block, layout.word_bytes(cp, 8)
    words = np.zeros((-(-layout.lanes // cp), layout.rows, layout.cols, sent), np.uint8)
    for row, col, column, dy, dx in np.ndindex(layout.rows, layout.cols, layout.columns, b, b):
        y, x = row * b + dy - layout.pad_top, (col + column) * b + dx - layout.pad_left
        if 0 <= y < layout.height and 0 <= x < layout.width:
            for channel in range(layout.channels):
                lane = ((column * b + dy) * b + dx) * layout.channels + channel
                words[lane // cp, row, col, lane % cp] = image[y, x, channel]
    return words.reshape(-1, sent)
