"""Compiles C++ sources of ours into shared libraries, with the machine's own g++, and keeps each until its source or flags change."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hw.sources import BUILD

FLAGS = ["-O3", "-std=c++17", "-fPIC", "-shared", "-Wall", "-Wextra"]
TUNED = ["-march=native"]
"""For the very processor, where the compiler knows how: on some ARM it does not."""
CPU_FACTS = {"vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features"}
"""Lines of /proc/cpuinfo that tell processors apart which run different instructions."""


class NativeBuildError(RuntimeError):
    """A library cannot be had on this machine; the message says why and what would help."""


def load_library(
    source: Path,
    functions: Mapping[str, tuple[type | None, Sequence[type]]],
    libraries: Sequence[str] = (),
    packages: str = "g++",
) -> ctypes.CDLL:
    """The library made of ``source``, a file that includes none of ours; compiled if it is not there.

    ``functions``: result and arguments of those that are called. ``libraries``: what the linker is told, such as "-lgrpc++".
    ``packages``: what brings all that is needed, on Debian and Ubuntu. Raises NativeBuildError.
    """
    recipe = repr((source.read_bytes(), FLAGS, TUNED, list(libraries), _processor()))
    name = f"lib{source.stem}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.so"
    path = BUILD / "native" / name
    with suppress(OSError):  # not there, cut short by a power failure, or linked with a library that has gone
        return _opened(path, functions)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / name
            _compile(source, part, libraries, packages)
            os.replace(part, path)  # whole, even when several processes compile at once
    except OSError as error:
        raise NativeBuildError(
            f"{source.name} cannot be compiled into {path.parent} ({error}): QUARKWAVE_BUILD names another folder"
        ) from None
    try:
        return _opened(path, functions)
    except OSError as error:
        raise NativeBuildError(f"what {source.name} was compiled to cannot be loaded: {error}") from None


def _processor() -> list[str]:
    """What decides which instructions the compiler may use."""
    lines: set[str] = set()
    with suppress(OSError):
        lines.update(Path("/proc/cpuinfo").read_text().splitlines())
    return [platform.machine(), *sorted(line for line in lines if line.partition(":")[0].strip() in CPU_FACTS)]


def _opened(path: Path, functions: Mapping[str, tuple[type | None, Sequence[type]]]) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _compile(source: Path, out: Path, libraries: Sequence[str], packages: str) -> None:
    hint = f"Debian: apt-get install {packages}"
    if shutil.which("g++") is None:
        raise NativeBuildError(f"there is no g++ to compile {source.name} with ({hint})")
    for tuned in (TUNED, []):
        command = ["g++", *FLAGS, *tuned, "-o", str(out), str(source), *libraries]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
        )
        if not done.returncode:
            return
    head = "\n".join(done.stdout.splitlines()[:20])
    raise NativeBuildError(f"{source.name} does not compile ({hint}):\n{head}")
