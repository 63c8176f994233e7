# ultra96v2: constraints of the NPU's design.
#
# The design uses no pin of the programmable logic: memory, clock and interrupt all go through the processing system, whose pins
# the board files of the vendor set. So there is nothing to place here, and the clock comes with its constraint from the
# processing system's block. Add pins of your own extensions below.

# A bitstream that is loaded at run time by Linux need not carry every bit: shorter loading.
set_property BITSTREAM.GENERAL.COMPRESS TRUE [current_design]
