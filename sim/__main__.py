"""Command line of the simulation: ``build`` makes the Verilated NPU, ``waves`` records a bench, ``lint`` and ``format`` tend the RTL."""

from __future__ import annotations

import argparse
import sys

from hw.isa import ConfigurationError, load_config
from hw.register_map import RegisterMapError
from sim.build import BuildError, build_library
from sim.lint import format_rtl, lint_rtl
from sim.waves import WavesError, record, show


def main() -> None:
    """Parse the command line and run it."""
    parser = argparse.ArgumentParser(
        prog="python -m sim", description="The Verilated NPU, its benches' waveforms, the RTL's linters."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the shared library of a configuration")
    build.add_argument("--config", default="sim-small", help="a file of hw/boards, without .toml")
    commands.add_parser("lint", help="Verilator -Wall, Verible's rules and format over every module")
    commands.add_parser("format", help="let Verible format every RTL file")
    waves = commands.add_parser("waves", help="record a bench's waveform in build/waves and open it")
    waves.add_argument(
        "bench", help="sync_fifo, sim/test_sync_fifo.py, or with a variant: sim/test_npu.py::test_npu[16x8]"
    )
    waves.add_argument(
        "--only", metavar="REGEX", help="the cocotb tests to run, by name; big blocks fill gigabytes with all"
    )
    waves.add_argument("--no-viewer", action="store_true", help="only record it")
    arguments = parser.parse_args()
    if arguments.command in ("lint", "format"):
        sys.exit(0 if (lint_rtl if arguments.command == "lint" else format_rtl)() else 1)
    if arguments.command == "waves":
        sys.exit(_waves(arguments.bench, arguments.only, not arguments.no_viewer))
    try:
        print(build_library(load_config(arguments.config)))
    except (BuildError, ConfigurationError, RegisterMapError) as error:
        sys.exit(f"sim: {error}")


def _waves(bench: str, only: str | None, viewer: bool) -> int:
    """0 when the bench passed, 1 when it failed and was recorded, 2 when there is nothing to see."""
    try:
        waveform, passed = record(bench, only)
    except WavesError as error:
        print(f"sim waves: {error}", file=sys.stderr)
        return 2
    print(show(waveform) if viewer else waveform)
    return 0 if passed else 1


if __name__ == "__main__":
    main()
