"""Fused layers -> program: the program computes what the layers say, and what the array cannot run is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference

from hls.npu.emit import compile_layers, tile_rows
from hls.npu.layer import CompileError, FusedLayer, Pooling, Tensor
from hls.npu.prove import prove_no_overflow
from hw.golden import execute
from hw.isa import ArrayConfig, Pool, load_config
from hw.program import Program
from sim.random_layers import random_layers

CONFIGS = {
    "8x8": ArrayConfig("8x8", 8, 8, banks=8, bank_words=1024, acc_depth=64, ports=1, port_bytes=8, pool_columns=16),
    "16x4": ArrayConfig("16x4", 16, 4, banks=5, bank_words=1024, acc_depth=32, ports=3, port_bytes=4, pool_columns=16),
    "32x16": ArrayConfig("32x16", 32, 16, banks=3, bank_words=1024, acc_depth=40, ports=2, port_bytes=32),
    "sim-small": load_config("sim-small"),
    "zcu104": load_config("zcu104"),
}
SIM_SMALL = CONFIGS["sim-small"]


def result(program: Program, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Execute the program's descriptors on a memory full of garbage."""
    config, header = program.config, program.header
    memory = rng.integers(0, 256, (config.total_words, config.cp), dtype=np.uint8)
    words = slice(header.image_base, header.image_base + header.image_words)
    memory[words, : program.image_word_bytes] = program.pack_image(image)
    for layer in program.layers():
        values = (layer.weights, layer.bias, layer.shift, layer.res_shift)
        execute(layer.descriptor, *(v.astype(np.int64) for v in values), memory, config)
    return program.read_result(memory[header.feature_base : header.feature_base + header.feature_words])


