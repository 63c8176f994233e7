"""The bottleneck ResNet family (He et al., arXiv:1512.03385): one topology, three ways to compute it.

`trainable` has batch normalisation, `folded` has it folded into the convolutions, `quantised` is the folded network
in QKeras fixed point. All three are featurizers: image in, globally averaged features out.

Names: the stem is `stem`; stage 2 to 5, block from 0: `s2b0c1`, `s2b0c2`, `s2b0c3` are the bottleneck's convolutions,
`s2b0proj` the shortcut's, `s2b0add` their sum and `s2b0relu` its activation. Helpers are named after their convolution:
`stem_pad`, `s2b0c1_relu`, `s2b0c1_bn`, `s2b0proj_quant`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tensorflow import keras
from tensorflow.keras import layers

from quantize import quantisers

INPUT_FRACTION = 8  # the network sees image_uint8 / 256


@dataclass(frozen=True)
class Conv:
    """One convolution: square kernel, symmetric zero padding, channels last."""

    name: str
    inputs: int
    filters: int
    kernel: int
    stride: int

    @property
    def padding(self) -> int:
        """Zeros added on each side."""
        return self.kernel // 2

    @property
    def weights_shape(self) -> tuple[int, int, int, int]:
        """Shape of the kernel, [height, width, inputs, filters]."""
        return (self.kernel, self.kernel, self.inputs, self.filters)


@dataclass(frozen=True)
class Block:
    """One bottleneck block; `projection` is None where the shortcut is the identity."""

    name: str
    convs: tuple[Conv, Conv, Conv]
    projection: Conv | None


@dataclass(frozen=True)
class ResNetConfig:
    """A member of the family. The default is ResNet-50 at 224 x 224.

    stages: blocks in each stage. width: channels of the stem. size: pixels a side of the image.
    version: where a stage's first block strides: "v1" on the first 1x1, "v1.5" on the 3x3.
    """

    stages: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    size: int = 224
    version: Literal["v1", "v1.5"] = "v1.5"
    channels: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))  # JSON gives a list
        if not self.stages or min(self.stages) < 1:
            raise ValueError(f"stages {self.stages}: every stage needs at least one block")
        if self.version not in ("v1", "v1.5"):
            raise ValueError(f"version {self.version!r}: choose 'v1' or 'v1.5'")
        if min(self.width, self.channels) < 1:
            raise ValueError(f"width {self.width} and channels {self.channels} must be positive")
        reduction = 4 * 2 ** (len(self.stages) - 1)
        if self.size < reduction or self.size % reduction:
            raise ValueError(f"size {self.size}: {len(self.stages)} stages need a multiple of {reduction} pixels")

    @property
    def features(self) -> int:
        """Length of the feature vector."""
        return self.blocks[-1].convs[-1].filters

    @property
    def pooled_pixels(self) -> int:
        """Pixels that the global average runs over."""
        return (self.size // (4 * 2 ** (len(self.stages) - 1))) ** 2

    @property
    def stem(self) -> Conv:
        """The first convolution."""
        return Conv("stem", self.channels, self.width, 7, 2)

    @property
    def blocks(self) -> list[Block]:
        """All bottleneck blocks in order."""
        blocks, inputs = [], self.width
        for stage, count in enumerate(self.stages):
            middle = self.width * 2**stage
            for index in range(count):
                name = f"s{stage + 2}b{index}"
                stride = 2 if stage and not index else 1
                first, second = (stride, 1) if self.version == "v1" else (1, stride)
                convs = (
                    Conv(f"{name}c1", inputs, middle, 1, first),
                    Conv(f"{name}c2", middle, middle, 3, second),
                    Conv(f"{name}c3", middle, 4 * middle, 1, 1),
                )
                projection = None if index else Conv(f"{name}proj", inputs, 4 * middle, 1, stride)
                blocks.append(Block(name, convs, projection))
                inputs = 4 * middle
        return blocks

    @property
    def convs(self) -> list[Conv]:
        """All convolutions in the order in which they are computed."""
        convs = [self.stem]
        for block in self.blocks:
            convs += [*([block.projection] if block.projection else []), *block.convs]
        return convs


@dataclass(frozen=True)
class Fractions:
    """Where the binary points are: fractional bits by layer name.

    weights: of each convolution's kernel. activations: of each quantised activation (the layers that
    `activation_inputs` names).
    """

    weights: Mapping[str, int]
    activations: Mapping[str, int]
    image: int = field(default=INPUT_FRACTION)


def activation_sources(config: ResNetConfig) -> dict[str, list[str]]:
    """Map each quantised activation, in order, to the convolutions whose accumulators it requantises."""
    sources = {"stem_relu": ["stem"]}
    for block in config.blocks:
        c1, c2, c3 = (conv.name for conv in block.convs)
        if block.projection:
            sources[f"{block.projection.name}_quant"] = [block.projection.name]
        sources |= {f"{c1}_relu": [c1], f"{c2}_relu": [c2], f"{block.name}relu": [c3]}
    return sources


def conv_inputs(config: ResNetConfig) -> dict[str, str | None]:
    """Map each convolution to the activation that it reads; None is the image."""
    inputs: dict[str, str | None] = {"stem": None}
    trunk = "stem_relu"  # max-pooling keeps the scale
    for block in config.blocks:
        c1, c2, c3 = (conv.name for conv in block.convs)
        if block.projection:
            inputs[block.projection.name] = trunk
        inputs |= {c1: trunk, c2: f"{c1}_relu", c3: f"{c2}_relu"}
        trunk = f"{block.name}relu"
    return inputs


def accumulator_fractions(config: ResNetConfig, fractions: Fractions) -> dict[str, int]:
    """Return the fractional bits of each convolution's accumulator, which are also its bias's."""
    return {
        conv: fractions.weights[conv] + (fractions.image if source is None else fractions.activations[source])
        for conv, source in conv_inputs(config).items()
    }


class _Folded:
    """Arithmetic of the plain float network: convolutions with bias."""

    def conv(self, x: Any, conv: Conv) -> Any:
        return layers.Conv2D(conv.filters, conv.kernel, strides=conv.stride, padding="valid", name=conv.name)(x)

    def relu(self, x: Any, name: str) -> Any:
        return layers.ReLU(name=name)(x)

    def shortcut(self, x: Any, name: str) -> Any:
        return layers.Activation("linear", name=name)(x)


class _Trainable(_Folded):
    """Arithmetic of the network in training: convolutions without bias, then batch normalisation."""

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum

    def conv(self, x: Any, conv: Conv) -> Any:
        x = layers.Conv2D(
            conv.filters,
            conv.kernel,
            strides=conv.stride,
            padding="valid",
            use_bias=False,
            kernel_initializer="he_normal",
            name=conv.name,
        )(x)
        # Each block's last scale starts small, so that the network starts near the identity (arXiv:1706.02677).
        gamma = "zeros" if conv.name.endswith("c3") else "ones"
        return layers.BatchNormalization(
            momentum=self.momentum, epsilon=1e-5, gamma_initializer=gamma, name=f"{conv.name}_bn"
        )(x)


class _Quantised(_Folded):
    """Arithmetic of the fixed-point network."""

    def __init__(self, config: ResNetConfig, fractions: Fractions) -> None:
        self.fractions = fractions
        self.accumulators = accumulator_fractions(config, fractions)

    def conv(self, x: Any, conv: Conv) -> Any:
        from qkeras import QConv2D

        return QConv2D(
            conv.filters,
            conv.kernel,
            strides=conv.stride,
            padding="valid",
            kernel_quantizer=quantisers.weights(self.fractions.weights[conv.name]),
            bias_quantizer=quantisers.bias(self.accumulators[conv.name]),
            name=conv.name,
        )(x)

    def relu(self, x: Any, name: str) -> Any:
        from qkeras import QActivation

        return QActivation(quantisers.relu(self.fractions.activations[name]), name=name)(x)

    def shortcut(self, x: Any, name: str) -> Any:
        from qkeras import QActivation

        return QActivation(quantisers.signed(self.fractions.activations[name]), name=name)(x)


def trainable(config: ResNetConfig, momentum: float = 0.99) -> keras.Model:
    """Return the float featurizer with batch normalisation, freshly initialised.

    momentum: of the running statistics; lower it for short trainings.
    """
    return _featurizer(config, _Trainable(momentum), "resnet")


def folded(config: ResNetConfig) -> keras.Model:
    """Return the float featurizer whose convolutions have a bias and no batch normalisation."""
    return _featurizer(config, _Folded(), "resnet_folded")


def quantised(config: ResNetConfig, fractions: Fractions) -> keras.Model:
    """Return the QKeras featurizer, float32 [n, size, size, 3] (image / 256) to float32 [n, features].

    Call it eagerly where exactness counts: Keras's predict() lets graph optimisations change the last bits.
    """
    low = {name: bits for name, bits in fractions.activations.items() if bits < 1}
    if low:
        raise ValueError(f"activations {low} need at least one fractional bit: rescale those layers")
    return _featurizer(config, _Quantised(config, fractions), "resnet_quantised")


def compute(config: ResNetConfig, arithmetic: Any, image: Any) -> Any:
    """Return the features of an image by the network's topology: of a Keras input, or eagerly of an array [n, size, size, channels].

    arithmetic: has `conv(x, conv)` of an already padded x, `relu(x, name)` and `shortcut(x, name)`.
    """

    def conv(x: Any, spec: Conv) -> Any:
        if spec.padding:
            x = layers.ZeroPadding2D(spec.padding, name=f"{spec.name}_pad")(x)
        return arithmetic.conv(x, spec)

    x = arithmetic.relu(conv(image, config.stem), "stem_relu")
    x = layers.MaxPooling2D(3, 2, padding="valid", name="pool")(layers.ZeroPadding2D(1, name="pool_pad")(x))
    for block in config.blocks:
        shortcut = x
        if block.projection:
            shortcut = arithmetic.shortcut(conv(x, block.projection), f"{block.projection.name}_quant")
        first, second, third = block.convs
        x = arithmetic.relu(conv(x, first), f"{first.name}_relu")
        x = arithmetic.relu(conv(x, second), f"{second.name}_relu")
        x = layers.Add(name=f"{block.name}add")([conv(x, third), shortcut])
        x = arithmetic.relu(x, f"{block.name}relu")
    return layers.GlobalAveragePooling2D(name="features")(x)


def _featurizer(config: ResNetConfig, arithmetic: _Folded, name: str) -> keras.Model:
    image = layers.Input((config.size, config.size, config.channels), name="image")
    return keras.Model(image, compute(config, arithmetic, image), name=name)
