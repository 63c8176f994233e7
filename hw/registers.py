"""The registers' offsets and bits. Generated from hw/regs/npu.rdl; change it there, then: python -m hw registers."""

from enum import IntEnum


class Register(IntEnum):
    """Byte offsets of the 32-bit registers, the Vitis `ap_ctrl_chain` map (UG1393) first. Addresses are 64-bit pairs, low half first.

    A run takes the registers from PROGRAM_ADDRESS to WATCHDOG with START; they ignore writes while a START waits. START written during a
    run waits for its end, and meanwhile the next image is loaded. Error and counters are those of the last finished run.
    Unmapped addresses read 0 and ignore writes.
    """

    CONTROL = 0x00  # Start, and what became of it
    GLOBAL_INTERRUPT_ENABLE = 0x04  # The interrupt line as a whole
    INTERRUPT_ENABLE = 0x08  # Which events set INTERRUPT_STATUS
    INTERRUPT_STATUS = 0x0C  # Pending interrupts
    PROGRAM_ADDRESS = 0x10  # Where the program lies, one address a weight port, four reserved
    IMAGE_ADDRESS = 0x30  # Where the image lies
    FEATURE_ADDRESS = 0x38  # Where the features go
    PROGRAM_BEATS = 0x40  # Beats each weight port reads
    WATCHDOG = 0x44  # Cycles without progress before ErrorCode.WATCHDOG; 0 switches it off
    ERROR_CODE = 0x50  # Why the run stopped: hw.isa.ErrorCode, 0 for a good one
    ERROR_LAYER = 0x54  # The layer it stopped in
    CYCLES = 0x60  # Start to done
    MAC_BUSY = 0x64  # Cycles in which the array took an activation word
    WEIGHT_STALL = 0x68  # Cycles a pass waited for its weight tile
    IMAGE_STALL = 0x6C  # Cycles the reader waited for the image to arrive
    DRAIN = 0x70  # Cycles spent only on draining tiles
    OVERHEAD = 0x74  # The rest: descriptors, pipeline latency, feature store
    LAYERS_DONE = 0x78  # Layers that were finished
    RUNS = 0x7C  # Runs finished since reset, modulo 2**32: whose the error and the counters are
    ID_MAGIC = 0x80  # 'QWNP'
    ID_VERSION = 0x84  # Version of the instruction set
    ID_ARRAY = 0x88  # The array
    ID_MEMORY = 0x8C  # Activation words in all banks
    ID_STREAM = 0x90  # What the weight stream was cut for
    LAYER_COUNTERS = 0x1000  # What each of the first 256 layers cost


REGISTER_BITS = 13
"""Bits of a byte address."""
LAYER_COUNTERS_MAX = 256
"""Entries of LAYER_COUNTERS."""


class Control(IntEnum):
    """Bits of Register.CONTROL."""

    START = 1 << 0  # write 1 to run; reads 1 until the core has taken it
    DONE = 1 << 1  # a run has finished; clears when read
    IDLE = 1 << 2  # no run is on and no START waits
    READY = 1 << 3  # the last START was taken, its registers may be written again; clears when read


class InterruptEnable(IntEnum):
    """Bits of Register.INTERRUPT_ENABLE."""

    DONE = 1 << 0  # a run has finished
    READY = 1 << 1  # a START was taken


class InterruptStatus(IntEnum):
    """Bits of Register.INTERRUPT_STATUS."""

    DONE = 1 << 0  # a run has finished; toggles when 1 is written
    READY = 1 << 1  # a START was taken; toggles when 1 is written
