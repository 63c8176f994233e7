"""Command line of the simulation: ``python -m sim build --config sim-small`` builds the Verilated NPU."""

from __future__ import annotations

import argparse
import sys

from hw.isa import ConfigurationError, load_config
from sim.build import BuildError, build_library


def main() -> None:
    """Parse the command line and run it."""
    parser = argparse.ArgumentParser(prog="python -m sim", description="The Verilated NPU.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the shared library of a configuration")
    build.add_argument("--config", default="sim-small", help="a file of hw/boards, without .toml")
    arguments = parser.parse_args()
    try:
        print(build_library(load_config(arguments.config)))
    except (BuildError, ConfigurationError) as error:
        sys.exit(f"sim: {error}")


if __name__ == "__main__":
    main()
