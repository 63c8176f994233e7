"""The compiler's command line: ``python -m hls --help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hls.npu.layer import CompileError
from hls.npu.listing import listing
from hls.vitis.csim import SimulationError, find_projects
from hls.vitis.dataflow import DeadlockError
from hls.vitis.patches import PatchError
from hw.isa import ConfigurationError, load_config
from hw.program import Program, ProgramError
from hw.synth.process import SynthesisError


def show(args: argparse.Namespace) -> None:
    """Print a program."""
    print(listing(Program.load(args.program)))


def compile_checkpoint(args: argparse.Namespace) -> None:
    """Checkpoint -> program file."""
    if args.out.suffix != ".npu":
        raise ProgramError(f"{args.out} should end in .npu: that is what a program file is called")
    load_config(args.board)

    from hls.convert import convert
    from quantize import checkpoint

    metadata = {"provenance": checkpoint.load(args.checkpoint).provenance}
    model = checkpoint.load_quantised(args.checkpoint)
    graph = convert(model, "NPU", str(args.out.parent), args.out.stem, board=args.board, metadata=metadata)
    graph.write()
    print(listing(Program.load(args.out)))
    print(f"written to {args.out}")


def vitis(args: argparse.Namespace) -> None:
    """Size and write the Vitis HLS projects of a network."""
    from hls.vitis.build import build
    from hls.vitis.parts import find_part
    from hls.vitis.report import summary
    from hls.vitis.sizing import Sizing
    from quantize import checkpoint

    sizing = Sizing.from_json(args.sizing) if args.sizing else None
    find_part(sizing.part if sizing else args.part)
    model = checkpoint.load_quantised(args.checkpoint)
    design = build(model, args.out, args.part, args.target_ms, args.clock_ns, args.projects, tell=say, sizing=sizing)
    print("\n".join(summary(design)))
    print(f"written to {args.out}: sizing.json, report.txt, report.json, report.png and the projects in graph1..")
    if design.shortages:
        raise SystemExit(1)


def synth(args: argparse.Namespace) -> None:
    """Run Vitis HLS on written projects."""
    from hls.vitis import link, stitch
    from hls.vitis.synth import missed, synthesise, table
    from hw.board import VitisBuild, load_board
    from hw.synth import tool

    board = load_board(args.board) if args.board else None
    card = board is not None and isinstance(board.build, VitisBuild)
    if board:  # what is wrong should be said before hours of synthesis
        (link if card else stitch).prepare(args.out, board)
        tool.find(tool.VPP if card else tool.VIVADO)
    found = synthesise(args.out, args.jobs, kernels=card)
    print(table(args.out, found))
    if board:
        print(f"bitstream: {link.link(args.out, board, args.jobs) if card else stitch.stitch(args.out, board)}")
    if missed(args.out, found):
        raise SystemExit(1)


def say(step: str) -> None:
    """Tell what begins, beside the output proper."""
    print(f"{step} ...", file=sys.stderr, flush=True)


def csim(args: argparse.Namespace) -> None:
    """Compare hls4ml's C simulation with the golden model and with QKeras."""
    from hls import compare
    from quantize import checkpoint

    projects = find_projects(args.projects) if args.projects else []
    model = checkpoint.load_quantised(args.checkpoint)
    if args.ports and not projects:
        raise ValueError("--ports needs --projects: ports are what `make hls` writes")
    result = compare.run(model, args.build, args.images, args.seed, say, projects, True, args.ports)
    print(result)
    if not result.equal:
        raise SystemExit(1)


def patches(args: argparse.Namespace) -> None:
    """Print what hls4ml's headers need, for its maintainers."""
    from hls.vitis.patches import upstream

    print(upstream(), end="")


def positive(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    p = argparse.ArgumentParser(prog="python -m hls", description="Compile QKeras networks for the NPU with hls4ml.")
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")

    c = commands.add_parser("show", help="print a program file, one line a layer")
    c.add_argument("program", type=Path, help=".npu file")
    c.set_defaults(run=show)

    c = commands.add_parser("compile", help="compile a trained network to a program file")
    c.add_argument("--checkpoint", type=Path, required=True, help="trained network (.npz) of quantize/")
    c.add_argument("--board", default="sim-small", help="configuration in hw/boards (default: %(default)s)")
    c.add_argument("--out", type=Path, required=True, help=".npu file to write")
    c.set_defaults(run=compile_checkpoint)

    c = commands.add_parser(
        "vitis", help="size hls4ml's Vitis HLS project for a part and a time per image, write and report it"
    )
    c.add_argument("--checkpoint", type=Path, required=True, help="trained network (.npz) of quantize/")
    c.add_argument("--part", default="xcu250-figd2104-2L-e", help="FPGA (default: %(default)s)")
    c.add_argument("--target-ms", type=positive, default=2.0, help="milliseconds an image (default: %(default)s)")
    c.add_argument("--clock-ns", type=positive, default=5.0, help="the clock's period (default: %(default)s)")
    c.add_argument(
        "--sizing", type=Path, help="write what this sizing.json says, for its part and clock; choose nothing"
    )
    c.add_argument("--projects", type=int, default=4, help="sub-projects, at most (default: %(default)s)")
    c.add_argument("--out", type=Path, default=Path("build/hls/network"), help="folder (default: %(default)s)")
    c.set_defaults(run=vitis)

    c = commands.add_parser("synth", help="run Vitis HLS on the projects of `vitis`, its reports beside the estimates")
    c.add_argument(
        "--out", type=Path, default=Path("build/hls/network"), help="folder of `vitis` (default: %(default)s)"
    )
    c.add_argument("--jobs", type=int, default=1, help="projects at a time (default: %(default)s)")
    c.add_argument(
        "--board", help="of hw/boards (Zynq or Alveo): put the projects together and build its bitstream too"
    )
    c.set_defaults(run=synth)

    c = commands.add_parser(
        "csim", help="check the C simulation (g++ only) of hls4ml's project against the golden model, bit by bit"
    )
    c.add_argument("--checkpoint", type=Path, required=True, help="trained network (.npz) of quantize/")
    c.add_argument("--images", type=int, default=2, help="number of random images (default: %(default)s)")
    c.add_argument("--seed", type=int, default=0, help="of the images (default: %(default)s)")
    c.add_argument("--projects", type=Path, help="folder of `make hls` (default: a project as hls4ml sizes it)")
    c.add_argument("--ports", action="store_true", help="beat by beat, through the ports that a board connects")
    c.add_argument(
        "--build", type=Path, default=Path("build/csim"), help="folder for the HLS project (default: %(default)s)"
    )
    c.set_defaults(run=csim)

    c = commands.add_parser("patches", help="print the patches of hls4ml's headers as a diff of its repository")
    c.set_defaults(run=patches)
    return p


def main() -> None:
    """Run the command; a bad input ends in one clear line."""
    args = parser().parse_args()
    try:
        args.run(args)
    except FileNotFoundError as error:
        sys.exit(f"error: there is no {error.filename}" if error.filename else f"error: {error}")
    except (CompileError, ConfigurationError, ProgramError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except (DeadlockError, PatchError, SimulationError, SynthesisError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
