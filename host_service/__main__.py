"""``python -m host_service serve``: models and devices behind a gRPC port."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from driver.device import DeviceError
from driver.runtime import TIMEOUT
from host_service.allocator import keep_large_blocks
from host_service.configuration import TRANSPORTS, Configuration, Devices, Models, Server, load_configuration
from host_service.server import serve_until_stopped
from hw.isa import ConfigurationError
from hw.native import NativeBuildError
from hw.program import ProgramError


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m host_service", description="Serve NPU inference over gRPC (KServe v2 / Triton)."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="check a configuration file")
    check.add_argument("config", type=Path)
    serve = commands.add_parser("serve", help="serve until SIGTERM or ctrl-C")
    what = serve.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, help="configuration file (docs/service.md); everything is set there")
    what.add_argument("--program", type=Path, help="program file (.npu) of the featurizer")
    what.add_argument("--models", type=Path, help="model repository: <name>/<version>/program.npu, classifier.npz")
    serve.add_argument("--classifier", type=Path, help=".npz with the classifier; without it there is no tagger")
    serve.add_argument("--device", default="golden", help="one of `python -m driver devices` (default: golden)")
    serve.add_argument(
        "--count", type=int, default=1, help="of such devices, each in a process of its own (default: 1)"
    )
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for every network (default: %(default)s)"
    )
    serve.add_argument("--port", type=int, default=8001, help="0 takes any free port (default: %(default)s)")
    serve.add_argument(
        "--http-port", type=int, default=-1, help="page and metrics; 0 takes any free port (default: none)"
    )
    serve.add_argument(
        "--transport",
        choices=TRANSPORTS,
        default=TRANSPORTS[0],
        help="what receives the calls: gRPC's C++ library, its Python package, or the first that there is (default: %(default)s)",
    )
    serve.add_argument(
        "--timeout", type=float, default=TIMEOUT, help="seconds for one image on the device (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        configuration = load_configuration(options.config) if options.config else _configuration(options)
        if options.command == "check":
            print(f"{options.config} is in order")
            return 0
        keep_large_blocks()
        with suppress(ImportError):  # it has no wheel for 32-bit ARM
            import uvloop

            uvloop.install()
        asyncio.run(serve_until_stopped(configuration))
    except (DeviceError, ProgramError, ConfigurationError, NativeBuildError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _configuration(options: argparse.Namespace) -> Configuration:
    return Configuration(
        server=replace(
            Server(), host=options.host, port=options.port, http_port=options.http_port, transport=options.transport
        ),
        models=Models(options.program, options.classifier, options.models),
        devices=(Devices(options.device, options.count, options.timeout),),
    )


if __name__ == "__main__":
    sys.exit(main())
