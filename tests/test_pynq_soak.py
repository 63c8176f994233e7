"""Hundreds of images with random faults through pynq: every answer right or a clear error, every fault recovered, nothing leaked.

``make board-soak`` is the same with 1,000 images of the demo's network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from board_soak import Soak, SoakError
from random_networks import featurizer

from driver.board.memory import BoardBuffer
from hls.__main__ import compile_checkpoint
from hw.program import Program

DEMO = Path(__file__).parents[1] / "quantize" / "trained" / "demo.npz"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_small_network_survives_hundreds_of_images_and_every_kind_of_fault(seed: int):
    tally = Soak(featurizer(seed), seed).run(300)
    assert tally.right + sum(tally.errors.values()) == 300 + sum(tally.faults.values()), f"seed {seed}"
    assert set(tally.faults) == {"bus error", "frozen memory", "lost interrupts", "restart"}, f"seed {seed}"
    assert any("WATCHDOG" in error for error in tally.errors), f"seed {seed}"


def test_the_demos_network_survives_a_hundred_images(tmp_path: Path):
    compile_checkpoint(argparse.Namespace(checkpoint=DEMO, board="sim-small", out=tmp_path / "demo.npu"))
    tally = Soak(Program.load(tmp_path / "demo.npu"), seed=3).run(100)
    assert tally.right >= 100 - len(tally.errors)


def test_the_soak_notices_a_wrong_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(BoardBuffer, "invalidate", lambda self: None)
    with pytest.raises(SoakError, match="image 0 has a wrong answer"):
        Soak(featurizer(4), seed=4).run(10)


def test_the_soak_notices_a_leak(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(BoardBuffer, "give_back", lambda self: None)
    with pytest.raises(SoakError, match="bytes"):
        Soak(featurizer(5), seed=5).run(50)
