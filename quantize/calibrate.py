"""Choose where the binary points go: a power-of-two scale for every kernel and every activation.

Each is the scale with the least error between the values and their fixed-point roundings: of the kernel's own weights, and of the
activations that the float network produces on sample images. For kernels it is the squared error. For activations no power of it
suits all networks: where nearly all of an image is dark, squares give the few brightest activations so much weight that the others
lose the bits which the features are made of. `candidates` therefore has one choice for each of POWERS; whoever can compute
features takes the one whose features are nearest (pipeline.quantise).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tensorflow import keras
from tqdm import tqdm

from quantize import quantisers, resnet
from quantize.fold import ConvWeights, set_weights

POWERS = (2.0, 1.5, 1.0, 0.75)
"""Of the rounding error, whose sum over the activations is least."""
_SCALES = 8  # scales tried, from the one that just holds the largest value to one that saturates 128 times earlier
_VALUES = 2_000_000  # activations compared per layer and batch, drawn evenly


def calibrate(
    config: resnet.ResNetConfig, weights: dict[str, ConvWeights], images: NDArray[np.uint8], batch: int = 32
) -> resnet.Fractions:
    """Return the binary points of the quantised twin of the folded network `weights`, with the least squared error everywhere.

    images: uint8 [n, size, size, channels], a sample of what the network will see.
    """
    return candidates(config, weights, images, batch, POWERS[:1])[POWERS[0]]


def candidates(
    config: resnet.ResNetConfig,
    weights: dict[str, ConvWeights],
    images: NDArray[np.uint8],
    batch: int = 32,
    powers: Sequence[float] = POWERS,
) -> dict[float, resnet.Fractions]:
    """Return binary points for each of `powers`: those of the activations with the least sum of that power of their rounding errors."""
    found = _activation_fractions(config, weights, images, batch, powers)
    return {power: _fractions(config, weights, activations) for power, activations in found.items()}


def _fractions(
    config: resnet.ResNetConfig, weights: dict[str, ConvWeights], activations: dict[str, int]
) -> resnet.Fractions:
    chosen: dict[str, int] = {}
    for conv, source in resnet.conv_inputs(config).items():
        into = resnet.INPUT_FRACTION if source is None else activations[source]
        chosen[conv] = _weight_fraction(weights[conv], into)
    fractions = resnet.Fractions(chosen, activations)
    accumulators = resnet.accumulator_fractions(config, fractions)
    for activation, sources in resnet.activation_sources(config).items():
        # A requantisation only ever drops bits.
        activations[activation] = min(activations[activation], *(accumulators[name] for name in sources))
    return fractions


def rounding_errors(
    values: NDArray, fraction: int, low: int, high: int, powers: Sequence[float] = (2.0,)
) -> NDArray[np.float64]:
    """Return, for each power, the summed power of the errors of rounding `values` to integers low..high times 2^-fraction."""
    scaled = np.ldexp(np.asarray(values, np.float64), fraction)
    errors = np.abs(np.clip(np.rint(scaled), low, high) - scaled)
    return np.array([(errors**power).sum() * 2.0 ** (-power * fraction) for power in powers])


def holding(largest: float, high: int) -> int:
    """Return the most fractional bits with which an integer up to `high` still holds `largest`."""
    return int(np.floor(np.log2(high / largest))) if largest > 0 else quantisers.BIAS_BITS // 2


def _weight_fraction(conv: ConvWeights, input_fraction: int) -> int:
    half = 2 ** (quantisers.WEIGHT_BITS - 1)
    first = holding(float(np.abs(conv.kernel).max()), half - 1)
    best = min(range(first, first + 3), key=lambda f: float(rounding_errors(conv.kernel, f, -half, half - 1)[0]))
    # The bias has to fit its own width at the accumulator's scale.
    room = holding(float(np.abs(conv.bias).max()), 2 ** (quantisers.BIAS_BITS - 1) - 1)
    return min(best, room - input_fraction)


def _activation_fractions(
    config: resnet.ResNetConfig,
    weights: dict[str, ConvWeights],
    images: NDArray[np.uint8],
    batch: int,
    powers: Sequence[float],
) -> dict[float, dict[str, int]]:
    model = resnet.folded(config)
    set_weights(model, weights)
    names = list(resnet.activation_sources(config))
    probe = keras.Model(model.input, [model.get_layer(name).output for name in names])
    errors: dict[str, NDArray[np.float64]] = {}
    first: dict[str, int] = {}
    rng = np.random.default_rng(0)
    for start in tqdm(range(0, len(images), batch), desc="calibrate", unit="batch"):
        outputs = probe(images[start : start + batch].astype(np.float32) / 2**resnet.INPUT_FRACTION)
        for name, output in zip(names, outputs, strict=True):
            values = output.numpy().ravel()
            low, high = (-128, 127) if name.endswith("_quant") else (0, 255)
            if name not in first:
                # One scale coarser than this batch needs: a later one may reach further.
                first[name] = max(1, holding(float(np.abs(values).max()), high) - 1)
                errors[name] = np.zeros((_SCALES, len(powers)))
            if len(values) > _VALUES:
                values = rng.choice(values, _VALUES, replace=False)
            errors[name] += [rounding_errors(values, first[name] + i, low, high, powers) for i in range(_SCALES)]
    best = {name: first[name] + np.argmin(errors[name], axis=0) for name in names}
    return {power: {name: int(best[name][i]) for name in names} for i, power in enumerate(powers)}
