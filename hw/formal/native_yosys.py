"""The yosys command line that sby needs (``-ql LOG SCRIPT``) on pyosys, the native library: faster than the WebAssembly build."""

from __future__ import annotations

import argparse
import sys


def main() -> None:
    """Run a yosys script and write its log."""
    parser = argparse.ArgumentParser(prog="python native_yosys.py", description=__doc__)
    parser.add_argument("-q", action="store_true", help="as of yosys; the output goes to the log alone")
    parser.add_argument("-l", metavar="LOG", required=True, help="where the output goes")
    parser.add_argument("script")
    arguments = parser.parse_args()

    from pyosys import libyosys

    try:
        libyosys.run_pass(f"tee -q -o {arguments.l} script {arguments.script}", libyosys.Design())
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
