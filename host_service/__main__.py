"""``python -m host_service serve``: a program, a classifier and a device behind a gRPC port."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from driver.device import DeviceError, open_device
from driver.runtime import TIMEOUT, Npu
from host_service.server import Service, serve_until_stopped
from hw.isa import ConfigurationError
from hw.program import Program, ProgramError
from quantize.classifier import load_classifier


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m host_service", description="Serve NPU inference over gRPC (KServe v2 / Triton)."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve until SIGTERM or ctrl-C")
    serve.add_argument("--program", type=Path, required=True, help="program file (.npu) of the featurizer")
    serve.add_argument("--classifier", type=Path, help=".npz with the classifier; without it there is no tagger")
    serve.add_argument("--device", default="golden", help="one of `python -m driver devices` (default: golden)")
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for every network (default: %(default)s)"
    )
    serve.add_argument("--port", type=int, default=8001, help="0 takes any free port (default: %(default)s)")
    serve.add_argument(
        "--timeout", type=float, default=TIMEOUT, help="seconds for one image on the device (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(serve_until_stopped(_service(options), options.host, options.port))
    except (DeviceError, ProgramError, ConfigurationError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _service(options: argparse.Namespace) -> Service:
    program = Program.load(options.program)
    classifier = load_classifier(options.classifier) if options.classifier else None
    npu = Npu(open_device(options.device, program.config), timeout=options.timeout, layer_counters=False)
    try:
        npu.load(program)
        return Service(npu, classifier)
    except BaseException:
        npu.close()
        raise


if __name__ == "__main__":
    sys.exit(main())