def conv(size: tuple[int, int] = (8, 8), c_in: int = 3, c_out: int = 5, kernel: int = 3, **more: Any) -> FusedLayer:
    """One layer on the image; ``more`` replaces fields."""
    rng = np.random.default_rng(0)
    pad, stride = more.get("pad_top", 1), more.get("stride", 1)
    rows, columns = ((n + 2 * pad - kernel) // stride + 1 for n in size)
    fields: dict[str, Any] = {
        "name": "conv",
        "source": Tensor("image", *size, c_in, fraction_bits=8),
        "output": Tensor("out", rows, columns, c_out),
        "weights": rng.integers(-128, 128, (c_out, c_in, kernel, kernel)),
        "bias": rng.integers(-100, 100, c_out),
        "shift": np.full(c_out, 9),
        "rows": rows,
        "columns": columns,
        "pad_top": pad,
        "pad_left": pad,
    }
    return FusedLayer(**{**fields, **more})


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("seed", range(25))
def test_a_random_network_computes_what_its_layers_say(seed: int, config: ArrayConfig):
    rng = np.random.default_rng(seed)
    while True:
        layers = random_layers(rng, layers=5, size=10, channels=50)
        try:
            program = compile_layers("random", layers, config, rewrite_stem=bool(seed % 2))
            break
        except CompileError:
            continue
    source = layers[0].source
    image = rng.integers(0, 256, (source.height, source.width, source.channels), dtype=np.uint8)
    expected = reference.run(layers, image).reshape(program.read_result(np.zeros(program.result_bytes, np.uint8)).shape)
    assert (result(program, image, rng) == expected).all(), f"seed {seed} on {config.name}"


def test_the_same_layers_compile_to_the_same_bytes():
    layers = random_layers(np.random.default_rng(5), layers=4, size=10, channels=20)
    assert compile_layers("a", layers, SIM_SMALL).to_bytes() == compile_layers("a", layers, SIM_SMALL).to_bytes()


def test_macs_count_the_network_as_it_was_defined():
    layer = conv((224, 224), 3, 64, kernel=7, stride=2, pad_top=3, pad_left=3)
    program = compile_layers("stem", [layer], load_config("u250"))
    assert program.descriptors()[0].passes_per_tile == 4  # rewritten: 4x1 on 48 lanes, padded to 64
    assert program.macs == 112 * 112 * 64 * 3 * 7 * 7


def test_the_stem_stays_as_it_is_where_the_rewrite_saves_no_pass():
    layer = conv(c_in=16, kernel=1, pad_top=0, pad_left=0)
    assert compile_layers("plain", [layer], SIM_SMALL).image.lanes == 16


def test_the_stem_stays_as_it_is_where_another_layer_reads_the_image():
    first = conv()
    second = replace(first, name="second", output=replace(first.output, name="second"))
    assert compile_layers("two", [first, second], SIM_SMALL).image.lanes == 3


@pytest.mark.parametrize("rows", [1, 7, 36, 37, 100, 111])
@pytest.mark.parametrize("columns", [1, 14, 56, 300, 512])
def test_tiles_are_whole_rows_as_few_and_as_even_as_the_accumulator_allows(rows: int, columns: int):
    layer = conv((rows, columns), c_in=1, c_out=1, kernel=1, pad_top=0, pad_left=0)
    size, count = tile_rows(layer, SIM_SMALL)
    assert size * columns <= SIM_SMALL.acc_depth
    assert (count - 1) * size < rows <= count * size
    fewest = next(n for n in range(1, rows + 1) if -(-rows // n) * columns <= SIM_SMALL.acc_depth)
    assert count == -(-rows // -(-rows // fewest))


def test_padding_channels_have_zero_weights_and_bias():
    (layer,) = compile_layers("one", [conv(c_in=20, c_out=5)], SIM_SMALL, rewrite_stem=False).layers()
    assert layer.weights.shape == (16, 32, 3, 3)
    assert not layer.weights[5:].any() and not layer.weights[:, 20:].any() and not layer.bias[5:].any()


def test_the_metadata_reports_where_each_tensor_lies():
    program = compile_layers("one", [conv()], SIM_SMALL, metadata={"origin": "a test"})
    assert program.metadata["origin"] == "a test"
    (report,) = program.metadata["placement"]["layers"]
    assert report["input"]["base"] == program.header.image_base
    assert report["output"]["base"] == program.header.feature_base


# What the array cannot run ------------------------------------------------------------------------------------------------

MAX2 = Pooling(Pool.MAX, 2, 2)
REFUSED = {
    "kernel": (conv((20, 20), 1, 1, kernel=16), "kernel height is 16, the NPU takes 1 to 15"),
    "stride": (conv((20, 20), stride=8), "stride is 8, the NPU takes 1 to 7"),
    "pad": (conv((20, 20), 1, 1, pad_top=16, pad_left=16), "padding above is 16, the NPU takes 0 to 15"),
    "wide": (conv((3, 600)), "columns is 600, the NPU takes 1 to 512"),
    "large": (conv((2500, 1), kernel=1, pad_top=0, pad_left=0), "image has 2500 rows, the NPU takes 1 to 2047"),
    "shift": (conv(shift=np.full(5, 32)), "largest shift is 32, the NPU takes 0 to 31"),
    "average": (
        conv(pool=Pooling(Pool.AVERAGE, 3, 3), output=Tensor("out", 2, 2, 5)),
        "averages 3x3; the NPU averages 2x2",
    ),
    "pool": (conv(pool=Pooling(Pool.MAX, 4, 2), output=Tensor("out", 3, 3, 5)), "pools 4x4 with stride 2"),
    "pool pad": (conv(pool=Pooling(Pool.MAX, 2, 2, 2), output=Tensor("out", 5, 5, 5)), "pads the pool by 2"),
    "pool width": (conv((2, 300), pool=MAX2, output=Tensor("out", 1, 150, 5)), "the line buffer holds 128"),
    "empty window": (conv(pool=MAX2, output=Tensor("out", 5, 4, 5)), "a window sees only padding"),
    "signed image": (conv(source=Tensor("image", 8, 8, 3, "int8")), "the image is int8; quantise the input"),
}


@pytest.mark.parametrize(("layer", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_layer_beyond_the_limits_is_refused_by_name(layer: FusedLayer, message: str):
    with pytest.raises(CompileError) as caught:
        compile_layers("refused", [layer], SIM_SMALL)
    assert str(caught.value).startswith("layer 'conv': ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weights", np.full((5, 3, 3, 3), 128), "weights runs from 128 to 128, outside -128..127"),
        ("weights", np.zeros((5, 3, 3, 3)), "weights is float64"),
        ("weights", np.zeros((5, 4, 3, 3), np.int8), "weights for 4 channels on 3"),
        ("bias", np.zeros(4, np.int32), r"bias has shape (4,)"),
        ("shift", np.full(5, -1), "shift runs from -1"),
        ("clip_high", 256, "clips to 0..256"),
        ("clip_low", -1, "clips to -1..255"),
        ("output", Tensor("out", 7, 8, 5), "its output is uint8 (7, 8, 5)"),
        ("residual", Tensor("image", 8, 8, 3), "residual and res_shift must come together"),
    ],
)
def test_a_layer_that_contradicts_itself_cannot_be_made(field: str, value: Any, message: str):
    with pytest.raises(CompileError) as caught:
        conv(**{field: value})
    assert message in str(caught.value)


def test_reading_a_tensor_before_it_is_written_is_refused():
    layer = conv()
    lost = replace(layer, name="lost", source=Tensor("later", 8, 8, 3), output=replace(layer.output, name="lost"))
    with pytest.raises(CompileError, match=r"layer 'lost': reads .*which no earlier layer writes"):
        compile_layers("lost", [layer, lost], SIM_SMALL)


def test_reading_global_sums_is_refused():
    first = conv(output=Tensor("sums", 1, 1, 5, "int32"), pool=Pooling(Pool.GLOBAL_SUM))
    second = conv((1, 1), 5, name="after", source=first.output)
    with pytest.raises(CompileError, match="layer 'after': reads global sums"):
        compile_layers("sums", [first, second], SIM_SMALL)


# The overflow proof -------------------------------------------------------------------------------------------------------


def largest(bias: int, **more: Any) -> FusedLayer:
    """127 * 255 * 65536 = 2,122,383,360 and a bias; 25,100,287 remain to 2**31 - 1."""
    weights = np.full((1, 65536, 1, 1), 127)
    shift = more.pop("shift", np.array([0]))
    return conv((1, 1), 65536, 1, 1, pad_top=0, pad_left=0, weights=weights, bias=np.array([bias]), shift=shift, **more)


def test_the_largest_sum_that_fits_is_accepted_and_one_more_refused():
    room = 2**31 - 1 - 127 * 255 * 65536
    assert prove_no_overflow(largest(room))[1] == 2**31 - 1
    with pytest.raises(CompileError, match=r"channel 0 can reach 2147483648, beyond 32 bits; give this layer smaller"):
        prove_no_overflow(largest(room + 1))


def test_the_rounding_half_counts():
    room = 2**31 - 1 - 127 * 255 * 65536
    with pytest.raises(CompileError, match="channel 0 can reach 2147483648"):
        prove_no_overflow(largest(room - 127, shift=np.array([8])))


def test_the_residual_counts():
    residual = Tensor("residual", 1, 1, 1)
    with pytest.raises(CompileError, match=f"channel 0 can reach {127 * 255 * 65536 + (255 << 17)}"):
        prove_no_overflow(largest(0, residual=residual, res_shift=np.array([17])))
    prove_no_overflow(largest(0, residual=residual, res_shift=np.array([16])))


def test_partial_sums_count_though_the_whole_would_cancel():
    weights = np.concatenate([np.full((1, 70000, 1, 1), 127), np.full((1, 70000, 1, 1), -127)], axis=1)
    layer = conv((1, 1), 140000, 1, 1, pad_top=0, pad_left=0, weights=weights, bias=np.array([0]), shift=np.array([9]))
    with pytest.raises(CompileError, match="beyond 32 bits"):
        prove_no_overflow(layer)


@pytest.mark.parametrize("seed", range(5))
def test_no_input_leaves_the_proven_bounds(seed: int):
    rng = np.random.default_rng(seed)
    layer = conv(
        (4, 4),
        6,
        8,
        weights=rng.integers(-128, 128, (8, 6, 3, 3)),
        bias=rng.integers(-5000, 5000, 8),
        shift=np.zeros(8, int),
    )
    low, high = prove_no_overflow(layer)
    for weights in layer.weights:  # the worst input of each channel, and random ones
        for image in (
            np.where(weights > 0, 255, 0),
            np.where(weights < 0, 255, 0),
            rng.integers(0, 256, weights.shape),
        ):
            sums = (layer.weights.astype(np.int64) * image).sum(axis=(1, 2, 3)) + layer.bias
            assert low <= sums.min() and sums.max() <= high
