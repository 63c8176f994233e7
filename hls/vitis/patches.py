"""What hls4ml 1.3.0's headers need before a ResNet computes, and synthesises, as its ModelGraph says.

Each patch changes one header of a written project: hls4ml copies its own headers over any source that a user registers, so they cannot be
replaced before. ``upstream()`` gives the same changes as a diff of hls4ml's own tree, for ``git apply``.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HLS4ML = "1.3.0"
HEADERS = Path("firmware/nnet_utils")
TEMPLATES = Path("hls4ml/templates/vitis/nnet_utils")


class PatchError(RuntimeError):
    """A header is not what a patch was made for."""


@dataclass(frozen=True)
class Patch:
    """In each of the ``functions`` of ``header``, ``old`` becomes ``new``."""

    name: str
    reason: str
    header: str
    functions: tuple[str, ...]
    old: str
    new: str

    def apply(self, text: str) -> str:
        """The patched header; one that is patched already stays as it is. Raises PatchError when it is another text."""
        for function in self.functions:
            start = text.find(f"void {function}(")
            end = text.find("\n}\n", start)
            body = text[start:end]
            if start < 0 or end < 0 or (self.old not in body and self.new not in body):
                raise PatchError(
                    f"patch '{self.name}' does not find its place in {function} of {self.header} (hls4ml {_version()}; it was made for "
                    f"{HLS4ML}). It is there because {self.reason}: if this hls4ml does it right, remove the patch from "
                    f"hls/vitis/patches.py"
                )
            if self.new not in body:
                text = text[:start] + body.replace(self.old, self.new) + text[end:]
        return text


OVERLAPPING_POOLS = Patch(
    "overlapping pools",
    "pooling2d_cl asserts that windows do not overlap, although its strides have counters of their own and it computes a pool of 3x3 with "
    "stride 2 rightly",
    "nnet_pooling_stream.h",
    ("pooling2d_cl",),
    "    assert(CONFIG_T::pool_height == CONFIG_T::stride_height && CONFIG_T::pool_width == CONFIG_T::stride_width);\n",
    "    // Windows may overlap, or leave pixels out: compute_pool_buffer_2d counts strides apart from windows.\n",
)

ONE_ROW_STRIDES = Patch(
    "vertical strides of kernels of one row",
    "a convolution with a kernel of one row goes to compute_output_buffer_1d, which knows no vertical stride and computes every row",
    "nnet_conv2d_stream.h",
    ("conv_2d_buffer_latency_cl", "conv_2d_buffer_resource_cl"),
    "            if (CONFIG_T::filt_height > 1) {\n",
    "            // A kernel of one row needs a counter of rows as well when it skips some.\n"
    "            if (CONFIG_T::filt_height > 1 || CONFIG_T::stride_height > 1) {\n",
)

_LATENCY = "    if (CONFIG_T::strategy == nnet::latency || CONFIG_T::strategy == nnet::distributed_arithmetic) {\n"
POINTWISE_WEIGHTS = Patch(
    "weights of pointwise convolutions in memory",
    "pointwise_conv_2d_cl splits the weights into single registers whatever the strategy, against the reshaping into block memory "
    "that the Resource strategy asks for in dense_resource (hls4ml's issue 867 is about pointwise layers with a reuse factor)",
    "nnet_sepconv2d_stream.h",
    ("pointwise_conv_2d_cl",),
    "    #pragma HLS ARRAY_PARTITION variable=weights complete\n"
    "    #pragma HLS ARRAY_PARTITION variable=biases complete\n"
    "\n"
    f"{_LATENCY}",
    "    #pragma HLS ARRAY_PARTITION variable=biases complete\n"
    "\n"
    f"{_LATENCY}"
    "        #pragma HLS ARRAY_PARTITION variable=weights complete\n",
)

PATCHES: tuple[Patch, ...] = (OVERLAPPING_POOLS, ONE_ROW_STRIDES, POINTWISE_WEIGHTS)


def apply(project: Path, patches: Iterable[Patch] = PATCHES) -> None:
    """Patch the headers of a written project; a second time changes nothing.

    Warns of an hls4ml that the patches were not made for, and raises PatchError when one of them does not fit it.
    """
    if _version() != HLS4ML:
        warnings.warn(
            f"hls/vitis/patches.py was made for hls4ml {HLS4ML} and this is {_version()}: see that tests/test_hls_patches.py passes",
            stacklevel=2,
        )
    for header, text in _patched(project / HEADERS, patches).items():
        part = header.with_name(f"{header.name}.part")
        part.write_text(text)
        os.replace(part, header)


def upstream(patches: Iterable[Patch] = PATCHES) -> str:
    """The patches as one diff of hls4ml's repository, with their reasons before it."""
    import hls4ml

    patches = list(patches)
    root = Path(hls4ml.__file__).parents[1]
    reasons = "".join(f"{patch.name}:\n  {patch.reason}.\n" for patch in patches)
    diffs = [
        "".join(
            difflib.unified_diff(
                header.read_text().splitlines(keepends=True),
                text.splitlines(keepends=True),
                f"a/{TEMPLATES / header.name}",
                f"b/{TEMPLATES / header.name}",
            )
        )
        for header, text in _patched(root / TEMPLATES, patches).items()
    ]
    return f"{reasons}\n{''.join(diffs)}"


def _patched(folder: Path, patches: Iterable[Patch]) -> dict[Path, str]:
    texts: dict[Path, str] = {}
    for patch in patches:
        header = folder / patch.header
        texts[header] = patch.apply(texts.get(header) or header.read_text())
    return texts


def _version() -> str:
    return importlib.metadata.version("hls4ml")
