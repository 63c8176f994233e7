"""What hls4ml 1.3.0's written project needs before its C simulation runs a ResNet.

The streaming pool computes overlapping windows (3x3 with stride 2) rightly, but asserts that there are none. hls4ml copies its own
header over any source that a user registers, so the assertion is taken out of the written project.
"""

from __future__ import annotations

import os
from pathlib import Path

POOLING = Path("firmware/nnet_utils/nnet_pooling_stream.h")
ASSERTION = (
    "assert(CONFIG_T::pool_height == CONFIG_T::stride_height && CONFIG_T::pool_width == CONFIG_T::stride_width);"
)
FUNCTION = "void pooling2d_cl("


class PatchError(RuntimeError):
    """The written project is not what the patch was made for."""


def allow_overlapping_pools(project: Path) -> None:
    """Remove the assertion from ``pooling2d_cl`` of a written project; a second time does nothing.

    Raises PatchError when hls4ml wrote something else (another version).
    """
    header = project / POOLING
    text = header.read_text()
    start = text.find(FUNCTION)
    end = text.find("\n}\n", start)
    if start < 0 or end < 0:
        raise PatchError(f"{header} has no {FUNCTION}...): this patch is for hls4ml 1.3.0")
    body = text[start:end]
    if "overlapping windows" in body:
        return
    if ASSERTION not in body:
        raise PatchError(
            f"{header} does not hold the assertion expected in pooling2d_cl: this patch is for hls4ml 1.3.0"
        )
    body = body.replace(ASSERTION, "// Also right for overlapping windows: the strides have counters of their own.")
    part = header.with_name(header.name + ".part")
    part.write_text(text[:start] + body + text[end:])
    os.replace(part, header)
