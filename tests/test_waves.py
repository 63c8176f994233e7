"""Waveforms: what is recorded of a bench is what its RTL did, and a wrong name is answered with the right ones."""

import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
import pywellen

from hw.sources import ROOT
from sim.waves import VIEWERS, WavesError, record, show, waveform_format

PORTS = ["rst_ni", "clear_i", "push_valid_i", "push_ready_o", "push_data_i", "pop_valid_o", "pop_ready_i", "pop_data_o"]


@pytest.fixture(scope="module")
def waveform() -> Path:
    path, passed = record("sim/test_sync_fifo.py")
    assert passed
    return path


def test_the_waveform_shows_every_word_leaving_the_fifo_in_order(waveform: Path):
    """A queue in Python follows the recorded handshakes, clock edge by clock edge."""
    signals = {var.full_name: var for var in pywellen.Waveform(str(waveform)).all_vars()}
    queue: deque[int] = deque()
    popped = 0
    for time, level in signals["sync_fifo.clk_i"].tv:
        if level == 0:
            continue
        # What the flip-flops see at an edge stands in the picosecond before it.
        reset_n, clear, push, ready, pushed, valid, pop, word = (
            signals[f"sync_fifo.{name}"].signal.value_at(time - 1) for name in PORTS
        )
        if clear or not reset_n:
            queue.clear()
            continue
        if valid and pop:
            assert word == queue.popleft(), f"word {popped}, at {time} ps"
            popped += 1
        if push and ready:
            queue.append(pushed)
    assert popped > 1000


def test_the_waveform_is_named_after_its_bench(waveform: Path):
    assert waveform == ROOT / "build" / "waves" / f"sync_fifo.{waveform_format()}"


def test_an_unknown_bench_is_answered_with_the_known_ones():
    with pytest.raises(WavesError, match=r"no bench 'sync_fofi'; there are: .*\bnpu\b.*\bsync_fifo\b"):
        record("sync_fofi")


def test_an_unknown_variant_is_answered_with_the_known_ones():
    with pytest.raises(WavesError, match=r"no variant 'test_npu\[9x9\]'; there are: .*test_npu\[16x16\]"):
        record("sim/test_npu.py::test_npu[9x9]")


@pytest.mark.parametrize("viewer", VIEWERS)
def test_a_viewer_on_the_path_opens_the_waveform(viewer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = tmp_path / "opened"
    os.mkfifo(opened)
    script = tmp_path / viewer
    script.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert show(Path("x.fst")) == f"x.fst: opened in {viewer}"
    assert opened.read_text() == "x.fst\n"


def test_without_a_viewer_it_says_which_ones_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert show(Path("x.fst")) == "x.fst: no viewer on the PATH; surfer and gtkwave open it"


def test_the_command_line_fails_on_an_unknown_bench():
    done = subprocess.run(
        [sys.executable, "-m", "sim", "waves", "--no-viewer", "nothing"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and "sync_fifo" in done.stderr
