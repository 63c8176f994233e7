"""The self-test on devices that are well: everything passes, on any array, and its reference values have a second witness."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from random_networks import SIM_SMALL, featurizer

from driver.__main__ import main
from driver.device import open_device
from driver.emulator import Engine
from driver.golden import GoldenDevice
from driver.runtime import Npu
from driver.selftest import speed, vectors
from driver.selftest.bench import Bench
from driver.selftest.checks import CHECKS
from driver.selftest.findings import Verdict, examine
from driver.selftest.layers import KINDS, Kind
from hw.board import board_names
from hw.isa import ArrayConfig, load_config
from hw.program import Program
from sim.verilated import VerilatedDevice

ARRAYS = [load_config(name) for name in board_names()]
NOT_FOR_MODELS = {"registers", "interrupt", "bandwidth"}


@pytest.mark.parametrize("device", ["simulated-board", "rtl"])
def test_a_good_device_passes_every_check(device: str, capsys: pytest.CaptureFixture):
    assert main(["selftest", "--device", device, "--memory-mib", "1"]) == 0
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["PASS"] * len(CHECKS)
    assert verdict == f"PASS: {len(CHECKS)} checks passed"


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: array.name)
def test_the_checks_fit_the_array_of_every_board(array: ArrayConfig):
    device = GoldenDevice(array, 32 << 20)
    with Bench(device, expected=array, memory_bytes=1 << 20) as bench:
        findings = list(examine(bench, CHECKS))
    assert {f.check for f in findings if f.verdict is Verdict.NOT_RUN} == NOT_FOR_MODELS
    assert [f for f in findings if f.verdict is Verdict.FAIL] == []
    assert device.memory.arena.used == 0


def test_the_emulator_passes(capsys: pytest.CaptureFixture):
    assert main(["selftest", "--device", "emulator", "--memory-mib", "1", "--config", "zcu104"]) == 0


def test_the_findings_can_be_read_by_a_program(capsys: pytest.CaptureFixture):
    assert main(["selftest", "--device", "golden", "--memory-mib", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["passed"] is True
    assert [f["check"] for f in answer["findings"]] == [check.name for check in CHECKS]
    by_name = {f["check"]: f for f in answer["findings"]}
    assert by_name["registers"]["verdict"] == "NOT RUN"
    assert by_name["network"]["figures"]["source"] == "golden"


def test_memory_and_registers_are_left_as_they_were():
    device = VerilatedDevice(SIM_SMALL, 8 << 20)
    offsets = [*range(0x04, 0x48, 4)]
    before = [device.read_register(offset) for offset in offsets[:3]]
    with Bench(device, memory_bytes=1 << 20) as bench:
        assert all(finding.verdict is Verdict.PASS for finding in examine(bench, CHECKS))
    assert device.memory.arena.used == 0
    assert [device.read_register(offset) for offset in offsets[:3]] == before
    device.close()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("array", ["sim-small", "u250"])
def test_a_second_engine_agrees_with_every_vector(kind: Kind, array: str):
    vector = kind.vector(load_config(array))
    [result] = Engine.of(vector.program, threads=1).run_images(vector.program, vector.image[None])
    assert np.array_equal(result, vector.expected)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_vector_tells_many_values_apart(kind: Kind):
    """A result that is nearly constant would hide faults."""
    expected = kind.vector(SIM_SMALL).expected
    assert len(np.unique(expected)) >= min(20, expected.size // 2) or kind.name == "saturation"


def test_the_stored_check_values_are_those_of_the_vectors():
    assert vectors.stored() == vectors.computed()


def test_a_program_carries_its_signature(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "net.npu"
    featurizer(3).save(path)
    assert main(["sign", "--program", str(path)]) == 0
    signed = Program.load(path)
    assert signed.stream == featurizer(3).stream
    with Npu(open_device("rtl", SIM_SMALL)) as npu:
        npu.load(signed)
        assert speed.signature(npu) == signed.metadata[speed.SIGNATURE]
    capsys.readouterr()
    assert main(["selftest", "--device", "rtl", "--program", str(path), "--memory-mib", "1", "--json"]) == 0
    [network] = [f for f in json.loads(capsys.readouterr().out)["findings"] if f["check"] == "network"]
    assert network["figures"]["source"] == "stored with the program"


def test_a_device_that_cannot_be_opened_is_a_failed_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.delenv("QUARKWAVE_BITSTREAM", raising=False)
    assert main(["selftest", "--device", "board"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("FAIL  open") and "QUARKWAVE_BITSTREAM" in lines[0]
    assert lines[-1].startswith("FAIL: 1 of 1 checks failed; begin with 'open'")


def test_numbers_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture):
    assert main(["selftest", "--device", "golden", "--memory-mib", "0"]) == 1
    assert "must be 1 or more" in capsys.readouterr().err
