"""What an HLS project will take of an FPGA: estimates, each by a formula that is said here with its source.

- DSP: one for each multiplier, ``ceil(multiplications / reuse factor)``: products that are added up become ``mac_muladd`` on a DSP
  slice. An upper bound: in the report named in timing.py 1, 4 and 10 multipliers of 6 bits are 1, 4 and 5 DSP, the rest logic.
- Block RAM of weights: hls4ml reshapes the weights of a Resource layer to ``reuse factor`` words with a weight for each multiplier,
  in a ROM that it binds to block RAM (nnet_dense_resource.h), so ``width x depth`` by the shapes of a RAMB18 (UG573). With reuse
  factor 1 and with the Latency strategy they are constants in logic. UltraRAM cannot hold them: it has no initial contents (UG573).
- FIFOs: up to 64 words shift registers (a LUT holds 32 bits in SRL32 mode, UG574), which pragmas.py asks for; deeper ones block RAM
  in its shape 1024 x 18, by which the same report's six FIFOs take the 17 blocks that it counts.
- LUT and flip-flops: lines through what Vitis HLS 2024.2 reports for the layers of the same project (three convolutions of 25 to
  100 inputs, three activations). Larger layers are an extrapolation, and HLS counts before logic is optimised: Vivado needs less.
"""

from __future__ import annotations

from hls.vitis.parts import Resources
from hls.vitis.sizing import LayerSizing
from hls.vitis.stages import Stage, Stream
from hw.resources import Memory

RAMB18 = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
"""Width and depth of a RAMB18 that is read only, or in simple dual port mode."""
FIFO_RAMB18 = ((18, 1024),)
SRL_WORDS = 32
SHIFT_REGISTER_WORDS = 2 * SRL_WORDS

CONVOLUTION_LUT, CONVOLUTION_LUT_PER_INPUT_BIT = 600, 6.5
CONVOLUTION_FF, CONVOLUTION_FF_PER_INPUT_BIT, FF_PER_ACCUMULATOR_BIT = 500, 3, 2
LUT_PER_BIT = {"Activation": 6.2, "Pooling2D": 10.0, "GlobalPooling2D": 2.0, "Clone": 0.0}
"""By kind of stage, for each bit of what it reads; 1 for a kind that is not named."""


def multipliers(stage: Stage, sizing: LayerSizing) -> int:
    """Multipliers of a layer."""
    assert stage.product is not None, f"{stage.name} does not multiply"
    return -(-stage.product.count // sizing.reuse_factor)


def weight_memory(stage: Stage, sizing: LayerSizing) -> Memory | None:
    """The ROM of a layer's weights, or None where they are constants in logic."""
    if stage.product is None or sizing.strategy == "Latency" or sizing.reuse_factor == 1:
        return None
    width = multipliers(stage, sizing) * stage.product.weight_bits
    return Memory("weights", width, sizing.reuse_factor, shapes=RAMB18)


def layer(stage: Stage, sizing: LayerSizing | None, bits_read: int) -> Resources:
    """Estimate of one layer function, without its FIFOs. ``bits_read``: of a word of each of its inputs, together."""
    if stage.product is None or sizing is None:
        lut = LUT_PER_BIT.get(stage.kind, 1.0) * bits_read + stage.line_buffer_bits / SRL_WORDS
        return Resources(lut=round(lut), ff=2 * bits_read)
    memory = weight_memory(stage, sizing)
    window = stage.product.inputs * stage.product.input_bits
    accumulators = stage.product.outputs * stage.product.accumulator_bits
    return Resources(
        dsp=multipliers(stage, sizing),
        bram18=memory.primitives if memory else 0,
        lut=round(CONVOLUTION_LUT + CONVOLUTION_LUT_PER_INPUT_BIT * window + stage.line_buffer_bits / SRL_WORDS),
        ff=round(
            CONVOLUTION_FF + CONVOLUTION_FF_PER_INPUT_BIT * window + FF_PER_ACCUMULATOR_BIT * accumulators,
        ),
    )


def fifo(stream: Stream, depth: int) -> Resources:
    """Estimate of a FIFO of ``depth`` words; the network's ends have none."""
    if stream.is_port:
        return Resources()
    if depth <= SHIFT_REGISTER_WORDS:
        return Resources(lut=stream.bits * -(-depth // SRL_WORDS), ff=stream.bits)
    return Resources(bram18=fifo_memory(stream.bits, depth).primitives)


def fifo_memory(bits: int, depth: int) -> Memory:
    """The block RAM of a FIFO that is built of it."""
    return Memory("FIFO", bits, depth, shapes=FIFO_RAMB18)
