"""Small programs in the places of the vendors' tools."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

PROGRAM = """#!{python}
import json, pathlib, sys
told = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
if any(word in sys.argv for word in ("-version", "--version")):
    print(told["version"])
    sys.exit(0)
pathlib.Path("arguments.json").write_text(json.dumps(sys.argv[1:]))
print(told["says"])
for name, text in told["files"].get(pathlib.Path.cwd().name, told["files"][""]).items():
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
sys.exit(told["exit"])
"""


class Tools:
    """A folder on the PATH with programs in the tools' places."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        name: str,
        files: Mapping[str, str],
        *,
        version: str = "v2023.2",
        says: str = "",
        code: int = 0,
        in_folders: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """A program that says its version, or writes ``files`` into its working folder and ends with ``code``.

        ``in_folders``: other files for working folders of these names.
        """
        program = self.folder / name
        program.write_text(PROGRAM.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        told = {
            "version": f"{name} {version} (64-bit)\nSW Build 4029153",
            "says": says,
            "files": {"": dict(files), **{folder: dict(texts) for folder, texts in (in_folders or {}).items()}},
            "exit": code,
        }
        program.with_suffix(".json").write_text(json.dumps(told))
