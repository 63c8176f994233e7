"""The ResNet family in PyTorch: the same networks as resnet.py, for training on any GPU or CPU.

`Trainable` has batch normalisation, `Quantised` computes what `resnet.quantised` computes, integer by integer, and has the same gradients.
Both are featurizers: planes float32 [n, 1, size, size] or images [n, channels, size, size] (pixel / 256) to float32 [n, features].
Kernels are [filters, inputs, height, width] here and [height, width, inputs, filters] in ConvWeights.
"""

from abc import ABC, abstractmethod
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from quantize import quantisers, resnet
from quantize.checkpoint import QuantisedNetwork, dequantised
from quantize.classifier import Classifier
from quantize.fold import ConvWeights
from quantize.resnet import Conv, Fractions, ResNetConfig

EPSILON = 1e-5  # of batch normalisation, as in resnet.trainable


class Featurizer(nn.Module, ABC):
    """The topology. What a convolution, an activation and a shortcut compute is up to the subclasses."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.kernels = nn.ParameterDict(
            {
                conv.name: nn.Parameter(torch.empty(conv.filters, conv.inputs, conv.kernel, conv.kernel))
                for conv in config.convs
            }
        )

    @abstractmethod
    def convolve(self, x: Tensor, conv: Conv) -> Tensor:
        """Convolution and whatever belongs to it, before the activation."""

    def relu(self, x: Tensor, name: str) -> Tensor:
        """The activation `name` of resnet.activation_sources."""
        return functional.relu(x, inplace=True)

    def shortcut(self, x: Tensor, name: str) -> Tensor:
        """What happens to a projected shortcut before it is added."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the features [n, features]."""
        x = self.relu(self.convolve(x.contiguous(memory_format=torch.channels_last), self.config.stem), "stem_relu")
        x = functional.max_pool2d(x, 3, 2, 1)  # activations are never negative: zeros around them change nothing
        for block in self.config.blocks:
            shortcut = x
            if block.projection:
                shortcut = self.shortcut(self.convolve(x, block.projection), f"{block.projection.name}_quant")
            first, second, third = block.convs
            y = self.relu(self.convolve(x, first), f"{first.name}_relu")
            y = self.relu(self.convolve(y, second), f"{second.name}_relu")
            x = self.relu(self.convolve(y, third) + shortcut, f"{block.name}relu")
        return x.mean(dim=(2, 3))


class Trainable(Featurizer):
    """Float, with batch normalisation; freshly initialised. momentum: of the running statistics, as Keras counts it."""

    def __init__(self, config: ResNetConfig, momentum: float = 0.9) -> None:
        super().__init__(config)
        self.norms = nn.ModuleDict(
            {conv.name: nn.BatchNorm2d(conv.filters, EPSILON, 1 - momentum) for conv in config.convs}
        )
        self._statistics: dict[str, tuple[Tensor, Tensor]] | None = None
        for name, kernel in self.kernels.items():
            nn.init.kaiming_normal_(kernel, nonlinearity="relu")
            if name.endswith("c3"):  # the network starts near the identity (arXiv:1706.02677)
                nn.init.zeros_(self._norm(name).weight)

    def _norm(self, name: str) -> nn.BatchNorm2d:
        return cast(nn.BatchNorm2d, self.norms[name])

    def convolve(self, x: Tensor, conv: Conv) -> Tensor:
        """Convolution, then batch normalisation."""
        x = _convolution(x, self.kernels[conv.name], None, conv)
        if self._statistics is not None:
            bias = self._norm(conv.name).bias[None, :, None, None]
            variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
            self._statistics[conv.name] = (mean, variance)
            return x + bias
        return self.norms[conv.name](x)

    @torch.no_grad()
    def load_folded(self, weights: dict[str, ConvWeights], sample: Tensor) -> None:
        """Take over a folded network, with the same features, and normalisation that is in step with it.

        sample: network input whose statistics become the running ones; a folded network has forgotten its own.
        """
        for conv in self.config.convs:
            kernel, bias = _to_torch(weights[conv.name])
            self.kernels[conv.name].copy_(kernel)
            self._norm(conv.name).bias.copy_(bias)
        self._statistics = {}
        self(sample)
        statistics, self._statistics = self._statistics, None
        for name, (mean, variance) in statistics.items():
            norm = self._norm(name)
            norm.running_mean.copy_(mean)  # type: ignore[union-attr]
            norm.running_var.copy_(variance)  # type: ignore[union-attr]
            norm.weight.copy_((variance + EPSILON).sqrt())
            norm.bias.add_(mean)

    @torch.no_grad()
    def fold(self) -> dict[str, ConvWeights]:
        """Return the folded convolutions, by name; computed in float64, as fold.fold does."""
        weights = {}
        for name, kernel in self.kernels.items():
            norm = self._norm(name)
            gamma, beta, mean, variance = (
                cast(Tensor, part).double().cpu().numpy()
                for part in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
            )
            scale = gamma / np.sqrt(variance + EPSILON)
            ours = kernel.double().cpu().numpy().transpose(2, 3, 1, 0)
            weights[name] = ConvWeights((ours * scale).astype(np.float32), (beta - mean * scale).astype(np.float32))
        return weights


