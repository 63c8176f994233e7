"""Generates ``npu_pkg.sv`` from ``hw.isa``: packed structs, error codes, sizes. Run: ``python -m hw package -o FILE``."""

from __future__ import annotations

from pathlib import Path

from hw.files import write_if_changed
from hw.isa import (
    DESCRIPTOR_BYTES,
    FEATURE_BYTES,
    LAYER_COUNTERS_MAX,
    MAGIC,
    PARAMETER_BYTES,
    POOL_KERNEL_MAX,
    REGISTER_BITS,
    VERSION,
    ErrorCode,
    LayerDescriptor,
    PackedRecord,
    Pool,
    ProgramHeader,
)


def _struct(record: type[PackedRecord], name: str) -> list[str]:
    """A packed struct; SystemVerilog lists the most significant field first."""
    rows = record.layout()
    spare = 8 * DESCRIPTOR_BYTES - 32 - (rows[-1][1] + rows[-1][2])
    lines = ["  typedef struct packed {", "    logic [31:0] crc;", f"    logic [{spare - 1}:0] spare;"]
    for field, _, width, signed, doc in reversed(rows):
        kind = "logic signed" if signed else "logic"
        span = f" [{width - 1}:0]" if width > 1 else ""
        lines.append(f"    {kind}{span} {field};  // {doc}")
    return [*lines, f"  }} {name};", ""]


def _enum(entries: list[tuple[str, int]], width: int, name: str) -> list[str]:
    """An enumeration type."""
    lines = [f"    {key} = {width}'d{value}" for key, value in entries]
    return [f"  typedef enum logic [{width - 1}:0] {{", ",\n".join(lines), f"  }} {name};", ""]


def package_text() -> str:
    """The package as SystemVerilog source."""
    lines = [
        "// Generated from hw/isa.py by hw/sv_package.py; change it there.",
        "",
        "// Shared types and constants of the NPU: stream records, error codes, sizes.",
        "/* verilator lint_off UNUSEDPARAM */",
        "package npu_pkg;",
        "",
        f"  parameter int unsigned RECORD_BITS = {8 * DESCRIPTOR_BYTES};",
        f"  parameter int unsigned PARAMETER_BITS = {8 * PARAMETER_BYTES};",
        f"  parameter int unsigned FEATURE_BYTES = {FEATURE_BYTES};",
        f"  parameter int unsigned POOL_KERNEL_MAX = {POOL_KERNEL_MAX};",
        f"  parameter int unsigned LAYER_COUNTERS_MAX = {LAYER_COUNTERS_MAX};",
        f"  parameter logic [31:0] MAGIC = 32'h{MAGIC:08x};",
        f"  parameter logic [15:0] VERSION = 16'd{VERSION};",
        "",
        *_struct(ProgramHeader, "header_t"),
        *_struct(LayerDescriptor, "layer_t"),
        *_enum([(f"POOL_{p.name}", p.value) for p in Pool], 2, "pool_mode_e"),
        *_enum([(f"ERR_{e.name}", e.value) for e in ErrorCode], 8, "error_e"),
        f"  parameter int unsigned REGISTER_BITS = {REGISTER_BITS};",
    ]
    return "\n".join([*lines, "", "endpackage", "/* verilator lint_on UNUSEDPARAM */", ""])


def write_package(path: Path) -> Path:
    """Write the package, whole or not at all, and only when its text changed. Returns ``path``."""
    return write_if_changed(path, package_text())
