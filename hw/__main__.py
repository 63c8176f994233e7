"""Command line of the hardware: ``python -m hw synth`` builds a board's bitstream, ``formal`` proves the RTL, others write sources."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hw.board import load_board
from hw.files import write_if_changed
from hw.formal.report import run_proofs
from hw.isa import BOARDS, ConfigurationError, load_config
from hw.register_map import RegisterMapError, write_committed, write_html
from hw.sources import BUILD
from hw.sv_package import write_package
from hw.synth import area_rules, area_table, pipeline
from hw.synth.area import measure
from hw.synth.depth import measure as measure_depths
from hw.synth.flow import DEFAULT_BOARD, estimate, summary, synthesise
from hw.synth.hwh import hwh_text
from hw.synth.process import SynthesisError


def main() -> None:
    """Parse the command line and run it."""
    parser = argparse.ArgumentParser(prog="python -m hw", description="The NPU's sources.")
    commands = parser.add_subparsers(dest="command", required=True)
    package = commands.add_parser("package", help="generate npu_pkg.sv from hw/isa.py")
    package.add_argument("-o", "--output", type=Path, default=Path("build/rtl/npu_pkg.sv"))
    registers = commands.add_parser(
        "registers", help="write what is committed of hw/regs/npu.rdl again: Python names, page"
    )
    registers.add_argument("--html", type=Path, metavar="FOLDER", help="write pages to browse, too")
    commands.add_parser("boards", help="list the array configurations")
    handoff = commands.add_parser(
        "hwh", help="write the hardware handoff that a Zynq board's file implies; a bitstream comes with its own"
    )
    handoff.add_argument("--board", required=True, help="file in hw/boards")
    handoff.add_argument("-o", "--output", type=Path, help="default: build/hwh/<board>.hwh")
    synth = commands.add_parser("synth", help="build a board's bitstream; report utilisation and timing")
    synth.add_argument(
        "--board", default=DEFAULT_BOARD, help="file in hw/boards (default: %(default)s, open tools only)"
    )
    synth.add_argument("--seed", type=int, help="of placement, for the open flow (default: the board file's)")
    synth.add_argument(
        "--estimate", action="store_true", help="stop before placement (1 minute): the slowest path into each register"
    )
    formal = commands.add_parser("formal", help="prove what hw/formal claims of the RTL, and find the seeded bugs")
    formal.add_argument("names", nargs="*", metavar="NAME", help="proofs (default: all)")
    formal.add_argument("--list", action="store_true", help="say what is proven, and run nothing")
    formal.add_argument("--no-bugs", action="store_true", help="prove only")
    area = commands.add_parser("area", help="what each block takes of a board's FPGA, against the committed figures")
    area.add_argument("--board", default="zcu104", help="file in hw/boards (default: %(default)s)")
    area.add_argument("--jobs", type=int, help="blocks at once (default: one for each processor)")
    area.add_argument(
        "--update", action="store_true", help="make today's the committed figures, and write docs/area.md"
    )
    commands.add_parser("pipeline", help="count the logic levels before each register, and write docs/pipeline.md")
    arguments = parser.parse_args()
    if arguments.command == "package":
        print(write_package(arguments.output))
    elif arguments.command == "registers":
        sys.exit(_registers(arguments.html))
    elif arguments.command == "formal":
        sys.exit(run_proofs(arguments.names, listing=arguments.list, bugs=not arguments.no_bugs))
    elif arguments.command == "hwh":
        sys.exit(_hwh(arguments))
    elif arguments.command == "synth":
        sys.exit(_synth(arguments))
    elif arguments.command == "area":
        sys.exit(_area(arguments))
    elif arguments.command == "pipeline":
        sys.exit(_pipeline())
    else:
        for path in sorted(BOARDS.glob("*.toml")):
            c = load_config(path.stem)
            print(
                f"{c.name:10} {c.cp} x {c.kp} = {c.macs} MACs, {c.banks} banks of {c.bank_words} words, "
                f"{c.stream_bytes} B/cycle"
            )


def _registers(html: Path | None) -> int:
    """0 when everything is written, 2 when the map has mistakes."""
    try:
        written = write_committed()
        if html:
            written.append(write_html(html))
    except RegisterMapError as error:
        print(f"python -m hw registers: {error}", file=sys.stderr)
        return 2
    print("\n".join(str(path) for path in written))
    return 0


def _hwh(arguments: argparse.Namespace) -> int:
    """0 when it is written, 2 when there is no such board or it is no Zynq."""
    try:
        text = hwh_text(load_board(arguments.board))
    except ConfigurationError as error:
        print(f"python -m hw hwh: {error}", file=sys.stderr)
        return 2
    print(write_if_changed(arguments.output or BUILD / "hwh" / f"{arguments.board}.hwh", text))
    return 0


def _synth(arguments: argparse.Namespace) -> int:
    """0 when the bitstream is there and runs at the board's clock, 1 when it misses the clock, 2 when a tool failed."""
    try:
        if arguments.estimate:
            print(estimate(arguments.board))
            return 0
        result = synthesise(arguments.board, seed=arguments.seed)
    except (ConfigurationError, SynthesisError) as error:
        print(f"python -m hw synth: {error}", file=sys.stderr)
        return 2
    print(summary(arguments.board, result))
    return 0 if result.met else 1


def _pipeline() -> int:
    """0 when no register has too many levels before it, 1 when one has, 2 when a tool failed."""
    try:
        depths = measure_depths()
        print(pipeline.summary(depths))
        print(pipeline.write_page(depths))
    except SynthesisError as error:
        print(f"python -m hw pipeline: {error}", file=sys.stderr)
        return 2
    return 1 if pipeline.too_deep(depths) else 0


def _area(arguments: argparse.Namespace) -> int:
    """0 when every rule holds and nothing has grown, 1 otherwise, 2 when a tool failed or there is nothing to compare with."""
    try:
        board = load_board(arguments.board)
        areas = measure(board, jobs=arguments.jobs)
        assert board.device
        print(area_table.text(areas, board.device))
        complaints = area_rules.broken(areas, board)
        if arguments.update:
            print("\n".join(str(path) for path in area_table.write_reference(board.name, areas)))
        else:
            complaints += area_table.grown(areas, area_table.read_reference(board.name))
    except (ConfigurationError, SynthesisError) as error:
        print(f"python -m hw area: {error}", file=sys.stderr)
        return 2
    if complaints:
        print("\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    main()
