"""Runs a cocotb bench under Verilator from a pytest function: builds once per set of sources and parameters, reports failures by name.

Environment: ``COCOTB_RANDOM_SEED`` repeats a run (a failure prints its seed), ``WAVEFORM`` names a file (.vcd, .fst) to record the
simulation in; ``sim.waves`` sets it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cocotb_tools.runner import get_runner

from hw.sources import BUILD, rtl_sources
from sim.toolchain import MAKE_VARIABLES, use_verilator

# Benches are small: compiling quickly beats running quickly. Uninitialised state is random.
BUILD_ARGS = ["--assert", "-Wno-fatal", "--x-assign", "unique", "--x-initial", "unique", "-O3"]
TRACE = "trace"
FIRST_RESET = 35_000
"""Picoseconds until ``sim.streams.start`` ends the first reset of a simulation."""
MAKE_OPTIONS = f"{MAKE_VARIABLES} OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1"


def run_bench(
    top: str,
    test_module: str,
    parameters: Mapping[str, int] | None = None,
    tests: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run the cocotb tests of ``test_module`` (all, or those of the names ``tests``, every variant) on RTL module ``top``.

    ``environment`` reaches the tests through ``os.environ``. Fails the calling pytest test with the names and messages of the cocotb
    tests that failed.
    """
    __tracebackhide__ = True
    waveform = _waveform()
    build_dir = _build(top, parameters or {}, waveform)
    seed = os.environ.get("COCOTB_RANDOM_SEED") or str(secrets.randbits(31))
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=build_dir))
    log, results = folder / "simulation.log", folder / "results.xml"
    print(f"{top}: COCOTB_RANDOM_SEED={seed}, log {log}")
    try:
        get_runner("verilator").test(
            test_module=test_module,
            hdl_toplevel=top,
            hdl_toplevel_lang="verilog",
            build_dir=build_dir,
            test_dir=folder,
            test_filter=_filter(tests),
            seed=seed,
            waves=waveform is not None,
            test_args=["--trace-file", str(folder / TRACE)] if waveform else [],
            plusargs=["+verilator+rand+reset+2", f"+verilator+seed+{seed}", "+verilator+error+limit+1000"],
            extra_env={
                "COCOTB_ANSI_OUTPUT": "0",
                "PYTHONWARNINGS": "ignore::DeprecationWarning",
                **(environment or {}),
            },
            results_xml=str(results),
            log_file=log,
        )
        stopped = ""
    except (RuntimeError, SystemExit) as error:
        stopped = f"the simulation stopped: {error}"
    if waveform and (folder / TRACE).is_file():
        waveform.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / TRACE, waveform)
    failures = _failures(results)
    if failures is None:
        failures = [f"{stopped or 'the simulation left no results'}\n{_tail(log)}"]
    failures = _rtl_errors(log) + failures
    if failures:
        what = "\n".join(failures)
        pytest.fail(
            f"{top} {dict(parameters or {})}: repeat with COCOTB_RANDOM_SEED={seed}; log: {log}\n{what}", pytrace=False
        )
    shutil.rmtree(folder)


def _waveform() -> Path | None:
    """Where to record the simulation, if at all. Raises ValueError for a format that Verilator cannot write."""
    name = os.environ.get("WAVEFORM")
    if name and not name.endswith((".vcd", ".fst")):
        raise ValueError(f"WAVEFORM={name}: the file must end in .vcd or .fst")
    return Path(name).resolve() if name else None


def _filter(tests: Sequence[str]) -> str | None:
    """A regular expression for cocotb's full names, ``module.name/parameter=value``."""
    return rf"\.({'|'.join(tests)})(/.*)?$" if tests else None


def _build(top: str, parameters: Mapping[str, int], waveform: Path | None = None) -> Path:
    """Build, or find, the simulator of ``top``, able to write ``waveform``. Returns its folder."""
    use_verilator()
    sources = rtl_sources(top)
    build_args = [*BUILD_ARGS, f"--trace-{waveform.suffix[1:]}", "--trace-structs"] if waveform else BUILD_ARGS
    tools = [version("verilator"), version("cocotb"), build_args, MAKE_OPTIONS]
    contents = [(source.name, source.read_bytes()) for source in sources]
    folder = BUILD / "sim" / f"{top}-{_digest(tools, contents, sorted(parameters.items()))}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    runtime = BUILD / "sim" / f"runtime-{_digest(tools)}"
    later = time.time() + 3600  # make compares with a makefile that is yet to be written
    for compiled in runtime.glob("*.o"):
        os.utime(shutil.copy(compiled, part), (later, later))
    log = part / "build.log"
    try:
        with _environment("MAKEFLAGS", MAKE_OPTIONS):
            get_runner("verilator").build(
                sources=sources,
                hdl_toplevel=top,
                parameters=parameters,
                build_args=build_args,
                build_dir=part,
                timescale=("1ns", "1ps"),
                waves=waveform is not None,
                log_file=log,
            )
        _keep_runtime(part, runtime)
        for left_over in part.iterdir():  # 150 MB for the whole NPU
            if left_over.name not in (top, log.name):
                left_over.unlink()
        _rename(part, folder)
    except (RuntimeError, SystemExit) as error:
        raise RuntimeError(f"Verilator could not build {top}: {error}\n{_tail(log)}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _keep_runtime(built: Path, runtime: Path) -> None:
    """Keep Verilator's own object files, four fifths of a small bench's compile time, for the next build."""
    if not runtime.is_dir():
        part = Path(tempfile.mkdtemp(prefix=f".{runtime.name}-", dir=runtime.parent))
        for compiled in built.glob("verilated*.o"):
            shutil.copy(compiled, part)
        _rename(part, runtime)


def _rename(part: Path, folder: Path) -> None:
    """Put a finished folder in its place, unless another process was faster."""
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(part)


def _digest(*parts: object) -> str:
    """A short name for what a build depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _failures(results: Path) -> list[str] | None:
    """One entry for each failed cocotb test, or None when the simulation did not come to its end."""
    if not results.is_file():
        return None
    try:
        cases = list(ElementTree.parse(results).getroot().iter("testcase"))
    except ElementTree.ParseError:
        return None
    if not cases:
        return ["no cocotb test ran"]
    failed = []
    for case in cases:
        for problem in [*case.iter("failure"), *case.iter("error")]:
            message = problem.get("message") or problem.get("error_msg") or (problem.text or "").strip()
            if message.startswith("cocotb expected it would shut down"):
                message = "the simulation ended before this test did"
            failed.append(f"{case.get('name')}: {message}")
    return failed


def _rtl_errors(log: Path) -> list[str]:
    """Failed assertions of the RTL, each with the cocotb test that ran. Until the first reset has ended, random state may offend them."""
    found, test = [], "before the first test"
    for line in log.read_text(errors="replace").splitlines() if log.is_file() else []:
        if match := re.search(r"running (\S+) \(\d+/\d+\)", line):
            test = match[1].removeprefix("sim.")
        if "%Error" in line:
            stamp = re.match(r"\[(\d+)\]", line)
            if stamp is None or int(stamp[1]) > FIRST_RESET:
                found.append(f"{test}: {line}")
    return found[:20]


def _tail(log: Path, lines: int = 40) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.is_file() else "(no log)"
