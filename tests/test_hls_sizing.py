"""The sizing file: what it refuses, and that it comes back as it was written."""

import json
from pathlib import Path
from typing import Any

import pytest

from hls.vitis.sizing import LayerSizing, Sizing, SizingError

SIZING = Sizing(
    "xcu250-figd2104-2L-e",
    5.0,
    {"stem": LayerSizing("stem", "Resource", 21), "last": LayerSizing("last", "Latency", 1)},
    {"layer2_out": 17, "layer3_cpy1": 120},
)


def test_a_sizing_comes_back_from_its_file(tmp_path: Path):
    SIZING.to_json(tmp_path / "new" / "sizing.json")
    assert Sizing.from_json(tmp_path / "new" / "sizing.json") == SIZING


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "no sizing of format 1"),
        ({"layers": [{"name": "stem"}]}, "is no sizing.*reuse_factor"),
        ({"surprise": 1}, "surprise"),
        ({"layers": [{"name": "stem", "strategy": "Fast", "reuse_factor": 1}]}, "'Fast' is none of Latency, Resource"),
        ({"layers": [{"name": "stem", "strategy": "Resource", "reuse_factor": 0}]}, "stem: reuse_factor is 0"),
        (
            {"layers": [{"name": "stem", "strategy": "Resource", "reuse_factor": 1, "parallelisation": 4}]},
            "one pixel at a time",
        ),
        ({"fifo_depths": {"layer2_out": 0}}, "depth of stream layer2_out is 0"),
        ({"fifo_depths": {"layer2_out": True}}, "depth of stream layer2_out is True"),
        ({"clock_ns": 0}, "clock_ns is 0"),
        ({"part": ""}, "part is ''"),
        ({"io_type": "io_parallel"}, "only io_stream"),
    ],
    ids=str,
)
def test_a_wrong_file_is_refused_with_its_name_and_the_reason(tmp_path: Path, change: dict[str, Any], message: str):
    path = tmp_path / "sizing.json"
    SIZING.to_json(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SizingError, match=f"(?s)sizing.json.*{message}"):
        Sizing.from_json(path)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path):
    (tmp_path / "sizing.json").write_text("{")
    with pytest.raises(SizingError, match="is no JSON file"):
        Sizing.from_json(tmp_path / "sizing.json")


def test_a_layer_under_a_strange_name_is_refused():
    with pytest.raises(SizingError, match="stem stands under the name steam"):
        Sizing("part", 5, {"steam": LayerSizing("stem", "Resource", 1)})
