"""``vectors.json``: CRC-32 of image and right result of each vector of ``driver.selftest.layers``, for every array in hw/boards.

The vectors themselves are made from their seeds wherever the test runs, so that they fit any array. These values say that this computer
made them, and the golden model their results, as they were when the release was tested. ``python -m driver.selftest.vectors`` writes them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tqdm import tqdm

from driver.selftest.bench import Bench
from driver.selftest.findings import CheckError, NotApplicableError, Seen
from driver.selftest.layers import KINDS
from hw.board import board_names
from hw.isa import ArrayConfig, load_config

FILE = Path(__file__).with_name("vectors.json")


def key(config: ArrayConfig) -> str:
    """What the results depend on."""
    return f"{config.cp}x{config.kp}"


def stored() -> dict[str, dict[str, int]]:
    """CRC by array and kind."""
    values: dict[str, dict[str, int]] = json.loads(FILE.read_text())
    return values


def computed() -> dict[str, dict[str, int]]:
    """The same, computed."""
    configs = {key(config): config for config in map(load_config, board_names())}
    return {
        name: {kind.name: kind.vector(config).crc for kind in KINDS}
        for name, config in tqdm(sorted(configs.items()), unit="array", disable=None)
    }


def reference(bench: Bench) -> Seen:
    """This computer's golden model gives the results that the release was tested with."""
    values = stored().get(key(bench.array))
    if values is None:
        raise NotApplicableError(
            f"no check values for an array of {key(bench.array)}; the vectors are compared with the golden model"
        )
    wrong = [kind.name for kind in KINDS if kind.vector(bench.array).crc != values.get(kind.name)]
    if wrong:
        raise CheckError(
            f"the golden model on this computer is wrong on {', '.join(wrong)}",
            "this computer or its software, not the NPU: install the release again (and the NumPy that it asks for)",
        )
    return Seen(f"{len(values)} results of the golden model, as released")


def main() -> int:
    """Write vectors.json again."""
    part = FILE.with_name(f"{FILE.name}.part{os.getpid()}")
    try:
        part.write_text(json.dumps(computed(), indent=1, sort_keys=True) + "\n")
        os.replace(part, FILE)
    finally:
        part.unlink(missing_ok=True)
    print(f"wrote {FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
