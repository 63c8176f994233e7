"""System shared memory (Triton's extension): a client on this machine leaves tensors in POSIX shared memory and sends names.

Regions are files of /dev/shm that the client has made; the service opens them and never makes, grows or removes one. It reads and writes
them as files: a mapping would kill the service when a client shrinks its file meanwhile.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from io import FileIO

import grpc

from host_service.errors import RequestError

FOLDER = "/dev/shm"


@dataclass(frozen=True)
class Region:
    """A registered part of a shared memory object: ``byte_size`` bytes from ``offset``."""

    name: str
    key: str
    offset: int
    byte_size: int
    file: FileIO = field(repr=False)

    def read(self, offset: int, byte_size: int) -> bytes:
        """``byte_size`` bytes from ``offset`` in the region. Raises RequestError when they lie outside."""
        self._check(offset, byte_size)
        data = os.pread(self.file.fileno(), byte_size, self.offset + offset)
        if len(data) != byte_size:
            raise RequestError(f"the shared memory {self.key!r} has become shorter than its region {self.name!r}")
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Put ``data`` at ``offset`` in the region. Raises RequestError when that lies outside."""
        self._check(offset, len(data))
        if os.fstat(self.file.fileno()).st_size < self.offset + self.byte_size:
            raise RequestError(f"the shared memory {self.key!r} has become shorter than its region {self.name!r}")
        os.pwrite(self.file.fileno(), data, self.offset + offset)

    def _check(self, offset: int, byte_size: int) -> None:
        if not 0 <= offset <= offset + byte_size <= self.byte_size:
            raise RequestError(
                f"shared memory region {self.name!r} has {self.byte_size} bytes, not {byte_size} from byte {offset}"
            )


class SharedMemory:
    """The regions that clients have registered, by name."""

    def __init__(self) -> None:
        self.regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a region. Raises RequestError, with what is wrong."""
        if not name:
            raise RequestError("a shared memory region needs a name")
        if name in self.regions:
            text = f"shared memory region {name!r} is registered already: unregister it first"
            raise RequestError(text, grpc.StatusCode.ALREADY_EXISTS)
        plain = key.removeprefix("/")
        if not plain or "/" in plain or "\0" in plain or plain in (".", ".."):
            raise RequestError(f"{key!r} is no key of shared memory: write a name like /tensors")
        try:
            file = FileIO(os.open(f"{FOLDER}/{plain}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW), "r+")
        except OSError as error:
            raise RequestError(f"cannot open the shared memory {key!r}: {error.strerror}") from None
        size = os.fstat(file.fileno()).st_size
        if byte_size < 1 or offset + byte_size > size:
            file.close()
            raise RequestError(
                f"the shared memory {key!r} has {size} bytes: {byte_size} from byte {offset} are not in it"
            )
        self.regions[name] = Region(name, key, offset, byte_size, file)

    def unregister(self, name: str) -> None:
        """Forget a region, or all when ``name`` is empty; one that is not there is fine. The file itself stays."""
        for region in [self.regions.pop(name, None)] if name else list(self.regions.values()):
            if region is not None:
                region.file.close()
        if not name:
            self.regions.clear()

    def find(self, name: str) -> Region:
        """A registered region. Raises RequestError."""
        if name not in self.regions:
            raise RequestError(f"there is no shared memory region {name!r}: register it first")
        return self.regions[name]
