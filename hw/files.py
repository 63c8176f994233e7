"""Writes generated files: whole or not at all, and only when their text changed, so that builds notice only real changes."""

from __future__ import annotations

import os
from pathlib import Path


def write_if_changed(path: Path, text: str) -> Path:
    """Make ``path`` hold ``text``, and its folder if there is none. Returns ``path``."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part{os.getpid()}")
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    return path