class Folded(Featurizer):
    """Float, with batch normalisation folded away."""

    def __init__(self, config: ResNetConfig, weights: dict[str, ConvWeights]) -> None:
        super().__init__(config)
        self.biases = nn.ParameterDict({conv.name: torch.empty(conv.filters) for conv in config.convs})
        with torch.no_grad():
            for name, conv in weights.items():
                kernel, bias = _to_torch(conv)
                self.kernels[name].copy_(kernel)
                self.biases[name].copy_(bias)

    def convolve(self, x: Tensor, conv: Conv) -> Tensor:
        """Convolution with bias."""
        return _convolution(x, self.kernels[conv.name], self.biases[conv.name], conv)

    @torch.no_grad()
    def fold(self) -> dict[str, ConvWeights]:
        """Return the convolutions, by name."""
        return {
            name: ConvWeights(kernel.cpu().numpy().transpose(2, 3, 1, 0).copy(), self.biases[name].cpu().numpy().copy())
            for name, kernel in self.kernels.items()
        }


class Quantised(Folded):
    """The fixed-point network: QKeras's values and QKeras's straight-through gradients."""

    def __init__(self, config: ResNetConfig, weights: dict[str, ConvWeights], fractions: Fractions) -> None:
        super().__init__(config, weights)
        self.fractions = fractions
        self.accumulators = resnet.accumulator_fractions(config, fractions)

    @staticmethod
    def of(network: QuantisedNetwork) -> "Quantised":
        """The network with exactly these integers."""
        return Quantised(network.config, dequantised(network), network.fractions)

    def _kernel(self, name: str) -> Tensor:
        return _fixed_point(self.kernels[name], quantisers.WEIGHT_BITS, self.fractions.weights[name])

    def _bias(self, name: str) -> Tensor:
        return _fixed_point(self.biases[name], quantisers.BIAS_BITS, self.accumulators[name])

    def convolve(self, x: Tensor, conv: Conv) -> Tensor:
        """Convolution with int8 weights and an int24 bias."""
        return _convolution(x, self._kernel(conv.name), self._bias(conv.name), conv)

    def relu(self, x: Tensor, name: str) -> Tensor:
        """The uint8 ReLU."""
        return cast(Tensor, _QuantisedRelu.apply(x, self.fractions.activations[name]))

    def shortcut(self, x: Tensor, name: str) -> Tensor:
        """The int8 projection."""
        return _fixed_point(x, quantisers.ACTIVATION_BITS, self.fractions.activations[name])

    @torch.no_grad()
    def to_integers(self) -> QuantisedNetwork:
        """Return the integers that it computes with."""
        kernels, biases = {}, {}
        for name in self.kernels:
            kernel = torch.ldexp(self._kernel(name).double(), torch.tensor(self.fractions.weights[name]))
            bias = torch.ldexp(self._bias(name).double(), torch.tensor(self.accumulators[name]))
            kernels[name] = kernel.cpu().numpy().transpose(2, 3, 1, 0).astype(np.int8)
            biases[name] = bias.cpu().numpy().astype(np.int32)
        return QuantisedNetwork(self.config, self.fractions, kernels, biases)


