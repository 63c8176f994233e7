"""The generator of quarkwave-npu.core: gives FuseSoC the RTL that is generated. FuseSoC runs it by its path, with a file of parameters."""

from __future__ import annotations

import sys
from pathlib import Path

from fusesoc.capi2.generator import Generator


def main() -> None:
    """Write the generated sources and a core that lists them into the current folder."""
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the project's folder instead of this one
    from hw.sources import generated_sources

    # Later runs shall not take what this one makes for one more core of the project.
    Path("..", "FUSESOC_IGNORE").touch()
    generator = Generator()
    files = [path.name for path in generated_sources(Path.cwd())]
    generator.add_files(files, file_type="systemVerilogSource")
    generator.write()


if __name__ == "__main__":
    main()
