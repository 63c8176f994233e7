"""Command line of the simulation: ``python -m sim build`` builds the Verilated NPU, ``lint`` and ``format`` look after the RTL."""

from __future__ import annotations

import argparse
import sys

from hw.isa import ConfigurationError, load_config
from sim.build import BuildError, build_library
from sim.lint import format_rtl, lint_rtl


def main() -> None:
    """Parse the command line and run it."""
    parser = argparse.ArgumentParser(prog="python -m sim", description="The Verilated NPU and the RTL's linters.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the shared library of a configuration")
    build.add_argument("--config", default="sim-small", help="a file of hw/boards, without .toml")
    commands.add_parser("lint", help="Verilator -Wall, Verible's rules and format over every module")
    commands.add_parser("format", help="let Verible format every RTL file")
    arguments = parser.parse_args()
    if arguments.command in ("lint", "format"):
        sys.exit(0 if (lint_rtl if arguments.command == "lint" else format_rtl)() else 1)
    try:
        print(build_library(load_config(arguments.config)))
    except (BuildError, ConfigurationError) as error:
        sys.exit(f"sim: {error}")


if __name__ == "__main__":
    main()
