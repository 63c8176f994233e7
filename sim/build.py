"""Builds the Verilated NPU of one configuration as a shared library, and keeps it until a source changes.

``python -m sim build --config sim-small``. The library stands under build/verilated, named by a hash of everything that goes into it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from hw.isa import ArrayConfig
from hw.sources import BUILD, ROOT, npu_parameters, rtl_sources
from sim.toolchain import MAKE_VARIABLES, use_verilator, verilator_root

CXX_SOURCES = [ROOT / "sim" / "npu_model.cpp"]
CXX_HEADERS = [ROOT / "sim" / "memory.h"]
CXX_FLAGS = "-fPIC -O2 -march=native -std=c++17"


class BuildError(RuntimeError):
    """Verilator or the C++ compiler failed; the message ends with what it said."""


def build_library(config: ArrayConfig) -> Path:
    """Path of the shared library for ``config``; builds it if it is not there. Raises BuildError."""
    sources = rtl_sources("npu")
    parameters = npu_parameters(config)  # boards with the same array share a build
    digest = hashlib.sha256(f"{parameters} {CXX_FLAGS} {version('verilator')}".encode())
    for path in [*sources, *CXX_SOURCES, *CXX_HEADERS, Path(__file__)]:
        digest.update(path.read_bytes())
    folder = BUILD / "verilated" / f"npu-{config.cp}x{config.kp}-{digest.hexdigest()[:12]}"
    library = folder / "libnpu.so"
    if library.is_file():
        return library

    use_verilator()
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part", dir=folder.parent))
    try:
        print(f"Verilating the NPU: {config.name}, {config.cp} x {config.kp} MACs", file=sys.stderr, flush=True)
        _run([*_verilator_command(parameters, work), *map(str, sources)], work)
        _make(work, config)
        (work / "parameters.txt").write_text(f"{parameters}\n")
        if folder.exists():  # somebody else was faster
            return library
        os.replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return library


def _verilator_command(parameters: dict[str, int], work: Path) -> list[str]:
    return [
        "verilator", "--cc", "--top-module", "npu", "--prefix", "Vnpu", "--Mdir", str(work), "-O3", "--assert",
        "--x-assign", "fast", "--x-initial", "unique", "--output-split", "20000", "-Wno-fatal",
        "-CFLAGS", CXX_FLAGS, *(f"-G{name}={value}" for name, value in parameters.items()),
    ]  # fmt: skip


def _make(work: Path, config: ArrayConfig) -> None:
    """Compile the generated C++ on all cores, with a progress bar, and link the library with our model."""
    make = [
        "make",
        "-C",
        str(work),
        "-f",
        "Vnpu.mk",
        MAKE_VARIABLES,
        "VM_PARALLEL_BUILDS=1",
        "OPT_FAST=-O2",
        "OPT_SLOW=-O1",
        "Vnpu__ALL.a",
        "libverilated.a",
    ]
    plan = _run([*make, "-n"], work)
    total = plan.count(" -c ")
    process = subprocess.Popen(
        [*make, f"-j{os.cpu_count() or 1}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    lines = []
    with tqdm(total=total, desc=f"compiling {config.name}", unit="file") as bar:
        for line in process.stdout:
            lines.append(line)
            bar.update(line.count(" -c "))
    if process.wait():
        raise BuildError(f"compiling the Verilated NPU failed in {work}:\n" + "".join(lines[-30:]))
    include = verilator_root() / "include"
    header = [f"-I{work}", f"-I{include}", f"-I{include / 'vltstd'}", f"-I{ROOT / 'sim'}"]
    header += [f"-DPORTS={config.ports}", f"-DPORT_BYTES={config.port_bytes}"]
    sources = [str(path) for path in CXX_SOURCES]
    archives = [str(work / "Vnpu__ALL.a"), str(work / "libverilated.a")]
    _run(
        ["g++", "-shared", "-o", str(work / "libnpu.so"), *CXX_FLAGS.split(), *header, *sources, *archives, "-pthread"],
        work,
    )


def _run(command: list[str], work: Path) -> str:
    """Run a tool; its output. Raises BuildError with the end of what it said."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is not installed (Debian: apt-get install g++ make)") from error
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise BuildError(f"{command[0]} failed in {work}:\n{tail}")
    return done.stdout
