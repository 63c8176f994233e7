"""Run programs from the command line: ``python -m driver run --device rtl --program net.npu --images images.npy``."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from driver.device import DEVICES, DeviceError, open_device
from driver.runtime import Npu, Result
from driver.selftest import command
from hw.isa import ConfigurationError
from hw.program import Program, ProgramError


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m driver", description="Run NPU programs on a device.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("devices", help="list the devices that this installation knows")
    run = commands.add_parser("run", help="run images through a program and print what each cost")
    run.add_argument("--device", default="golden", help="one of `python -m driver devices` (default: golden)")
    run.add_argument("--program", type=Path, required=True, help="program file (.npu)")
    source = run.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, help=".npy of images, uint8 [n, height, width, channels]")
    source.add_argument("--jets", type=Path, help="HDF5 file of jets in the public dataset's layout")
    run.add_argument("--count", type=_positive, help="only the first COUNT images")
    run.add_argument(
        "--check", action="store_true", help="also run the golden model; fail unless every integer is equal"
    )
    run.add_argument("--out", type=Path, help="write .npz: result and features [n, ...], cycles [n]")
    command.add_selftest(
        commands.add_parser("selftest", help="find out whether a device works, and if not, what is broken")
    )
    command.add_sign(
        commands.add_parser("sign", help="store the right answers to the self-test's images with a program")
    )
    options = parser.parse_args(arguments)
    try:
        return {"devices": _devices, "run": _run, "selftest": command.selftest, "sign": command.sign}[options.command](
            options
        )
    except (DeviceError, ProgramError, ConfigurationError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def _devices(_: argparse.Namespace) -> int:
    for point in sorted(entry_points(group=DEVICES), key=lambda point: point.name):
        try:
            summary = (point.load().__doc__ or "").strip().partition("\n")[0]
        except ImportError as error:
            summary = f"not usable here: {error}"
        print(f"{point.name:16} {summary}")
    return 0


def _run(options: argparse.Namespace) -> int:
    program = Program.load(options.program)
    images = _read_images(options, program)
    results = _run_all(options.device, program, images)

    print(f"{program.name} on {options.device}, {program.config.cp} x {program.config.kp} multipliers")
    print(f"{'image':>6} {'cycles':>12} {'MAC use':>8} {'stalls':>10} {'ms':>10}")
    for number, r in enumerate(results):
        c = r.counters
        use = f"{c.utilisation(program.macs, program.config):8.1%}" if c.cycles else f"{'-':>8}"
        print(f"{number:6} {c.cycles or '-':>12} {use} {c.weight_stall + c.image_stall:10} {1e3 * r.seconds:10.2f}")
    if options.out:
        _write_results(options.out, results)
        print(f"results written to {options.out}")
    if options.check:
        return _compare(results, _run_all("golden", program, images))
    return 0


def _read_images(options: argparse.Namespace, program: Program) -> NDArray[np.uint8]:
    if options.jets:
        # The jet files need pandas and PyTables, which a board need not have.
        from quantize.dataset import read
        from quantize.images import jet_images

        return jet_images(read(options.jets, options.count).constituents, program.image.height)
    try:
        images: NDArray[Any] = np.load(options.images, allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise ValueError(f"{options.images} is not a whole .npy file of numbers: {error}") from error
    if not isinstance(images, np.ndarray) or images.ndim != 4:
        raise ValueError(f"{options.images} must hold one array [n, height, width, channels]")
    return images[: options.count]


def _run_all(device: str, program: Program, images: NDArray[np.uint8]) -> list[Result]:
    with Npu(open_device(device, program.config)) as npu:
        npu.load(program)
        return list(tqdm(npu.run_many(images), desc=device, total=len(images), unit="image"))


def _compare(results: list[Result], golden: list[Result]) -> int:
    unequal = [
        n for n, (a, b) in enumerate(zip(results, golden, strict=True)) if not np.array_equal(a.result, b.result)
    ]
    if unequal:
        print(f"error: images {unequal} differ from the golden model", file=sys.stderr)
        return 1
    print(f"all {len(results)} images equal the golden model")
    return 0


def _write_results(path: Path, results: list[Result]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        with part.open("wb") as file:
            np.savez(
                file,
                result=np.stack([r.result for r in results]),
                features=np.stack([r.features for r in results]),
                cycles=np.array([r.counters.cycles for r in results]),
            )
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
