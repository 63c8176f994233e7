"""A program as people read it: one line a layer, then the totals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hw.isa import DESCRIPTOR_BYTES, ArrayConfig, LayerDescriptor, Pool
from hw.program import Program, ProgramError
from hw.resources import report
from hw.stream import payload_bytes

COLUMNS = (
    "layer",
    "kernel",
    "input",
    "output",
    "pool",
    "residual",
    "tiles",
    "passes",
    "ideal cycles",
    "banks",
    "stream",
)
LEFT = {"layer", "input", "output", "pool", "residual", "banks"}


def passes(d: LayerDescriptor) -> int:
    """Weight tiles that a layer holds in the array one after the other."""
    return d.out_blocks * d.tiles * d.passes_per_tile


def ideal_cycles(d: LayerDescriptor, config: ArrayConfig) -> int:
    """Cycles that a layer needs at least: one per pixel and pass, or one per stream word where that is more."""
    words = payload_bytes(d, config) // (d.out_blocks * d.tiles * config.stream_bytes)
    last = d.out_height - (d.tiles - 1) * d.tile_rows
    total = 0
    for rows, count in ((d.tile_rows, d.tiles - 1), (last, 1)):
        pixels = rows * d.out_width
        total += count * (max(d.passes_per_tile * pixels, words) + d.exclusive_drain * pixels)
    return d.out_blocks * total


def listing(program: Program) -> str:
    """The whole listing. Raises ProgramError for a program without the compiler's placement report."""
    reports = program.metadata.get("placement", {}).get("layers", [])
    descriptors = program.descriptors()
    if len(reports) != len(descriptors):
        raise ProgramError(
            f"{program.name} has no placement report for its {len(descriptors)} layers: compile it again"
        )
    rows = [_row(d, layer, program.config) for d, layer in zip(descriptors, reports, strict=True)]
    return "\n".join([*_head(program), "", *_table(rows), "", *_totals(program, descriptors)])


def _head(program: Program) -> Iterable[str]:
    c, image, out, header = program.config, program.image, program.output, program.header
    yield f"{program.name}: {len(program.layer_names)} layers for {c.name} ({c.cp} x {c.kp} = {c.macs} MACs)"
    packed = f"{image.rows} x {image.cols} x {image.lanes}"
    layout = (
        "" if image.block * image.columns == 1 else f", packed by the host as {packed} (stride {image.block} taken out)"
    )
    yield (
        f"image   {image.height} x {image.width} x {image.channels} uint8 * 2^-{program.image_fraction_bits}{layout}; "
        f"{header.image_words} words at {header.image_base}"
    )
    shape = f"{out.height} x {out.width} x {out.channels}" if out.dtype != "int32" else f"{out.channels} sums"
    divisor = f" / {out.divisor}" if out.divisor != 1 else ""
    yield (
        f"result  {shape} {out.dtype}{divisor} * 2^-{out.fraction_bits}; {header.feature_words} words at {header.feature_base}"
    )


def _row(d: LayerDescriptor, report: dict[str, Any], config: ArrayConfig) -> tuple[str, ...]:
    source, output, residual = report["input"], report["output"], report.get("residual")
    pool = {Pool.NONE: "", Pool.GLOBAL_SUM: "sum"}.get(Pool(d.pool_mode))
    if pool is None:
        pool = f"{'max' if d.pool_mode == Pool.MAX else 'avg'} {d.pool_kernel}x{d.pool_kernel}/{d.pool_stride}"
    banks = f"{_span(source)}{'+' + _span(residual) if residual else ''} > {_span(output)}"
    return (
        report["name"],
        f"{d.kernel_h}x{d.kernel_w}/{d.stride}",
        "x".join(map(str, source["shape"])),
        "x".join(map(str, output["shape"])),
        pool,
        residual["tensor"] + (" (in turn)" if d.exclusive_drain else "") if residual else "",
        f"{d.tiles}x{d.tile_rows * d.out_width}",
        f"{passes(d):,}",
        f"{ideal_cycles(d, config):,}",
        banks,
        f"{(config.padded(DESCRIPTOR_BYTES) + payload_bytes(d, config)) / 1024:,.1f} KiB",
    )


def _span(tensor: dict[str, Any]) -> str:
    first, last = tensor["banks"][0], tensor["banks"][-1]
    return f"{first}" if first == last else f"{first}-{last}"


def _table(rows: list[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(len(title), *(len(row[i]) for row in rows)) for i, title in enumerate(COLUMNS)]

    def line(cells: Iterable[str]) -> str:
        pairs = zip(COLUMNS, cells, widths, strict=True)
        return "  ".join(c.ljust(w) if title in LEFT else c.rjust(w) for title, c, w in pairs).rstrip()

    yield line(COLUMNS)
    yield from (line(row) for row in rows)


def _totals(program: Program, descriptors: list[LayerDescriptor]) -> Iterable[str]:
    c = program.config
    cycles = sum(ideal_cycles(d, c) for d in descriptors)
    used = program.metadata["placement"]["words_used"]
    yield (
        f"total   {program.macs:,} MAC, {sum(map(passes, descriptors)):,} passes, {cycles:,} ideal cycles "
        f"({program.macs / (cycles * c.macs):.1%} of {c.macs} MACs)"
    )
    yield f"stream  {len(program.stream):,} bytes over {c.ports} port(s) of {c.port_bytes} bytes"
    yield f"memory  {used:,} of {c.total_words:,} words of {c.cp} bytes in {c.banks} banks of {c.bank_words:,}"
    yield f"chip    {report(c)} (counted, not synthesised)"
