"""A stock Triton server on this machine: the binary inside the wheel ``nvidia-pytriton``, in a virtual environment of its own.

Nothing of it enters Quarkwave's environment. ``install()`` takes a minute once and 53 MB of download; ``running(models)`` starts the
server on a model repository and gives its address. Models are Triton's Python backend: folders with a config.pbtxt and a model.py.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from own_environment import installed
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from hw.sources import ROOT

WHEEL = "nvidia-pytriton==0.7.0"
"""Triton 2.53 (24.12) for Linux on x86-64."""
START_SECONDS = 120.0
STARTS = 3
LOCK_LOST = "boost::interprocess::lock_exception"
STOP_SECONDS = 60.0


def install() -> Path:
    """The virtual environment with the server, made when it is not there yet; returns its folder.

    It holds Quarkwave too (without extras), so that a model may use the driver. Raises CalledProcessError when pip fails.
    """
    # The wheel's own dependencies are those of its Python front end, which is not used.
    return installed("stock-triton", ["--no-deps", WHEEL], ["--editable", str(ROOT)], finish=_put_stub)


def _put_stub(environment: Path) -> None:
    """The program that runs Python models, of this version of Python, to where the server looks for it."""
    server = _server(environment)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy2(stub, server / "backends" / "python" / stub.name)


def _server(environment: Path) -> Path:
    return next((environment / "lib").glob("python*")) / "site-packages" / "pytriton" / "tritonserver"


def _variables(environment: Path) -> dict[str, str]:
    """The environment's variables with the virtual environment activated: the Python backend's stub ignores PYTHONPATH."""
    libraries = Path(sys.base_prefix) / "lib"
    return {
        **os.environ,
        "VIRTUAL_ENV": str(environment),
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{libraries}{os.pathsep}{os.environ.get('LD_LIBRARY_PATH', '')}",
    }


@contextmanager
def running(models: Path, options: Iterable[str] = (), cores: Iterable[int] | None = None) -> Iterator[tuple[str, int]]:
    """The server with the model repository ``models``; yields "host:port" and the process id, once every model is ready.

    ``cores``: the CPUs it may use (default: all). Its log stands beside ``models``. Raises RuntimeError, with the log's end, when it does
    not come up.
    """
    environment = install()
    server = _server(environment)
    log, port = models.with_name(f"{models.name}.log"), free_port()
    command = [
        server / "bin" / "tritonserver",
        f"--model-repository={models}",
        f"--backend-directory={server / 'backends'}",
        f"--grpc-port={port}",
        "--allow-http=false",
        "--allow-metrics=false",
        "--grpc-address=127.0.0.1",
        *options,
    ]
    if cores is not None:
        command = ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]
    address = f"127.0.0.1:{port}"
    process = _started(list(map(str, command)), _variables(environment), address, log)
    try:
        yield address, process.pid
    finally:
        _stop(process)


def _started(command: list[str], variables: dict[str, str], address: str, log: Path) -> subprocess.Popen[bytes]:
    """The server's process, once it is ready. On a busy machine its Python backend may die of a lock that it waited for too long."""
    for attempt in count(1):
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=variables)
        try:
            _wait_until_ready(process, address, log)
        except BaseException:
            _stop(process)
            if attempt == STARTS or LOCK_LOST not in log.read_text():
                raise
        else:
            break
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    client = InferenceServerClient(address)
    deadline = time.monotonic() + START_SECONDS
    try:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if client.is_server_ready(client_timeout=5.0):
                    return
            except InferenceServerException:
                pass
            time.sleep(0.1)
    finally:
        client.close()
    end = "\n".join(log.read_text().splitlines()[-20:])
    raise RuntimeError(f"the stock Triton server did not come up; the end of {log}:\n{end}")


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now, below those that the kernel gives to outgoing connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
