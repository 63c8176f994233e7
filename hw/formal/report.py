"""Runs the proofs one after the other and prints a table: what holds, how far, how long it took, which seeded bugs were found."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tqdm import tqdm

from hw.formal.proofs import PROOFS, Bug, Proof
from hw.formal.prover import ProofError, find, prove


def run_proofs(names: Sequence[str] = (), listing: bool = False, bugs: bool = True) -> int:
    """Run the proofs ``names`` (all if there are none). Returns the exit code: 0 all is well, 1 something is not, 2 no such proof."""
    known = {proof.name: proof for proof in PROOFS}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"python -m hw formal: no proof {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    proofs = [known[name] for name in names] or list(PROOFS)
    if listing:
        for proof in proofs:
            print(f"{proof.name:24} {proof.bound}, {len(proof.bugs)} seeded bugs\n    {proof.claim}")
        return 0

    steps = [(proof, bug) for proof in proofs for bug in (None, *(proof.bugs if bugs else ()))]
    failures = 0
    with tqdm(steps, desc="proving", unit="run") as bar:
        for proof, bug in bar:
            bar.set_postfix_str(f"{proof.name} {bug.name if bug else ''}", refresh=True)
            well, line = _step(proof, bug)
            failures += not well
            bar.write(line, file=sys.stdout)
    print(f"{len(steps) - failures} of {len(steps)} as they should be")
    return 1 if failures else 0


def _step(proof: Proof, bug: Bug | None) -> tuple[bool, str]:
    """One proof, or one search for a seeded bug: is it as it should be, and a line about it."""
    title = proof.name if bug is None else f"  bug {bug.name}"
    try:
        verdict = prove(proof) if bug is None else find(proof, bug)
    except ProofError as error:
        return False, f"{title:32} ERROR   {error}"
    if bug is None:
        answer = f"holds   {proof.bound}" if verdict.holds else f"FAILS   {verdict.violated}; see {verdict.trace}"
    else:
        answer = "MISSED" if verdict.holds else f"found   {verdict.violated}"
    return verdict.holds == (bug is None), f"{title:32} {verdict.seconds:5.1f} s  {answer}"
