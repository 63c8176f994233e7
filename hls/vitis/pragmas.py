"""Tell Vitis HLS to build shallow FIFOs of shift registers.

Left to itself it takes block RAM for every FIFO of more than 1,024 bits, and a stream of hls4ml is as wide as a pixel with all its
channels: a depth of 16 fills a 64th of the blocks it takes. UG1399, "pragma HLS bind_storage".
"""

from __future__ import annotations

import re
from pathlib import Path

from hls.vitis.estimate import SHIFT_REGISTER_WORDS
from hw.files import write_if_changed

STREAM = re.compile(r"^(?P<space>\s*)#pragma HLS STREAM variable=(?P<name>\w+) depth=(?P<depth>\d+)$", re.MULTILINE)


def bind_shallow_fifos(project: Path) -> int:
    """Add the pragmas to the top function of a written project; a second time does nothing. Returns how many FIFOs are bound."""
    bound = 0
    for source in sorted((project / "firmware").glob("*.cpp")):
        text = source.read_text()
        lines: list[str] = []
        for line in text.splitlines():
            if "#pragma HLS BIND_STORAGE" in line:
                continue
            lines.append(line)
            match = STREAM.match(line)
            if match and 2 < int(match["depth"]) <= SHIFT_REGISTER_WORDS:
                lines.append(f"{match['space']}#pragma HLS BIND_STORAGE variable={match['name']} type=FIFO impl=SRL")
                bound += 1
        write_if_changed(source, "\n".join(lines) + "\n")
    return bound
