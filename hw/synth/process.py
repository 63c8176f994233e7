"""Runs one synthesis tool: its output into a log file, its phases into a progress bar, its own error line into the exception."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm


class SynthesisError(RuntimeError):
    """A synthesis tool failed; the message holds its own error lines and where the log is."""


def run_tool(
    title: str,
    command: Sequence[str | Path],
    log: Path,
    phases: Mapping[str, str],
    error: str = r"^ERROR\b.*",
    folder: Path | None = None,
    quiet: bool = False,
) -> None:
    """Run ``command`` to its end, in ``folder`` if one is given, its output into ``log``.

    ``phases`` maps the start of an output line (after a time in brackets, if there is one) to a name, in the order in which they come; the
    bar moves when one begins; ``quiet`` shows none. ``error`` is the pattern of the lines that say what went wrong. Raises SynthesisError
    when the tool cannot start or returns non-zero.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    ahead = list(phases)
    complaints: list[str] = []
    with (
        log.open("w", buffering=1) as sink,
        tqdm(
            total=len(phases),
            desc=title,
            unit="phase",
            bar_format="{desc}: {bar:20} {n}/{total} {elapsed}{postfix}",
            disable=quiet,
        ) as bar,
    ):
        try:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as failure:
            raise SynthesisError(f"{title}: cannot run {command[0]}: {failure}") from failure
        assert process.stdout is not None
        try:
            for line in process.stdout:
                sink.write(line)
                if re.match(error, line):
                    complaints.append(line.strip())
                text = re.sub(r"^\[[\d:]+\] ", "", line)
                begun = next((i for i, start in enumerate(ahead) if text.startswith(start)), None)
                if begun is not None:
                    bar.set_postfix_str(phases[ahead[begun]], refresh=False)
                    bar.update(begun + 1)
                    del ahead[: begun + 1]
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if status == 0:
            bar.set_postfix_str("", refresh=False)
            bar.update(len(ahead))
    if status:
        what = complaints or [f"exit status {status}", *log.read_text(errors="replace").splitlines()[-5:]]
        raise SynthesisError("\n".join([f"{title} failed, its log is {log}:", *what[-10:]]))
