"""Every proof holds on the RTL as it is, and finds each bug that is seeded into a copy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hw.formal.proofs import PROOFS, Bug, Proof
from hw.formal.prover import ProofError, find, kill_session, prove
from hw.sources import RTL

QUICK = [proof for proof in PROOFS if proof.quick]
SEEDED = [pytest.param(proof, bug, id=f"{proof.name}-{bug.name}") for proof in QUICK for bug in proof.bugs]


@pytest.mark.parametrize("proof", QUICK, ids=lambda proof: proof.name)
def test_holds(proof):
    verdict = prove(proof)
    assert verdict.holds, f"{verdict.violated}; the counterexample is {verdict.trace}"


@pytest.mark.parametrize(("proof", "bug"), SEEDED)
def test_finds_the_seeded_bug(proof, bug):
    verdict = find(proof, bug)
    assert not verdict.holds, f"{proof.name} did not notice: {bug.before} -> {bug.after}"
    assert "assert (" in verdict.violated
    assert verdict.trace is not None and "$enddefinitions" in verdict.trace.read_text()


def test_every_block_with_a_checker_has_seeded_bugs():
    checkers = {path.stem.removesuffix("_formal") for path in (RTL.parent / "formal").glob("*_formal.sv")}
    assert checkers == {proof.block for proof in PROOFS if proof.bugs}


def test_a_bug_that_does_not_apply_is_an_error():
    bug = Bug("nowhere", "this text is in no module", "")
    with pytest.raises(ProofError, match="stands 0 times in sync_fifo"):
        find(PROOFS[0], bug)


def test_a_proof_that_takes_too_long_is_an_error_and_leaves_no_process():
    hard = next(proof for proof in PROOFS if proof.block == "output_stage")
    wide = Proof("too-slow", hard.block, hard.claim, hard.engine, 40, {"ACC_BITS": 32}, seconds=3)
    with pytest.raises(ProofError, match="no answer within 3 s"):
        prove(wide)
    assert not [path for path in processes() if "too-slow" in working_folder(path)]


def test_a_broken_checker_is_an_error_not_a_counterexample():
    broken = Proof("broken", "sync_fifo", "", PROOFS[0].engine, parameters={"DEPTH": 0})
    with pytest.raises(ProofError, match="sby failed"):
        prove(broken)


def test_a_session_ends_with_everything_that_was_started_in_it(tmp_path):
    script = (
        "import os, subprocess, time\n"
        "subprocess.Popen(['sleep', '60'], preexec_fn=os.setpgrp)\n"
        "print('started', flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "started\n"
    assert len([path for path in processes() if working_folder(path) == str(tmp_path)]) == 2
    kill_session(process.pid)
    process.wait()
    assert not [path for path in processes() if working_folder(path) == str(tmp_path)]


def processes():
    return [path for path in Path("/proc").iterdir() if path.name.isdigit()]


def working_folder(process):
    try:
        return os.readlink(process / "cwd")
    except OSError:  # it has ended, or is somebody else's
        return ""
