"""``python -m driver.deploy package`` makes a board's archive; ``check`` and ``answer`` are what its installer asks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from driver.device import DeviceError
from hw.isa import ConfigurationError
from hw.program import Program, ProgramError


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m driver.deploy", description="Put the service on a board: archive and installer."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    package = commands.add_parser("package", help="make the archive that is installed on a board")
    package.add_argument("--board", required=True, help="file in hw/boards")
    package.add_argument("--program", type=Path, required=True, help="program file (.npu), compiled for that board")
    package.add_argument("--classifier", type=Path, required=True, help=".npz with the classifier")
    package.add_argument(
        "--out", type=Path, default=Path("build/package"), help="folder of the archive (default: %(default)s)"
    )
    check = commands.add_parser("check", help="whether a release's files fit the installed software")
    check.add_argument("release", type=Path, help="folder of the release")
    answer = commands.add_parser(
        "answer", help="whether the service answers a release's first jet with the right integers"
    )
    answer.add_argument("release", type=Path, help="folder of the release")
    answer.add_argument("--config", type=Path, required=True, help="the service's configuration file")
    answer.add_argument(
        "--seconds", type=float, default=60.0, help="wait so long for it to start (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        print(_run(options))
    except (DeviceError, ProgramError, ConfigurationError, RuntimeError, ValueError, OSError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> str:
    from driver.deploy.check import check_answer, check_release

    if options.command == "check":
        return check_release(options.release)
    if options.command == "answer":
        return check_answer(options.release, options.config, options.seconds)
    from driver.deploy.archive import read_facts_of
    from driver.deploy.package import demo_jets, package

    program = Program.load(options.program)
    jets = demo_jets(program.image.height, options.out / "jets")
    path = package(options.board, program, options.classifier, jets, options.out)
    return f"{path}: bitstream {read_facts_of(path)['bitstream']}"


if __name__ == "__main__":
    sys.exit(main())
