"""QKeras -> hls4ml -> program: the golden model of the program computes what QKeras computes eagerly, integer for integer."""

from collections.abc import Callable
from functools import cache
from typing import Any

import hls4ml
import numpy as np
import pytest
from qkeras_nets import RELU, SIGNED, act, awkward, build, conv, eager, image
from tensorflow import keras
from tensorflow.keras import layers

from hls.compare import integers
from hls.convert import convert, exact_config
from hls.npu.layer import CompileError
from hw.isa import Pool
from quantize import checkpoint
from quantize.resnet import ResNetConfig


@cache
def random_resnet(config: ResNetConfig, seed: int) -> keras.Model:
    """A QKeras network with random integers."""
    return checkpoint.to_keras(checkpoint.random_quantised(config, seed))


def check_ladder(model: Any, board: str, folder: Any, count: int = 3, seed: int = 0) -> Any:
    """Assert that eager QKeras equals the golden model on random images; returns the graph."""
    graph = convert(model, "NPU", str(folder), "net", board=board)
    graph.compile()
    images = np.random.default_rng(seed).integers(0, 256, (count, *model.input_shape[1:]), dtype=np.uint8)
    output = graph.npu.program.output
    golden = np.stack([graph.npu.run(x).result.reshape(-1) for x in images])
    expected = integers(eager(model, images).reshape(count, -1), output)
    assert len(np.unique(golden)) > 10, "the network's answers are all alike: this test would see nothing"
    assert (golden == expected).all()
    return graph


@pytest.mark.parametrize("board", ["sim-small", "zcu104"])
@pytest.mark.parametrize(
    "config",
    [
        ResNetConfig((1, 1), 8, 32, "v1.5"),
        ResNetConfig((2, 1, 1), 12, 48, "v1"),
        ResNetConfig((1, 2), 20, 40, "v1.5"),
        ResNetConfig((1,), 5, 12, "v1", channels=1),
    ],
    ids=str,
)
def test_a_random_resnet_computes_what_qkeras_computes(config: ResNetConfig, board: str, tmp_path: Any):
    graph = check_ladder(random_resnet(config, seed=config.width), board, tmp_path)
    assert len(graph.fused_layers) == len(config.convs)


