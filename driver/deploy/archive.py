"""Archives that are the same bytes whenever their contents are: a .tar.gz with a manifest, and .npz files."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MANIFEST = "MANIFEST"
"""Facts as comments, then a line for each file, as ``sha256sum --check`` reads them (it passes over lines that begin with #)."""
EXECUTABLE = (".sh", "serve")
"""Ends of the names of files that are run."""
MOMENT = 315_532_800
"""Seconds since 1970 of 1 January 1980, the first moment that a zip file can express: every file's time."""


def npz_bytes(arrays: Mapping[str, NDArray]) -> bytes:
    """An .npz of ``arrays``, for np.load. np.savez would write the time of day into it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            array = io.BytesIO()
            np.lib.format.write_array(array, np.asanyarray(arrays[name]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue(), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def manifest_text(facts: Mapping[str, str], files: Mapping[str, bytes]) -> str:
    """The manifest of ``files``: name -> bytes."""
    lines = ["# What this archive holds. To check it: sha256sum --check MANIFEST"]
    lines += [f"# {key}: {value}" for key, value in facts.items()]
    lines += [f"{hashlib.sha256(data).hexdigest()}  {name}" for name, data in sorted(files.items())]
    return "\n".join(lines) + "\n"


def read_facts(manifest: str) -> dict[str, str]:
    """The facts of a manifest's text."""
    rows = (line[2:].partition(": ") for line in manifest.splitlines()[1:] if line.startswith("# "))
    return {key: value for key, _, value in rows}


def read_facts_of(path: Path) -> dict[str, str]:
    """The facts of an archive's manifest."""
    with tarfile.open(path) as archive:
        member = archive.extractfile(next(name for name in archive.getnames() if name.endswith(f"/{MANIFEST}")))
        assert member is not None
        return read_facts(member.read().decode())


def write_archive(path: Path, top: str, facts: Mapping[str, str], files: Mapping[str, bytes]) -> Path:
    """Write ``path``, a .tar.gz of ``files`` and their manifest in the folder ``top``, whole or not at all. Returns it."""
    contents = {**files, MANIFEST: manifest_text(facts, files).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        with (
            part.open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=MOMENT) as packed,
            tarfile.open(mode="w", fileobj=packed, format=tarfile.USTAR_FORMAT) as archive,
        ):
            for name, data in sorted(contents.items()):
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size, entry.mtime = len(data), MOMENT
                entry.mode = 0o755 if name.endswith(EXECUTABLE) else 0o644
                archive.addfile(entry, io.BytesIO(data))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
