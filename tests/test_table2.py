"""Table 2: what was measured, what is predicted from cycles, and what is missing, each called by its name."""

import json
from pathlib import Path

import pytest
import table2

NPU = {"config": "zcu104", "cp": 64, "kp": 32, "clock_mhz": 300.0, "cycles": 2_100_000, "utilisation": 0.95}
CPU = {"cpu": "some CPU", "rows": [{"name": "emulator", "threads": 2, "batch": 1, "ms": 40.0}]}


def test_reports_that_are_missing_are_said_to_be_missing(tmp_path: Path):
    text = table2.table(tmp_path)
    assert "not measured yet: make bench-emulator" in text
    assert "not simulated yet: make resnet50-rtl" in text


def test_the_npu_is_predicted_from_its_cycles_and_clock(tmp_path: Path):
    (tmp_path / "resnet50-zcu104.json").write_text(json.dumps(NPU | {"cycles_per_image": 2_000_000}))
    (row,) = table2.npu_rows(tmp_path)
    assert row.milliseconds == 7.0
    assert row.images_per_second == "150"
    assert row.source.startswith("predicted: 2,100,000 cycles")


def test_a_configuration_without_a_board_has_no_row(tmp_path: Path):
    (tmp_path / "resnet50-sim-small.json").write_text(json.dumps(NPU | {"clock_mhz": 0.0}))
    (row,) = table2.npu_rows(tmp_path)
    assert row.milliseconds is None


def test_measured_rows_name_the_cpu(tmp_path: Path):
    (tmp_path / "emulator.json").write_text(json.dumps(CPU))
    (row,) = table2.cpu_rows(tmp_path)
    assert (row.system, row.milliseconds, row.images_per_second) == ("emulator, 2 threads, batch 1", 40.0, "25.0")
    assert row.source == "measured, some CPU"


def test_a_damaged_report_is_named(tmp_path: Path):
    (tmp_path / "emulator.json").write_text("{")
    with pytest.raises(SystemExit, match=r"emulator\.json is not a report"):
        table2.table(tmp_path)
