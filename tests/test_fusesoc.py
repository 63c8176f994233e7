"""The FuseSoC core: it lists the RTL as it is, and its targets run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hw.isa import load_config
from hw.sources import ROOT, RTL, generated_sources, npu_parameters, rtl_sources
from sim.toolchain import verilator_root

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CORE = yaml.safe_load((ROOT / "quarkwave-npu.core").read_text().removeprefix("CAPI=2:"))
NAME = "quarkwave:npu:npu"


def fusesoc(tmp_path: Path, *arguments: str, parameters: dict[str, int]) -> subprocess.CompletedProcess[str]:
    """Run FuseSoC on the core, with nothing of this user's settings."""
    path = [str(Path(sys.executable).parent), str(verilator_root() / "bin"), os.environ["PATH"]]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "VERILATOR_ROOT": str(verilator_root()),
        "FUSESOC_CONFIG": str(tmp_path / "fusesoc.conf"),
        "XDG_CACHE_HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
    }
    (tmp_path / "fusesoc.conf").touch()
    values = [f"--{name}={value}" for name, value in parameters.items()]
    command = ["fusesoc", "--cores-root", str(ROOT), "run", "--build-root", str(tmp_path / "build"), *arguments]
    return subprocess.run(
        [*command, NAME, *values],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_core_lists_every_file_of_the_rtl():
    listed = CORE["filesets"]["rtl"]["files"]
    present = {path.relative_to(ROOT).as_posix() for path in RTL.glob("*.sv")}
    assert set(listed) == present, "bring the list in quarkwave-npu.core up to date"
    assert len(listed) == len(set(listed))


def test_the_core_has_the_parameters_of_a_configuration():
    assert set(CORE["parameters"]) == set(npu_parameters(load_config("sim-small")))
    assert all(set(target["parameters"]) == set(CORE["parameters"]) for target in CORE["targets"].values())


def test_the_core_has_the_version_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CORE["name"] == f"{NAME}:{project['version']}"


@pytest.mark.parametrize("board", ["sim-small", "zcu104"])
def test_the_lint_target_is_clean(board: str, tmp_path: Path):
    done = fusesoc(tmp_path, "--target=lint", parameters=npu_parameters(load_config(board)))
    assert done.returncode == 0 and "warning" not in done.stdout.lower(), done.stdout


def test_the_lint_target_refuses_an_array_that_cannot_be_built(tmp_path: Path):
    """So the parameters reach the RTL: its own check speaks."""
    parameters = npu_parameters(load_config("sim-small")) | {"ACC_DEPTH": 1 << 17}
    done = fusesoc(tmp_path, "--target=lint", parameters=parameters)
    assert done.returncode != 0 and "ACC_DEPTH = 131072" in done.stdout, done.stdout


def test_the_synth_target_hands_vivado_the_sources_in_order(tmp_path: Path):
    """Generated packages first, then what uses them; the part is the ZCU104's."""
    done = fusesoc(tmp_path, "--target=synth", "--setup", parameters={})
    assert done.returncode == 0, done.stdout
    (script,) = (path for path in tmp_path.rglob("*.tcl") if "create_project" in path.read_text())
    lines = script.read_text().splitlines()
    read = [Path(line.split("{")[1].rstrip("}")).name for line in lines if line.startswith("read_verilog")]
    assert set(read) == {path.name for path in rtl_sources("npu")}
    assert read[:3] == [path.name for path in generated_sources(tmp_path)]
    board = tomllib.loads((ROOT / "hw" / "boards" / "zcu104.toml").read_text())
    assert f"set_property part {board['device']['part']} [current_project]" in lines