class Tagger(nn.Module):
    """A featurizer with the classifier on top; gives logits [n, 2]."""

    def __init__(self, featurizer: Featurizer, hidden: int) -> None:
        super().__init__()
        self.featurizer = featurizer
        self.hidden = nn.Linear(featurizer.config.features, hidden)
        self.logits = nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n, 2]: QCD and top."""
        return self.classify(self.featurizer(x))

    def classify(self, features: Tensor) -> Tensor:
        """Return the logits of features [n, features]."""
        return self.logits(functional.relu(self.hidden(features)))

    @torch.no_grad()
    def classifier(self) -> Classifier:
        """Return the classifier for NumPy."""
        layers = (self.hidden.weight.T, self.hidden.bias, self.logits.weight.T, self.logits.bias)
        w1, b1, w2, b2 = (np.ascontiguousarray(layer.cpu().numpy()) for layer in layers)
        return Classifier(w1, b1, w2, b2)

    @torch.no_grad()
    def load_classifier(self, classifier: Classifier) -> None:
        """Take over a classifier of the same size."""
        for layer, w, b in ((self.hidden, classifier.w1, classifier.b1), (self.logits, classifier.w2, classifier.b2)):
            layer.weight.copy_(torch.from_numpy(w.T.copy()))
            layer.bias.copy_(torch.from_numpy(b))


def network_input(planes: NDArray[np.uint8] | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Return what the network sees, float32 [n, 1, size, size], of planes uint8 [n, size, size]."""
    pixels = torch.as_tensor(planes).to(device)
    return (pixels.float() / 2**resnet.INPUT_FRACTION)[:, None]


def _convolution(x: Tensor, kernel: Tensor, bias: Tensor | None, conv: Conv) -> Tensor:
    if x.shape[1] == 1 and conv.inputs > 1:
        kernel = kernel.sum(dim=1, keepdim=True)  # the image's channels are equal: their kernels act as one
    return functional.conv2d(x, kernel, bias, conv.stride, conv.padding)


def _to_torch(conv: ConvWeights) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(conv.kernel.transpose(3, 2, 0, 1).copy()), torch.from_numpy(conv.bias)


def _fixed_point(x: Tensor, bits: int, fraction: int) -> Tensor:
    """QKeras's quantized_bits(alpha=1): signed, rounded half to even, saturating; its gradient is 1 everywhere."""
    high = 2 ** (bits - 1) - 1
    rounded = (x.detach() * 2.0**fraction).round_().clamp_(-high - 1, high).mul_(2.0**-fraction)
    return cast(Tensor, _StraightThrough.apply(x, rounded))


class _StraightThrough(torch.autograd.Function):
    """The value of `rounded`, the gradient of `x`."""

    @staticmethod
    def forward(ctx, x: Tensor, rounded: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return rounded

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def, override]
        return gradient, None


class _QuantisedRelu(torch.autograd.Function):
    """QKeras's quantized_relu: uint8; its gradient is 1 above 0 up to the largest value, and 0 elsewhere."""

    @staticmethod
    def forward(ctx, x: Tensor, fraction: int) -> Tensor:  # type: ignore[no-untyped-def, override]
        high = 2**quantisers.ACTIVATION_BITS - 1
        ctx.save_for_backward((x > 0) & (x <= high * 2.0**-fraction))
        return (x * 2.0**fraction).round_().clamp_(0, high).mul_(2.0**-fraction)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def, override]
        (passes,) = ctx.saved_tensors
        return gradient * passes, None
