"""``grpcpp_server.cpp``, compiled where gRPC's C++ library is installed."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from hw.native import load_library

SOURCE = Path(__file__).with_name("grpcpp_server.cpp")
LIBRARIES = ["-lgrpc++", "-lgrpc", "-lgpr"]
PACKAGES = "g++ libgrpc++-dev"
POINTER, TEXT, SIZE, INT, FLOAT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_float
FUNCTIONS: dict[str, tuple[type | None, list[type]]] = {
    "qw_server": (POINTER, [INT]),
    "qw_start": (INT, [POINTER, TEXT, TEXT, TEXT, TEXT]),
    "qw_signal": (INT, [POINTER]),
    "qw_take": (SIZE, [POINTER, TEXT, SIZE]),
    "qw_stop": (None, [POINTER, ctypes.c_double]),
    "qw_finish_events": (None, [POINTER]),
    "qw_free": (None, [POINTER]),
    "qw_method": (TEXT, [POINTER]),
    "qw_headers": (SIZE, [POINTER, TEXT, SIZE]),
    "qw_message_free": (None, [POINTER]),
    "qw_copy": (INT, [POINTER, SIZE, POINTER, SIZE]),
    "qw_split": (INT, [POINTER, ctypes.c_uint32, POINTER, POINTER, POINTER, INT]),
    "qw_quantise": (INT, [POINTER, SIZE, SIZE, FLOAT, FLOAT, POINTER]),
    "qw_next": (None, [POINTER]),
    "qw_write": (None, [POINTER, TEXT, SIZE]),
    "qw_trailer": (None, [POINTER, TEXT, TEXT]),
    "qw_answer": (None, [POINTER, TEXT, SIZE]),
    "qw_send": (None, [POINTER]),
    "qw_finish": (None, [POINTER, INT, TEXT]),
    "qw_release": (None, [POINTER]),
}
"""Result and arguments of what the library offers."""


@cache
def library() -> ctypes.CDLL:
    """The library; compiled if it is not there (20 s). Raises NativeBuildError."""
    return load_library(SOURCE, FUNCTIONS, LIBRARIES, PACKAGES)
