"""The latencies that hw/rtl/npu_timing_pkg.sv states, for the benches."""

from __future__ import annotations

READ = 4
REVISIT = 4
DRAIN = 2
ISSUE = 4


def chain(field_bits: int) -> int:
    """Products that dot_pair adds up before it separates the fields."""
    return 1 << (field_bits - 16) if field_bits else 1


def array(cp: int, field_bits: int) -> int:
    """Cycles from a word at mac_array to its sums."""
    return 5 + (chain(field_bits) if field_bits else 0) + (cp // chain(field_bits) - 1).bit_length()
