"""Board files: every one in hw/boards can be read, and a mistake in one is named with its file and key."""

from pathlib import Path

import pytest

from hw import isa
from hw.board import VitisBuild, VivadoBuild, board_names, load_board
from hw.isa import ConfigurationError
from hw.resources import COUNTED, used

GOOD = (isa.BOARDS / "pynq-z2.toml").read_text()


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of hw/boards."""
    monkeypatch.setattr(isa, "BOARDS", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", board_names())
def test_every_board_file_is_read(name: str):
    board = load_board(name)
    assert board.name == board.array.name == name
    assert board.device or not board.build


@pytest.mark.parametrize("name", [n for n in board_names() if load_board(n).build])
def test_every_board_that_is_built_has_a_clock(name: str):
    assert load_board(name).array.clock_mhz > 0


@pytest.mark.parametrize("name", [n for n in board_names() if isinstance(load_board(n).build, VivadoBuild)])
def test_every_zynq_board_has_its_constraints(name: str):
    assert load_board(name).constraints.is_file()


@pytest.mark.parametrize(
    "name", [n for n in board_names() if isinstance(load_board(n).build, VivadoBuild | VitisBuild)]
)
def test_the_page_on_synthesis_gives_each_boards_figures(name: str):
    board = load_board(name)
    assert board.device
    page = (Path(__file__).parents[1] / "docs" / "synthesis.md").read_text()
    [row] = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
    need, array = used(board.array, board.device), board.array
    figures = [f"{getattr(need, k):,} of {getattr(board.device, k):,}" for k in COUNTED if getattr(board.device, k)]
    for text in (board.device.part, f"{array.cp} x {array.kp}", f"{array.clock_mhz:g} MHz", *figures):
        assert text in row, f"{row} lacks {text}"


def test_the_u250_has_a_core_in_each_slr():
    build = load_board("u250").build
    assert isinstance(build, VitisBuild)
    assert [core.split(":")[0] for core in build.cores] == [f"SLR{i}" for i in range(4)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kp = 16", "kp = 16\nkq = 3", r"bad.toml, \[array\] does not know kq; its keys are: cp, kp"),
        ("kp = 16", "", r"bad.toml, \[array\] lacks kp"),
        ("kp = 16", "kp = '16'", r"bad.toml, \[array\]: kp = '16' should be of type int"),
        ("kp = 16", "kp = true", r"bad.toml, \[array\]: kp = True should be of type int"),
        ("kp = 16", "kp = 12", r"bad: kp must be a power of two, not 12"),
        ("kp = 16", "kp = = 16", r"bad.toml: Invalid value"),
        ("dsp = 220", "dps = 220", r"bad.toml, \[device\] does not know dps"),
        ('"7series"', '"7-series"', r"family '7-series' is none of"),
        ("[device]", "[devise]", r"bad.toml has no use for \[devise\]"),
        ('"vivado"', '"quartus"', r"bad.toml, \[build\]: tool 'quartus' is none of vivado, vitis, ecp5"),
        ('"S_AXI_HP1", ', "", r"bad.toml, \[build\]: 3 memory_ports for 4 AXI masters"),
    ],
)
def test_a_mistake_in_a_board_file_is_named(boards: Path, old: str, new: str, message: str):
    assert old in GOOD
    (boards / "bad.toml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=message):
        load_board("bad")


def test_a_core_must_name_its_slr_and_memory():
    with pytest.raises(ConfigurationError, match="'SLR0' should be SLR:memory"):
        VitisBuild("platform", ("SLR0",))


def test_an_unknown_board_is_answered_with_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"no board named 'de10'.*zcu104"):
        load_board("de10")
