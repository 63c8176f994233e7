"""Faults seeded into a simulated board, under the real pynq: each fails the check that is meant for it, and the others stay meaningful."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_networks import SIM_SMALL
from simulated_boards import overlay_on_board

from driver.board import NpuOverlay
from driver.golden import GoldenDevice
from driver.selftest import control, vectors
from driver.selftest.bench import Bench
from driver.selftest.checks import CHECKS, MEMORY
from driver.selftest.command import line, summary
from driver.selftest.findings import Finding, Verdict, examine
from driver.selftest.layers import KINDS
from driver.selftest.speed import Lent, small_network
from hw.isa import ArrayConfig, Control, ProgramHeader, Register, load_config
from hw.program import Program
from hw.stream import StreamLayer
from sim.board import SimulatedBoard

LAYERS = {kind.name for kind in KINDS}
NAMES = {check.name for check in CHECKS}
NEED_MEMORY = {*LAYERS, "network"}
NEED_PROGRAMS = {*NEED_MEMORY, "feature memory", "image memory", "bandwidth", "throughput"}
NEED_PORTS = {*NEED_PROGRAMS, "interrupt", "program memory"}


@pytest.fixture
def board(tmp_path: Path) -> Iterator[tuple[SimulatedBoard, NpuOverlay]]:
    with overlay_on_board(tmp_path, memory_bytes=16 << 20) as pair:
        yield pair


def findings_of(device: Any, **options: Any) -> dict[str, Finding]:
    with Bench(device, memory_bytes=4 << 20, **options) as bench:
        return {finding.check: finding for finding in examine(bench, CHECKS)}


def names(findings: dict[str, Finding], verdict: Verdict) -> set[str]:
    return {name for name, finding in findings.items() if finding.verdict is verdict}


def assert_only(findings: dict[str, Finding], failed: set[str], not_run: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    report = "\n".join(map(line, findings.values()))
    assert names(findings, Verdict.FAIL) == failed, report
    assert names(findings, Verdict.NOT_RUN) == not_run, report
    assert names(findings, Verdict.PASS) == NAMES - failed - not_run, report
    assert all(findings[name].advice for name in failed)


def test_without_a_fault_everything_passes(board: tuple[SimulatedBoard, NpuOverlay]):
    assert_only(findings_of(board[1].npus[0], expected=SIM_SMALL), set())


@pytest.mark.parametrize(
    ("port", "check", "not_run"),
    [
        ("weights0", "program memory", NEED_PROGRAMS),
        ("features", "feature memory", {"image memory", *NEED_MEMORY}),
        ("image", "image memory", NEED_MEMORY),
    ],
)
@pytest.mark.parametrize("bit", [14, 21])
def test_a_stuck_address_line(
    board: tuple[SimulatedBoard, NpuOverlay], port: str, check: str, not_run: set[str], bit: int
):
    board[0].break_wires(port, address_low=1 << bit)
    findings = findings_of(board[1].npus[0])
    assert findings[check].verdict is Verdict.FAIL
    assert names(findings, Verdict.PASS) >= {"ID", "registers", "reference"}
    if bit == 21:  # higher than the small buffers of the other checks lie
        assert_only(findings, {check}, not_run)
        assert f"address line {bit}" in findings[check].advice


@pytest.mark.parametrize(
    ("port", "check", "not_run"),
    [
        ("weights0", "program memory", NEED_PROGRAMS),
        ("features", "feature memory", {"image memory", *NEED_MEMORY}),
        ("image", "image memory", NEED_MEMORY),
    ],
)
@pytest.mark.parametrize("line_number", [0, 85, 127])
def test_a_stuck_data_line(
    board: tuple[SimulatedBoard, NpuOverlay], port: str, check: str, not_run: set[str], line_number: int
):
    board[0].break_wires(port, data_low=line_number)
    findings = findings_of(board[1].npus[0])
    assert_only(findings, {check}, not_run)
    if port != "weights0":
        assert f"in bits [{line_number % 8}]" in findings[check].text
        assert "data line" in findings[check].advice


@pytest.mark.parametrize(
    ("port", "text"), [("weights0", "weight port"), ("image", "image port"), ("features", "feature port")]
)
def test_a_stalled_port(board: tuple[SimulatedBoard, NpuOverlay], port: str, text: str):
    board[0].break_wires(port, stalled=True)
    findings = findings_of(board[1].npus[0])
    assert_only(findings, {"ports"}, NEED_PORTS)
    assert text in findings["ports"].text


def test_a_lost_interrupt(board: tuple[SimulatedBoard, NpuOverlay], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "INTERRUPT_SECONDS", 0.05)
    board[0].lose_interrupts(1_000_000)
    findings = findings_of(board[1].npus[0])
    assert_only(findings, {"interrupt"})
    assert "/proc/interrupts" in findings["interrupt"].advice


def test_an_interrupt_that_could_not_be_had(tmp_path: Path):
    with overlay_on_board(tmp_path, interrupts=False) as (_, overlay):
        findings = findings_of(overlay.npus[0])
    assert_only(findings, {"interrupt"})
    assert "UIO" in findings["interrupt"].advice


def test_the_wrong_bitstream(board: tuple[SimulatedBoard, NpuOverlay]):
    findings = findings_of(board[1].npus[0], expected=load_config("zcu104"))
    assert_only(findings, {"ID"})  # what is there works, though it is not what was wanted
    assert "wrong bitstream" in findings["ID"].advice and "sim-small" in findings["ID"].text


def test_a_slow_memory(tmp_path: Path):
    with overlay_on_board(tmp_path, memory_bytes=16 << 20, bandwidth=0.3) as (_, overlay):
        findings = findings_of(overlay.npus[0])
    assert findings["bandwidth"].verdict is Verdict.FAIL
    assert names(findings, Verdict.FAIL) <= {"bandwidth", "throughput"}
    assert "weights, image, features" in findings["bandwidth"].text


class Broken(Lent):
    """A device with a fault that is put in between it and the test."""

    def __init__(self, device: Any, spoil: Callable[[int, int], int]) -> None:
        super().__init__(device)
        self._spoil = spoil

    def read_register(self, offset: int) -> int:
        return self._spoil(offset, self._device.read_register(offset))


def test_a_stuck_bit_of_a_register(board: tuple[SimulatedBoard, NpuOverlay]):
    device = Broken(
        board[1].npus[0], lambda offset, value: value & ~(1 << 5) if offset == Register.IMAGE_ADDRESS else value
    )
    findings = findings_of(device)
    assert_only(findings, {"registers"})
    assert "IMAGE_ADDRESS in bits [5]" in findings["registers"].text


def test_somebody_else_at_the_address(board: tuple[SimulatedBoard, NpuOverlay]):
    device = Broken(board[1].npus[0], lambda offset, value: 0xDEADBEEF if offset == Register.ID_MAGIC else value)
    findings = findings_of(device)
    assert findings["ID"].verdict is Verdict.FAIL and "0xdeadbeef" in findings["ID"].text
    assert findings["registers"].verdict is Verdict.PASS
    assert names(findings, Verdict.PASS) == {"registers"}


class FlippedBit(Lent):
    """Flips a bit of the last weights in memory, whenever ``program`` is started."""

    def __init__(self, board: SimulatedBoard, device: Any, program: Program) -> None:
        super().__init__(device)
        self._board, self._beats = board, program.beats
        self._flipped = program.stream[-SIM_SMALL.port_bytes] ^ 0x10

    def write_register(self, offset: int, value: int) -> None:
        read = self._device.read_register
        if offset == Register.CONTROL and value & Control.START and read(Register.PROGRAM_BEATS) == self._beats:
            address = read(Register.PROGRAM_ADDRESS) + (self._beats - 1) * SIM_SMALL.port_bytes
            self._board.npu.memory.at(address, 1)[0] = self._flipped
        self._device.write_register(offset, value)


def test_a_weight_bit_that_flipped_in_memory(board: tuple[SimulatedBoard, NpuOverlay]):
    program = small_network(SIM_SMALL)
    findings = findings_of(FlippedBit(board[0], board[1].npus[0], program))
    assert_only(findings, {"network", "throughput"})
    assert "BAD_PAYLOAD" in findings["network"].text
    assert "damaged memory" in findings["network"].advice


MULTIPLIER_WEIGHTS = KINDS[0].vector(SIM_SMALL).program.layers()[0].weights[:, :, 0, 0]
DEAD = tuple(int(n) for n in np.argwhere(MULTIPLIER_WEIGHTS & 0x40)[20])
"""Output and input lane of a multiplier that gets a weight with bit 6 set."""


class DeadMultiplier(GoldenDevice):
    """One multiplier takes bit 6 of its weights as 0."""

    def _execute(self, header: ProgramHeader, layers: list[StreamLayer]) -> Iterator[None]:
        spoiled = []
        for layer in layers:
            weights = layer.weights.copy()
            weights[DEAD[0] :: self.config.kp, DEAD[1] :: self.config.cp] &= ~0x40
            spoiled.append(replace(layer, weights=weights))
        yield from super()._execute(header, spoiled)


def test_a_dead_multiplier():
    findings = findings_of(DeadMultiplier(SIM_SMALL, 64 << 20))
    assert names(findings, Verdict.FAIL) >= {"every multiplier", "3x3 convolution", "7x7 stem", "network"}
    assert findings["every multiplier"].text.endswith(f"in channels [{DEAD[0]}], input lanes [{DEAD[1]}]")
    assert names(findings, Verdict.PASS) >= {"ID", "reference", *MEMORY}


def test_a_golden_model_that_is_wrong_on_this_computer(monkeypatch: pytest.MonkeyPatch):
    spoiled = {array: {**kinds, "max pool": 1} for array, kinds in vectors.stored().items()}
    monkeypatch.setattr(vectors, "stored", lambda: spoiled)
    findings = findings_of(GoldenDevice(SIM_SMALL, 64 << 20))
    assert names(findings, Verdict.FAIL) == {"reference"}
    assert "this computer" in findings["reference"].advice


def test_an_array_that_no_board_has_is_tested_with_the_golden_model():
    array: ArrayConfig = replace(SIM_SMALL, name="own", cp=32, kp=8)
    findings = findings_of(GoldenDevice(array, 64 << 20), expected=array)
    assert names(findings, Verdict.NOT_RUN) == {"registers", "reference", "interrupt", "bandwidth"}
    assert names(findings, Verdict.FAIL) == set()


def test_the_summary_says_where_to_begin(board: tuple[SimulatedBoard, NpuOverlay]):
    board[0].break_wires("image", data_low=3)
    findings = list(findings_of(board[1].npus[0]).values())
    assert summary(findings).startswith(
        "FAIL: 1 of 25 checks failed, 15 not run; begin with 'image memory': a data line of the image port"
    )
    assert np.all([line(f).startswith(f.verdict.value) for f in findings])
