"""What the FPGAs hold that an HLS project may be sized for.

Sources: AMD's product tables of UltraScale+ (DS890) and 7 series (DS180, DS190), of the Alveo cards (DS962, DS963, DS965, DS978) and of the
Kria K26 (DS987). Shells of the Alveo cards take some of it away; the figures here are the whole device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from hls.vitis.sizing import SizingError


@dataclass(frozen=True)
class Resources:
    """Counts of what an FPGA has, or of what a design takes of it. ``bram18``: block RAM of 18 kbit, two in a RAMB36."""

    dsp: int = 0
    bram18: int = 0
    uram: int = 0
    lut: int = 0
    ff: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def shares(self, whole: Resources) -> dict[str, float]:
        """Share of ``whole`` that each takes; infinite for what is needed but not there."""
        pairs = {f.name: (getattr(self, f.name), getattr(whole, f.name)) for f in fields(self)}
        return {name: (need / have if have else float("inf")) if need else 0.0 for name, (need, have) in pairs.items()}


LABELS = {"dsp": "DSP", "bram18": "block RAM (18 kbit)", "uram": "UltraRAM", "lut": "LUT", "ff": "flip-flops"}
"""How reports call them."""

PARTS: Mapping[str, Resources] = {
    "xcvu9p": Resources(6840, 4320, 960, 1182240, 2364480),
    "xcvu13p": Resources(12288, 5376, 1280, 1728000, 3456000),
    "xcu50": Resources(5952, 2688, 640, 871680, 1743360),
    "xcu55c": Resources(9024, 4032, 960, 1303680, 2607360),
    "xcu200": Resources(6840, 4320, 960, 1182240, 2364480),
    "xcu250": Resources(12288, 5376, 1280, 1728000, 3456000),
    "xcu280": Resources(9024, 4032, 960, 1303680, 2607360),
    "xck26": Resources(1248, 288, 64, 117120, 234240),
    "xczu3eg": Resources(360, 432, 0, 70560, 141120),
    "xczu7ev": Resources(1728, 624, 96, 230400, 460800),
    "xczu9eg": Resources(2520, 1824, 0, 274080, 548160),
    "xc7z020": Resources(220, 280, 0, 53200, 106400),
}
"""By device: what stands before the first dash of a part's name (before the package in a 7 series part)."""


def find_part(part: str) -> Resources:
    """What ``part`` holds: ``xcu250-figd2104-2L-e``, ``xc7z020clg400-1``. Raises SizingError for one that is not known."""
    device = part.lower().partition("-")[0]
    for name, resources in PARTS.items():
        if device == name or (name.startswith("xc7") and device.startswith(name)):
            return resources
    raise SizingError(f"part {part!r} is not known; known devices: {', '.join(PARTS)} (add it to hls/vitis/parts.py)")
