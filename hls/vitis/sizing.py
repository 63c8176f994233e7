"""How large each layer of an HLS project is: what the solver decides, what the project writer obeys, one JSON file between them.

``LayerSizing`` becomes hls4ml's configuration of a layer (``Strategy``, ``ReuseFactor``, ``ParallelizationFactor``). ``fifo_depths`` are
depths of streams by their variable's name (``ModelGraph.output_vars[...].name``: ``layer4_out``, ``layer7_cpy1``): the second entry of the
variable's pragma. A layer or a stream that is not named keeps hls4ml's default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from hw.files import write_if_changed

Strategy = Literal["Latency", "Resource"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
IO_TYPE = "io_stream"
FORMAT = 1


class SizingError(ValueError):
    """A sizing that no project can be written from: what is wrong, and what to do."""


@dataclass(frozen=True)
class LayerSizing:
    """One layer with multiplications.

    ``reuse_factor``: multiplications that one multiplier does for each output pixel. ``parallelisation``: output pixels computed at
    a time; the convolutions of hls4ml 1.3.0 read a stream pixel by pixel whatever this says (only its io_parallel knows partitions),
    so it is 1.
    """

    name: str
    strategy: Strategy
    reuse_factor: int
    parallelisation: int = 1

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise SizingError(f"layer {self.name}: strategy {self.strategy!r} is none of {', '.join(STRATEGIES)}")
        _check_count(f"layer {self.name}: reuse_factor", self.reuse_factor)
        _check_count(f"layer {self.name}: parallelisation", self.parallelisation)
        if self.parallelisation != 1:
            raise SizingError(
                f"layer {self.name}: parallelisation {self.parallelisation} would change nothing, since hls4ml's {IO_TYPE} "
                f"computes one pixel at a time; use 1 and a smaller reuse_factor"
            )


@dataclass(frozen=True)
class Sizing:
    """A whole network on one part. ``layers`` and ``fifo_depths`` (in stream words: pixels) by hls4ml's names."""

    part: str
    clock_ns: float
    layers: Mapping[str, LayerSizing] = field(default_factory=dict)
    fifo_depths: Mapping[str, int] = field(default_factory=dict)
    io_type: str = IO_TYPE

    def __post_init__(self) -> None:
        if not self.part or not isinstance(self.part, str):
            raise SizingError(f"part is {self.part!r}: name one, such as xcu250-figd2104-2L-e")
        if not isinstance(self.clock_ns, (int, float)) or isinstance(self.clock_ns, bool) or not self.clock_ns > 0:
            raise SizingError(f"clock_ns is {self.clock_ns!r}: give the clock's period in nanoseconds, such as 5")
        if self.io_type != IO_TYPE:
            raise SizingError(f"io_type is {self.io_type!r}: only {IO_TYPE} is sized")
        for name, layer in self.layers.items():
            if name != layer.name:
                raise SizingError(f"layer {layer.name} stands under the name {name}")
        for name, depth in self.fifo_depths.items():
            _check_count(f"depth of stream {name}", depth)

    def to_json(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        content = {"format": FORMAT, **asdict(self)}
        content["layers"] = [asdict(layer) for layer in self.layers.values()]
        write_if_changed(path, json.dumps(content, indent=2) + "\n")

    @classmethod
    def from_json(cls, path: Path) -> Sizing:
        """Read the file. Raises SizingError for what is no sizing, FileNotFoundError."""
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise SizingError(f"{path} is no JSON file ({error}): write it with `make hls`") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise SizingError(f"{path} is no sizing of format {FORMAT}: write it again with `make hls`")
        try:
            layers = [LayerSizing(**layer) for layer in content.pop("layers")]
            del content["format"]
            return cls(layers={layer.name: layer for layer in layers}, **content)
        except (KeyError, TypeError, AttributeError) as error:
            known = ", ".join(f.name for f in fields(cls))
            raise SizingError(f"{path} is no sizing ({error}); it has {known}") from error
        except SizingError as error:
            raise SizingError(f"{path}: {error}") from error


def _check_count(what: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SizingError(f"{what} is {value!r}: it must be an integer of at least 1")
