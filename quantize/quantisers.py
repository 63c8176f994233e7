"""QKeras quantisers of this project: power-of-two fixed point, rounding half to even, saturating.

A value has a width of `bits` and `fraction` fractional bits: it is an integer times 2^-fraction. QKeras counts the
bits left of the point instead (`integer`), without the sign.

Importing this module repairs one thing in QKeras 0.9.0: it evaluates 2**integer in int32, which TensorFlow refuses for
a negative exponent, although weights below 1/2 and activations below 1/2 call for one. The repair quantises x * 2^-I
with integer = 0 and scales back, which is exact since both scalings are powers of two. It changes the QKeras classes
themselves because hls4ml rebuilds quantisers from their class name.
"""

from collections.abc import Callable
from typing import Any

from qkeras import quantized_bits, quantized_relu

WEIGHT_BITS = 8
ACTIVATION_BITS = 8
BIAS_BITS = 24  # float32, in which QKeras computes, holds every integer of this width


def weights(fraction: int) -> quantized_bits:
    """Return the int8 quantiser of weights in steps of 2^-fraction."""
    return quantized_bits(WEIGHT_BITS, WEIGHT_BITS - 1 - fraction, alpha=1)


def bias(fraction: int) -> quantized_bits:
    """Return the quantiser of biases in steps of 2^-fraction, the accumulator's scale."""
    return quantized_bits(BIAS_BITS, BIAS_BITS - 1 - fraction, alpha=1)


def relu(fraction: int) -> quantized_relu:
    """Return the uint8 ReLU in steps of 2^-fraction."""
    return quantized_relu(ACTIVATION_BITS, ACTIVATION_BITS - fraction)


def signed(fraction: int) -> quantized_bits:
    """Return the int8 quantiser of a signed activation (the shortcut projection) in steps of 2^-fraction."""
    return quantized_bits(ACTIVATION_BITS, ACTIVATION_BITS - 1 - fraction, symmetric=0, alpha=1)


def _allow_negative_integer(quantiser: type) -> None:
    """Make quantiser.__call__ accept `integer` < 0, exactly."""
    original: Callable[[Any, Any], Any] = quantiser.__call__
    if getattr(original, "allows_negative_integer", False):
        return

    def call(self: Any, x: Any) -> Any:
        integer = self.integer
        if not isinstance(integer, int) or integer >= 0:
            return original(self, x)
        self.integer = 0
        try:
            return original(self, x * 2.0**-integer) * 2.0**integer
        finally:
            self.integer = integer

    call.allows_negative_integer = True  # type: ignore[attr-defined]
    quantiser.__call__ = call  # type: ignore[method-assign]


for _quantiser in (quantized_bits, quantized_relu):
    _allow_negative_integer(_quantiser)
