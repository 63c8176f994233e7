"""Virtual environments of their own under build/, for programs whose packages do not fit beside Quarkwave's."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hw.sources import BUILD


def installed(name: str, *installs: Sequence[str], finish: Callable[[Path], None] = lambda environment: None) -> Path:
    """The folder of the virtual environment ``name``, made when it is not there yet.

    ``installs``: what `uv pip install` is told, one call after the other; ``finish`` gets the folder when they are done. Of several
    processes that ask at once, one makes it and the others wait; one left unfinished is made anew. Raises CalledProcessError when
    uv fails.
    """
    digest = hashlib.sha256(repr((sys.version, installs)).encode()).hexdigest()[:12]
    environment = BUILD / f"{name}-{digest}"
    marker = environment / ".installed"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{name}-{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.is_file():
            print(f"installing {name} in {environment}", file=sys.stderr)
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment], check=True)
            target = ["--quiet", "--system-certs", "--python", str(environment / "bin" / "python")]
            for install in installs:
                subprocess.run([*uv, "pip", "install", *target, *install], check=True)
            finish(environment)
            marker.touch()
    return environment
