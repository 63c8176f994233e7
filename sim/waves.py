"""Records a bench's simulation as a waveform. Run: ``python -m sim waves BENCH``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hw.sources import BUILD, ROOT

BENCHES = ROOT / "sim"
WAVES = BUILD / "waves"
VIEWERS = ("surfer", "gtkwave")


class WavesError(RuntimeError):
    """There is no such bench, or it left no waveform."""


def known_benches() -> list[str]:
    """The names of the benches: ``sim/test_<name>.py``."""
    return sorted(path.stem.removeprefix("test_") for path in BENCHES.glob("test_*.py"))


def record(bench: str, only: str | None = None) -> tuple[Path, bool]:
    """Run a bench and record it. Returns the waveform and whether the bench passed: of one that fails, the waveform is wanted most.

    ``bench`` is ``sync_fifo``, ``sim/test_sync_fifo.py``, or that with one of its variants, ``sim/test_sync_fifo.py::test_sync_fifo[8-2]``;
    without one, it is the first. ``only`` is a regular expression for the names of the cocotb tests to run: all those of
    a big block fill gigabytes of VCD. Raises WavesError.
    """
    file, _, variant = bench.partition("::")
    name = Path(file).stem.removeprefix("test_")
    if name not in known_benches():
        raise WavesError(f"there is no bench {bench!r}; there are: {', '.join(known_benches())}")
    path = f"{BENCHES.name}/test_{name}.py"
    node = f"{path}::{variant}" if variant else _variants(path)[0]
    if variant and node not in _variants(path):
        raise WavesError(f"{path} has no variant {variant!r}; there are: {', '.join(_variants(path))}")
    waveform = WAVES / f"{name}.{waveform_format()}"
    waveform.unlink(missing_ok=True)
    environment = {"WAVEFORM": str(waveform), **({"COCOTB_TEST_FILTER": only} if only else {})}
    done = _pytest(["--override-ini=addopts=", "-q", "--timeout=0", node], environment)
    if not waveform.is_file():
        raise WavesError(f"{node} left no waveform; what pytest says stands above")
    return waveform, done.returncode == 0


def waveform_format() -> str:
    """``fst``, a hundredth of the size, where the headers of lz4 and zlib are installed; otherwise ``vcd``."""
    compiler = os.environ.get("CXX", "g++")
    source = "#include <lz4.h>\n#include <zlib.h>\n"
    probe = subprocess.run(
        [compiler, "-E", "-x", "c++", "-"], input=source, text=True, capture_output=True, check=False
    )
    return "fst" if probe.returncode == 0 else "vcd"


def find_viewer() -> str | None:
    """The first waveform viewer on the PATH."""
    return next((found for viewer in VIEWERS if (found := shutil.which(viewer))), None)


def show(waveform: Path) -> str:
    """Open the waveform in a viewer that stays when this process ends. Returns a sentence that says what happened."""
    if viewer := find_viewer():
        subprocess.Popen([viewer, str(waveform)], start_new_session=True)
        return f"{waveform}: opened in {Path(viewer).name}"
    return f"{waveform}: no viewer on the PATH; {' and '.join(VIEWERS)} open it"


def _variants(path: str) -> list[str]:
    """The pytest node ids of a bench."""
    listed = _pytest(["--override-ini=addopts=", "--collect-only", "-q", path], {}, capture=True)
    found = [line for line in listed.stdout.splitlines() if line.startswith(f"{path}::")]
    if not found:
        raise WavesError(f"{path} has no bench that pytest can collect:\n{listed.stdout}")
    return found


def _pytest(
    arguments: list[str], environment: dict[str, str], capture: bool = False
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE if capture else None,
        check=False,
    )
