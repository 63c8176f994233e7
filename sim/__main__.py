"""Command line of the simulation: ``python -m sim build`` builds the Verilated NPU, ``python -m sim lint`` lints the RTL."""

from __future__ import annotations

import argparse
import sys

from hw.isa import ConfigurationError, load_config
from sim.build import BuildError, build_library
from sim.lint import lint_rtl


def main() -> None:
    """Parse the command line and run it."""
    parser = argparse.ArgumentParser(prog="python -m sim", description="The Verilated NPU and the RTL's linters.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the shared library of a configuration")
    build.add_argument("--config", default="sim-small", help="a file of hw/boards, without .toml")
    commands.add_parser("lint", help="Verilator -Wall and Verible over every module")
    arguments = parser.parse_args()
    if arguments.command == "lint":
        sys.exit(0 if lint_rtl() else 1)
    try:
        print(build_library(load_config(arguments.config)))
    except (BuildError, ConfigurationError) as error:
        sys.exit(f"sim: {error}")


if __name__ == "__main__":
    main()
