"""The servers that the service's benchmark compares, each a process of its own: ours, and a stock Triton on the same timed device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import stock_triton

from hw.sources import BUILD, ROOT

SIZE, FEATURES = 224, 2048
"""ResNet-50: image edge and features."""
MODEL = "featurizer"
TIMED_MODEL = Path(__file__).parent / "triton_models" / "timed"
CONFIG = """\
backend: "python"
max_batch_size: 64
input [ {{ name: "image" data_type: TYPE_FP32 dims: [ {size}, {size}, 3 ] }} ]
output [ {{ name: "features" data_type: TYPE_FP32 dims: [ {features} ] }} ]
instance_group [ {{ kind: KIND_CPU count: {instances} }} ]
parameters [
  {{ key: "device_ms" value: {{ string_value: "{ms:g}" }} }},
  {{ key: "lock" value: {{ string_value: "{lock}" }} }}
]
"""


DRIVER_MODEL = ROOT / "host_service" / "deploy" / "triton" / MODEL
DRIVER_CONFIG = """\
backend: "python"
max_batch_size: 64
parameters [
  {{ key: "device" value: {{ string_value: "{device}" }} }},
  {{ key: "datatype" value: {{ string_value: "FP32" }} }}
]
"""


@dataclass(frozen=True)
class Server:
    """One that runs."""

    address: str
    pid: int

    def cpu_seconds(self) -> float:
        """CPU time that the process and all its descendants have taken so far."""
        process = psutil.Process(self.pid)
        times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
        return float(sum(t.user + t.system for t in times))


@contextmanager
def quarkwave(
    program: Path,
    device: str,
    cores: tuple[int, ...],
    log: Path,
    classifier: Path | None = None,
    transport: str = "auto",
    sources: Path = ROOT,
) -> Iterator[Server]:
    """Our service on ``program`` with its default settings; ``device`` and ``transport`` as on its command line. See serving()."""
    options: list[object] = ["--device", device, "--transport", transport]
    if classifier:
        options += ["--classifier", classifier]
    with serving(["--program", program, *options], log, cores, sources=sources) as server:
        yield server


def sources_at(revision: str, folder: Path) -> Path:
    """Our sources as they were at a git revision, written to ``folder``, which is made anew; returns it. Raises ValueError."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", ROOT, "archive", "--format=tar", revision], capture_output=True, check=False)
    if archive.returncode:
        raise ValueError(f"there is no revision {revision!r}: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


@contextmanager
def serving(
    arguments: Sequence[object], log: Path, cores: tuple[int, ...] = (), port: int = 0, sources: Path = ROOT
) -> Iterator[Server]:
    """``python -m host_service serve`` with ``arguments``; what it writes goes to ``log``, but for the line that says its address.

    ``sources``: the folder whose service it is. Raises RuntimeError, with the end of the log, when it does not come up.
    """
    command = [sys.executable, "-m", "host_service", "serve", "--port", str(port), *map(str, arguments)]
    with log.open("w") as errors:
        process = subprocess.Popen(
            pinned(command, cores),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=sources,
            env=os.environ | {"QUARKWAVE_BUILD": str(BUILD)},
        )
    try:
        assert process.stdout
        line = process.stdout.readline()
        if not line.startswith("serving"):
            raise RuntimeError(f"the service did not come up ({line!r}); the end of {log}:\n{log.read_text()[-2000:]}")
        yield Server(line.split()[-1], process.pid)
    finally:
        process.terminate()
        try:
            process.wait(stock_triton.STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


@contextmanager
def triton(folder: Path, ms: float, instances: int, cores: tuple[int, ...]) -> Iterator[Server]:
    """A stock Triton whose Python model sleeps ``ms`` an image; several ``instances`` share the one device by a lock.

    ``folder`` is made anew for its model repository.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TIMED_MODEL, folder / MODEL)
    lock = folder.with_name(f"{folder.name}.lock") if instances > 1 else ""
    config = CONFIG.format(size=SIZE, features=FEATURES, instances=instances, ms=ms, lock=lock)
    (folder / MODEL / "config.pbtxt").write_text(config)
    with stock_triton.running(folder, cores=cores or None) as (address, pid):
        yield Server(address, pid)


@contextmanager
def triton_with_driver(folder: Path, program: Path, device: str, cores: tuple[int, ...]) -> Iterator[Server]:
    """A stock Triton that runs our driver in its Python model, so that it does with an image what our service does with it.

    ``folder`` is made anew for its model repository.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DRIVER_MODEL, folder / MODEL)
    (folder / MODEL / "config.pbtxt").write_text(DRIVER_CONFIG.format(device=device))
    shutil.copy2(program, folder / MODEL / "1" / "program.npu")
    with stock_triton.running(folder, cores=cores or None) as (address, pid):
        yield Server(address, pid)


def pinned(command: list[str], cores: tuple[int, ...]) -> list[str]:
    """``command`` on ``cores`` only (none: wherever it likes)."""
    return ["taskset", "--cpu-list", ",".join(map(str, cores)), *command] if cores else command
