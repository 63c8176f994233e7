"""The ResNet family."""

import numpy as np
import pytest

from quantize import resnet
from quantize.resnet import ResNetConfig

SMALL = ResNetConfig(stages=(1, 2), width=4, size=16)


@pytest.mark.parametrize("version", ["v1", "v1.5"])
def test_resnet_50_has_53_convolutions_and_23_45_million_weights(version):
    config = ResNetConfig(version=version)
    assert len(config.convs) == 53
    assert sum(int(np.prod(conv.weights_shape)) for conv in config.convs) == 23_454_912
    assert config.features == 2048 and config.pooled_pixels == 49


def test_multiplications_of_resnet_50_v1_5_are_those_of_the_literature():
    size, total = 224, 0
    for conv in resnet.ResNetConfig().convs:
        stage = 1 if conv.name == "stem" else int(conv.name[1])
        out = size // 2**stage
        if conv.name == "stem":
            out = size // 2
        elif conv.name.endswith("b0c1") and stage > 2:
            out *= 2  # v1.5 strides on the 3x3, so the 1x1 before it still sees the larger image
        total += out**2 * int(np.prod(conv.weights_shape))
    assert round(total / 1e9, 3) == 4.087


@pytest.mark.parametrize("version", ["v1", "v1.5"])
def test_the_keras_model_has_the_layers_that_the_configuration_lists(version):
    config = ResNetConfig(stages=(1, 2), width=4, size=16, version=version)
    model = resnet.folded(config)
    convs = {layer.name: layer for layer in model.layers if type(layer).__name__ == "Conv2D"}
    assert set(convs) == {conv.name for conv in config.convs}
    for conv in config.convs:
        layer = convs[conv.name]
        assert layer.kernel.shape == conv.weights_shape and layer.strides == (conv.stride,) * 2
        assert layer.padding == "valid"
    strided = "s3b0c1" if version == "v1" else "s3b0c2"
    assert {name for name in convs if convs[name].strides == (2, 2)} == {"stem", "s3b0proj", strided}
    assert model.output_shape == (None, config.features)


def test_the_quantised_twin_has_the_structure_that_the_compiler_reads():
    sources = resnet.activation_sources(SMALL)
    fractions = resnet.Fractions({conv.name: 9 for conv in SMALL.convs}, {name: 4 for name in sources})
    model = resnet.quantised(SMALL, fractions)
    kinds = [(layer.name, type(layer).__name__) for layer in model.layers]
    assert kinds[:6] == [
        ("image", "InputLayer"),
        ("stem_pad", "ZeroPadding2D"),
        ("stem", "QConv2D"),
        ("stem_relu", "QActivation"),
        ("pool_pad", "ZeroPadding2D"),
        ("pool", "MaxPooling2D"),
    ]
    assert kinds[-1] == ("features", "GlobalAveragePooling2D")
    assert {name for name, kind in kinds if kind == "QActivation"} == set(sources)
    for block in SMALL.blocks:  # c3 goes into the sum at accumulator precision
        assert model.get_layer(f"{block.name}add").input[0].name.startswith(f"{block.name}c3/")
    accumulators = resnet.accumulator_fractions(SMALL, fractions)
    assert accumulators["stem"] == 9 + 8 and accumulators["s2b0c1"] == 9 + 4
    for conv in SMALL.convs:
        layer = model.get_layer(conv.name)
        kernel, bias = layer.kernel_quantizer_internal, layer.bias_quantizer_internal
        assert (kernel.bits, kernel.bits - 1 - kernel.integer, kernel.alpha) == (8, 9, 1)
        assert (bias.bits, bias.bits - 1 - bias.integer) == (24, accumulators[conv.name])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"size": 100}, "multiple of 32"),
        ({"stages": ()}, "at least one block"),
        ({"version": "v2"}, "choose 'v1' or 'v1.5'"),
        ({"width": 0}, "must be positive"),
    ],
)
def test_impossible_networks_are_named(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        ResNetConfig(**arguments)


def test_activations_without_fractional_bits_are_refused():
    fractions = resnet.Fractions(
        {conv.name: 7 for conv in SMALL.convs}, {name: 0 for name in resnet.activation_sources(SMALL)}
    )
    with pytest.raises(ValueError, match="fractional bit"):
        resnet.quantised(SMALL, fractions)
