"""Libraries that are compiled on this machine: when they are, when not, and what is said where they cannot be."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hw import native
from hw.native import NativeBuildError, load_library
from hw.sources import ROOT

ANSWER = {"answer": (ctypes.c_int, [ctypes.c_int])}


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty build folder."""
    monkeypatch.setattr(native, "BUILD", tmp_path / "build")
    return tmp_path / "build"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "answer.cpp", "1")


def write(path: Path, value: str) -> Path:
    path.write_text(f'extern "C" int answer(int n) {{ return n + {value}; }}\n')
    return path


def compiler(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put ``script`` in the place of g++; in it, $real is the one of this machine."""
    folder.mkdir()
    (folder / "g++").write_text(f"#!/bin/sh\nreal={shutil.which('g++')}\n{script}\n")
    (folder / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def left_in(build: Path) -> set[str]:
    """Its files, unfinished ones too."""
    return {str(path.relative_to(build)) for path in build.rglob("*") if path.is_file()}


def test_a_library_answers(build: Path, source: Path):
    assert load_library(source, ANSWER).answer(4) == 5


def test_the_second_time_nothing_is_compiled(build: Path, source: Path, monkeypatch: pytest.MonkeyPatch):
    load_library(source, ANSWER)
    monkeypatch.setenv("PATH", "")
    assert load_library(source, ANSWER).answer(4) == 5


def test_a_changed_source_is_compiled_anew(build: Path, source: Path):
    load_library(source, ANSWER)
    assert load_library(write(source, "2"), ANSWER).answer(4) == 6
    assert len(left_in(build)) == 2


def test_a_library_for_another_processor_is_not_taken(build: Path, source: Path, monkeypatch: pytest.MonkeyPatch):
    load_library(source, ANSWER)
    monkeypatch.setattr(native, "_processor", lambda: ["another"])
    load_library(source, ANSWER)
    assert len(left_in(build)) == 2


def test_a_library_that_was_cut_short_is_compiled_anew(build: Path, source: Path, tmp_path: Path):
    load_library(source, ANSWER)
    [name] = left_in(build)
    (tmp_path / "empty").touch()
    (tmp_path / "empty").replace(build / name)
    assert load_library(source, ANSWER).answer(4) == 5


def test_a_compiler_that_does_not_know_the_processor_is_not_asked_to(
    build: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    refuse = 'case "$*" in *-march=native*) echo "unrecognized command-line option"; exit 1;; esac; exec $real "$@"'
    compiler(tmp_path / "bin", monkeypatch, refuse)
    assert load_library(source, ANSWER).answer(4) == 5


def test_without_a_compiler_it_says_what_to_install(build: Path, source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        NativeBuildError, match=r"no g\+\+ to compile answer\.cpp with \(Debian: apt-get install g\+\+\)"
    ):
        load_library(source, ANSWER)


def test_a_source_that_does_not_compile_is_told_with_the_compilers_words(build: Path, source: Path):
    with pytest.raises(NativeBuildError, match=r"(?s)answer\.cpp does not compile.* n \+ wrong;"):
        load_library(write(source, "wrong"), ANSWER)
    assert not left_in(build)


def test_where_a_library_is_missing_the_message_names_the_packages(build: Path, source: Path):
    with pytest.raises(NativeBuildError, match=r"(?s)apt-get install g\+\+ libmissing-dev\).*-lmissing"):
        load_library(source, ANSWER, ["-lmissing"], "g++ libmissing-dev")


def test_a_build_folder_that_cannot_be_written_is_named(build: Path, source: Path):
    build.touch()  # no folder, not even for root
    with pytest.raises(
        NativeBuildError, match=rf"compiled into {build}/native .*: QUARKWAVE_BUILD names another folder"
    ):
        load_library(source, ANSWER)


def test_processes_may_compile_at_once(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log, build = tmp_path / "log", tmp_path / "build"
    compiler(tmp_path / "bin", monkeypatch, f'echo started >>{log}; sleep 2; exec $real "$@"')
    code = f"""
import ctypes, pathlib, hw.native
library = hw.native.load_library(pathlib.Path({str(source)!r}), {{"answer": (ctypes.c_int, [ctypes.c_int])}})
print(library.answer(4))
"""
    environment = {**os.environ, "QUARKWAVE_BUILD": str(build)}
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in started] == ["5\n", "5\n"]
    assert log.read_text() == "started\n" * 2
    assert len(left_in(build)) == 1
