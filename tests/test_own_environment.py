"""Environments under build/ are made once, and whole or not at all."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import own_environment
import pytest
from own_environment import installed


@pytest.fixture(autouse=True)
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_environment, "BUILD", tmp_path / "build")


def test_of_several_that_ask_at_once_one_makes_it():
    made: list[Path] = []
    with ThreadPoolExecutor() as pool:
        folders = {future.result() for future in [pool.submit(installed, "net", finish=made.append) for _ in range(4)]}
    assert folders == set(made)
    assert len(made) == 1
    assert subprocess.run([made[0] / "bin" / "python", "-c", ""]).returncode == 0


def test_one_left_unfinished_is_made_anew():
    def fail(environment: Path) -> None:
        (environment / "half").touch()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        installed("net", finish=fail)
    assert not (installed("net") / "half").exists()


def test_what_uv_cannot_install_is_an_error():
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            installed("net", ["--offline", "no such requirement"])
