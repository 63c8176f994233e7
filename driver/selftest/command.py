"""``python -m driver selftest``: one line a check, for a technician; and ``python -m driver sign``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from driver.device import DeviceError, open_device
from driver.selftest.bench import Bench
from driver.selftest.checks import CHECKS
from driver.selftest.findings import Finding, Verdict, examine
from driver.selftest.speed import SIGNATURE, golden_signature
from hw.isa import load_config
from hw.program import Program

MIB = 1 << 20


def add_selftest(parser: argparse.ArgumentParser) -> None:
    """The options of ``selftest``."""
    parser.add_argument("--device", default="board", help="one of `python -m driver devices` (default: board)")
    parser.add_argument(
        "--config", help="array that should be there, a name in hw/boards (default: the program's, or whatever is)"
    )
    parser.add_argument("--program", type=Path, help="network (.npu) to try instead of a small one")
    parser.add_argument("--memory-mib", type=int, default=8, help="memory that each walk covers, MiB (default: 8)")
    parser.add_argument("--images", type=int, default=4, help="images of the throughput check (default: 4)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def selftest(options: argparse.Namespace) -> int:
    """Test a device and print what was found; 0 when nothing failed."""
    if options.memory_mib < 1 or options.images < 1:
        raise ValueError("--memory-mib and --images must be 1 or more")
    findings = []
    for finding in _findings(options):
        findings.append(finding)
        if not options.json:
            tqdm.write(line(finding))
    failed = [finding for finding in findings if finding.verdict is Verdict.FAIL]
    if options.json:
        answer = {"device": options.device, "passed": not failed, "findings": [f.to_json() for f in findings]}
        print(json.dumps(answer, indent=1))
    else:
        print(summary(findings))
    return 1 if failed else 0


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    program = Program.load(options.program) if options.program else None
    name = options.config or (program.config.name if program else None)
    expected = load_config(options.config) if options.config else program.config if program else None
    try:
        device = open_device(options.device, expected or load_config("sim-small"))
    except (DeviceError, ValueError, OSError) as error:
        advice = "the bitstream is missing, is the wrong one, or cannot be loaded; see docs/board.md"
        yield Finding("open", Verdict.FAIL, f"{options.device} for {name or 'any array'}: {error}", advice)
        return
    try:
        with Bench(
            device,
            expected=expected,
            program=program,
            memory_bytes=options.memory_mib * MIB,
            images=options.images,
        ) as bench:
            checks = tqdm(CHECKS, desc=f"testing {options.device}", unit="check", leave=False, disable=None)
            yield from examine(bench, checks)
    finally:
        device.close()


def line(finding: Finding) -> str:
    """One line for a technician, and a second one with what to do where something failed."""
    first = f"{finding.verdict.value}  {finding.check:30} {finding.text}"
    return f"{first}\n      -> {finding.advice}" if finding.advice else first


def summary(findings: list[Finding]) -> str:
    """The verdict."""
    count = {verdict: sum(f.verdict is verdict for f in findings) for verdict in Verdict}
    rest = f", {count[Verdict.NOT_RUN]} not run" if count[Verdict.NOT_RUN] else ""
    failed = next((f for f in findings if f.verdict is Verdict.FAIL), None)
    if failed is None:
        return f"PASS: {count[Verdict.PASS]} checks passed{rest}"
    return f"FAIL: {count[Verdict.FAIL]} of {len(findings)} checks failed{rest}; begin with {failed.check!r}: {failed.advice}"


def add_sign(parser: argparse.ArgumentParser) -> None:
    """The options of ``sign``."""
    parser.add_argument(
        "--program", type=Path, required=True, help="program file (.npu), to which the signature is added"
    )


def sign(options: argparse.Namespace) -> int:
    """Store the golden model's answers to the self-test's images with a program, so that a board need not compute them."""
    program = Program.load(options.program)
    print(f"running the golden model on {program.name} ...", file=sys.stderr)
    crc = golden_signature(program)
    replace(program, metadata={**program.metadata, SIGNATURE: crc}).save(options.program)
    print(f"{options.program}: signature {crc:08x}")
    return 0
