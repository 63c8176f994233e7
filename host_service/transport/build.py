"""Compiles ``grpcpp_server.cpp`` where gRPC's C++ library is installed, and keeps the result until the source changes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from hw.sources import BUILD

SOURCE = Path(__file__).with_name("grpcpp_server.cpp")
FLAGS = ["-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-Wall", "-Wextra"]
LIBRARIES = ["-lgrpc++", "-lgrpc", "-lgpr"]
PACKAGES = "apt-get install g++ libgrpc++-dev"
"""What brings all it needs, on Debian and Ubuntu."""

POINTER, TEXT, SIZE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
FUNCTIONS: dict[str, tuple[type | None, list[type]]] = {
    "qw_server": (POINTER, [ctypes.c_int]),
    "qw_start": (ctypes.c_int, [POINTER, TEXT, TEXT, TEXT, TEXT]),
    "qw_signal": (ctypes.c_int, [POINTER]),
    "qw_take": (SIZE, [POINTER, TEXT, SIZE]),
    "qw_stop": (None, [POINTER, ctypes.c_double]),
    "qw_free": (None, [POINTER]),
    "qw_method": (TEXT, [POINTER]),
    "qw_seconds_left": (ctypes.c_double, [POINTER]),
    "qw_headers": (SIZE, [POINTER, TEXT, SIZE]),
    "qw_copy": (ctypes.c_int, [POINTER, SIZE, POINTER, SIZE]),
    "qw_split": (ctypes.c_int, [POINTER, ctypes.c_uint32, POINTER, POINTER, POINTER, ctypes.c_int]),
    "qw_quantise": (ctypes.c_int, [POINTER, SIZE, SIZE, ctypes.c_float, ctypes.c_float, POINTER]),
    "qw_forget": (None, [POINTER]),
    "qw_next": (None, [POINTER]),
    "qw_write": (None, [POINTER, TEXT, SIZE]),
    "qw_trailer": (None, [POINTER, TEXT, TEXT]),
    "qw_finish": (None, [POINTER, TEXT, SIZE, ctypes.c_int, TEXT]),
    "qw_release": (None, [POINTER]),
}
"""Result and arguments of what the library offers."""


class TransportBuildError(RuntimeError):
    """The library cannot be had here; the message says why and what to install."""


@cache
def library() -> ctypes.CDLL:
    """The library, compiled if it is not there (20 s). Raises TransportBuildError."""
    found = ctypes.CDLL(str(_compiled()))
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


def _compiled() -> Path:
    digest = hashlib.sha256(SOURCE.read_bytes() + repr((FLAGS, LIBRARIES, platform.machine())).encode()).hexdigest()
    path = BUILD / "transport" / f"libgrpcpp_server-{digest[:12]}.so"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        command = ["g++", *FLAGS, "-o", str(part), str(SOURCE), *LIBRARIES]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        except FileNotFoundError:
            raise TransportBuildError(f"there is no g++ (Debian: {PACKAGES})") from None
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[:20])
            raise TransportBuildError(f"{SOURCE.name} does not compile (Debian: {PACKAGES}):\n{tail}")
        os.replace(part, path)  # whole, even when several processes compile at once
    return path