@pytest.mark.parametrize("size", [(37, 29), (16, 16), (13, 40)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_an_awkward_network_computes_what_qkeras_computes(seed: int, size: tuple[int, int], tmp_path: Any):
    graph = check_ladder(awkward(seed, *size), "sim-small", tmp_path, seed=seed)
    assert [layer.pool.mode for layer in graph.fused_layers] == [
        Pool.MAX,
        Pool.NONE,
        Pool.NONE,
        Pool.AVERAGE,
        Pool.NONE,
    ]


def test_the_whole_resnet50_is_53_layers_fits_both_boards_and_computes_what_qkeras_computes(tmp_path: Any):
    model = checkpoint.to_keras(checkpoint.random_quantised(ResNetConfig(), seed=1))  # not kept: it is large
    graph = check_ladder(model, "zcu104", tmp_path, count=1)
    assert len(graph.fused_layers) == 53
    program = graph.npu.program
    assert program.macs == 4_087_136_256 and program.output.channels == 2048
    assert not any(d.exclusive_drain for d in program.descriptors())
    convert(model, "NPU", str(tmp_path), "kv260", board="kv260").write()


def test_a_shortcuts_projection_runs_just_before_its_addition(tmp_path: Any):
    names = [
        layer.name
        for layer in convert(random_resnet(ResNetConfig((1, 1), 4, 16), seed=0), "NPU", str(tmp_path)).fused_layers
    ]
    assert names == ["stem", "s2b0c1", "s2b0c2", "s2b0proj", "s2b0c3", "s3b0c1", "s3b0c2", "s3b0proj", "s3b0c3"]


# What is refused ----------------------------------------------------------------------------------------------------------


def chain(*parts: Any) -> Callable[[], keras.Model]:
    """A network of layers one after the other; made when the test runs."""

    def make() -> keras.Model:
        x = i = image()
        for part in parts:
            x = part()(x)
        return build(i, x)

    return make


def two_convs(first: str | None, second: str | None, **left_options: Any) -> keras.Model:
    """Two convolutions, each quantised or not, and their sum."""
    i = image()
    x = act("relu")(conv(4, 3, "stem")(i))
    left, right = conv(4, 1, "left", **left_options)(x), conv(4, 1, "right")(x)
    left = act("left_bits", first)(left) if first else left
    right = act("right_bits", second)(right) if second else right
    return build(i, act("sum_relu")(layers.Add(name="sum")([left, right])))


def read_twice() -> keras.Model:
    """A maximum of a tensor that another layer reads too."""
    i = image()
    x = act("relu")(conv(4, 3, "stem")(i))
    pooled = layers.MaxPooling2D(2, name="pool")(x)
    strided = act("half_relu", SIGNED)(conv(4, 2, "half", 2)(x))
    return build(i, act("sum_relu")(layers.Add(name="sum")([conv(4, 1, "last")(pooled), strided])))


def two_outputs() -> keras.Model:
    i = image()
    x = act("relu")(conv(4, 3, "stem")(i))
    return build(i, [x, act("next_relu")(conv(4, 1, "next")(x))])


def relu_again() -> keras.Model:
    i = image()
    x = layers.MaxPooling2D(2, name="pool")(act("relu")(conv(4, 3, "stem")(i)))
    return build(i, act("again", "quantized_relu(8, 4)")(x))


def stem() -> Any:
    return conv(4, 3, "stem")


def relu() -> Any:
    return act("relu")


REFUSED: dict[str, tuple[Callable[[], keras.Model], str, str, str]] = {
    "dense": (
        chain(
            stem, relu, lambda: layers.GlobalAveragePooling2D(name="mean"), lambda: layers.Dense(2, name="classifier")
        ),
        "classifier",
        "there is no exact conversion of a Dense",
        "run the rest on the host",
    ),
    "batch norm": (
        chain(stem, lambda: layers.BatchNormalization(name="bn"), relu),
        "bn",
        "there is no exact conversion of a BatchNormalization",
        "use ",
    ),
    "float convolution": (
        chain(lambda: layers.Conv2D(4, 3, name="float"), relu),
        "float",
        "there is no exact conversion of a Conv2D",
        "use ",
    ),
    "no weight quantiser": (
        chain(lambda: conv(4, 3, "loose", kernel_quantizer=None), relu),
        "loose",
        "is quantised by nothing",
        "use quantized_bits(8, I, alpha=1)",
    ),
    "scaled weights": (
        chain(lambda: conv(4, 3, "scaled", kernel_quantizer="quantized_bits(8, 0, alpha='auto')"), relu),
        "scaled",
        "has a quantiser with alpha='auto'",
        "use alpha=1",
    ),
    "no bias": (chain(lambda: conv(4, 3, "plain", use_bias=False), relu), "plain", "has no bias", "use_bias=True"),
    "no activation": (chain(stem), "stem", "its result is not quantised to 8 bits", "put QActivation("),
    "16 bits": (
        chain(stem, lambda: act("wide", "quantized_relu(16, 4)")),
        "wide",
        "its result is ufixed<16,4,RND_CONV,SAT>",
        "quantise to 8 bits",
    ),
    "no fraction": (
        chain(stem, lambda: act("whole", "quantized_relu(8, 8)")),
        "whole",
        "has 0 fraction bits, with which hls4ml does not round",
        "keep at least one",
    ),
    "symmetric": (
        chain(stem, lambda: act("even", "quantized_bits(8, 2, symmetric=1, alpha=1)")),
        "even",
        "saturates symmetrically",
        "use symmetric=0",
    ),
    "finer than the sums": (
        chain(
            lambda: conv(
                4,
                3,
                "stem",
                kernel_quantizer="quantized_bits(4, 3, alpha=1)",
                bias_quantizer="quantized_bits(8, 3, alpha=1)",
            ),
            lambda: act("fine", "quantized_relu(8, -2)"),
        ),
        "fine",
        "has 10 fraction bits, the sums before it only 8",
        "give the activation fewer fraction bits",
    ),
    "strides": (chain(lambda: conv(4, 3, "skewed", (2, 1)), relu), "skewed", "strides 2 down and 1 across", "alike"),
    "3x3 average": (
        chain(stem, relu, lambda: layers.AveragePooling2D(3, name="mean"), lambda: act("again")),
        "mean",
        "averages 3x3",
        "the NPU averages 2x2",
    ),
    "average without requantisation": (
        chain(stem, relu, lambda: layers.AveragePooling2D(2, name="mean")),
        "mean",
        "its average is not requantised",
        "put the QActivation before the pool also after it",
    ),
    "average between different scales": (
        chain(
            stem, relu, lambda: layers.AveragePooling2D(2, name="mean"), lambda: act("other", "quantized_relu(8, 3)")
        ),
        "other",
        "is ufixed<8,3,RND_CONV,SAT>, before the pool it was ufixed<8,2,RND_CONV,SAT>",
        "use the same quantiser on both sides",
    ),
    "two exact sums": (
        lambda: two_convs(None, None),
        "sum",
        "adds two convolutions that are not quantised",
        "it becomes the residual",
    ),
    "two rounded sums": (lambda: two_convs(RELU, RELU), "sum", "adds no convolution's exact result", "leave out"),
    "residual finer than the sums": (
        lambda: two_convs(
            "quantized_bits(8, -9, symmetric=0, alpha=1)", None, kernel_quantizer="quantized_bits(8, -4, alpha=1)"
        ),
        "right",
        "the residual left_bits has 16",
        "quantise the residual more coarsely",
    ),
    "pooled and read": (read_twice, "relu", "is read by half besides pool", "let only one layer read it"),
    "two outputs": (two_outputs, "image", "the network has 1 inputs and 2 outputs", "give it one of each"),
    "requantised maximum": (relu_again, "again", "requantises pool", "a maximum keeps its scale"),
}


@pytest.mark.parametrize(("make", "layer", "reason", "advice"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_npu_cannot_do_is_refused(make: Any, layer: str, reason: str, advice: str, tmp_path: Any):
    with pytest.raises(CompileError) as caught:
        convert(make(), "NPU", str(tmp_path))
    assert caught.value.layer == layer
    assert reason in caught.value.reason and advice in caught.value.advice


@pytest.mark.parametrize(
    ("change", "layer", "reason"),
    [
        ({"image": {"result": "fixed<16,6>"}}, "image", "the input is fixed<16,6,TRN,WRAP>"),
        ({"stem": {"accum": "fixed<16,6>"}}, "stem", "hls4ml keeps its sums as fixed<16,6,TRN,WRAP>"),
        ({"stem": {"result": "fixed<12,2>"}}, "stem", "hls4ml keeps its sums as fixed<12,2,TRN,WRAP>"),
        ({"relu": {"result": "ufixed<8,2>"}}, "relu", "its result is ufixed<8,2,TRN,WRAP>"),
    ],
    ids=["image", "accumulator", "result", "rounding"],
)
def test_a_configuration_that_loses_something_is_refused(change: Any, layer: str, reason: str, tmp_path: Any):
    model = chain(stem, relu)()
    config = exact_config(model)
    for name, precision in change.items():
        config["LayerName"][name]["Precision"].update(precision)
        if name == "stem" and "result" in precision:
            config["LayerName"]["stem_linear"]["Precision"].update(precision)
    with pytest.raises(CompileError) as caught:
        hls4ml.converters.convert_from_keras_model(model, hls_config=config, backend="NPU", output_dir=str(tmp_path))
    assert caught.value.layer == layer and reason in caught.value.reason


@pytest.mark.parametrize(
    ("role", "value", "reason"),
    [
        ("weight", 0.3, "1 of its 108 weight values are no multiple of 2**-7"),
        ("weight", 1.5, "its weight runs from 0 to 192 steps, beyond fixed<8,1"),
        ("bias", 0.3, "1 of its 4 bias values are no multiple of 2**-9"),
    ],
    ids=["weight off the grid", "weight too large", "bias off the grid"],
)
def test_float_weights_that_are_no_integers_are_refused(role: str, value: float, reason: str, tmp_path: Any):
    model = chain(lambda: layers.Conv2D(4, 3, name="stem"), relu)()
    weights = [np.zeros(w.shape, np.float32) for w in model.get_weights()]
    weights[("weight", "bias").index(role)].flat[1] = value
    model.set_weights(weights)
    config = exact_config(chain(stem, relu)())  # of a quantised network of the same shape
    with pytest.raises(CompileError) as caught:
        hls4ml.converters.convert_from_keras_model(model, hls_config=config, backend="NPU", output_dir=str(tmp_path))
    assert caught.value.layer == "stem" and reason in caught.value.reason


def test_hls4mls_default_configuration_is_refused_with_the_way_out(tmp_path: Any):
    with pytest.raises(CompileError, match=r"layer 'relu': its result is fixed<16,6.*as hls\.convert does"):
        hls4ml.converters.convert_from_keras_model(chain(stem, relu)(), backend="NPU", output_dir=str(tmp_path))
