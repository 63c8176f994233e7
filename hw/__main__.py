"""Command line of the hardware's sources: ``python -m hw package`` writes the SystemVerilog package."""

from __future__ import annotations

import argparse
from pathlib import Path

from hw.isa import BOARDS, load_config
from hw.sv_package import write_package


def main() -> None:
    """Parse the command line and run it."""
    parser = argparse.ArgumentParser(prog="python -m hw", description="The NPU's sources.")
    commands = parser.add_subparsers(dest="command", required=True)
    package = commands.add_parser("package", help="generate npu_pkg.sv from hw/isa.py")
    package.add_argument("-o", "--output", type=Path, default=Path("build/rtl/npu_pkg.sv"))
    commands.add_parser("boards", help="list the array configurations")
    arguments = parser.parse_args()
    if arguments.command == "package":
        print(write_package(arguments.output))
    else:
        for path in sorted(BOARDS.glob("*.toml")):
            c = load_config(path.stem)
            print(
                f"{c.name:10} {c.cp} x {c.kp} = {c.macs} MACs, {c.banks} banks of {c.bank_words} words, "
                f"{c.stream_bytes} B/cycle"
            )


if __name__ == "__main__":
    main()
