"""The script that stitches the sub-projects, run to its end in a Tcl interpreter whose Vivado commands are modelled."""

from pathlib import Path

import pytest
from stitched_projects import CHAIN, written
from vivado_model import VivadoError
from vivado_streams import StreamVivado

from hls.vitis import ports, stitch
from hw.board import Board, VivadoBuild, board_names, load_board
from hw.isa import ConfigurationError

BOARDS = [name for name in board_names() if isinstance(load_board(name).build, VivadoBuild)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return written(tmp_path, load_board("zcu104"))


def run(out: Path, board: Board, packaged: list[tuple[str, str, str]] = CHAIN) -> StreamVivado:
    parameters = stitch.prepare(out, board)
    assert isinstance(board.build, VivadoBuild)
    model = StreamVivado((f"{board.build.board_part}:1.0",), packaged)
    model.run(stitch.SCRIPT, parameters, parameters.parent)
    return model


@pytest.fixture(scope="module", params=BOARDS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StreamVivado:
    board = load_board(request.param)
    return run(written(tmp_path_factory.mktemp(board.name), board), board)


def test_the_script_runs_from_the_packaged_projects_to_the_bitstream(built: StreamVivado):
    names = [call.name for call in built.calls]
    order = [
        "update_ip_catalog",
        "create_bd_design",
        "validate_bd_design",
        "synth_design",
        "route_design",
        "write_bitstream",
    ]
    assert [names.index(name) for name in order] == sorted(names.index(name) for name in order)
    steps = [line.removeprefix("quarkwave step: ") for line in built.printed]
    assert steps == [
        start.removeprefix("quarkwave step: ") for start in stitch.PHASES if start.startswith("quarkwave step: ")
    ]


def test_every_project_stands_in_the_chain_from_the_dma_to_the_dma(built: StreamVivado):
    here, chain = "dma/M_AXIS_MM2S", []
    while here in built.partner:
        cell, pin = built.partner[here].split("/")
        chain.append(cell)
        if cell == "dma":
            assert pin == "S_AXIS_S2MM"
            break
        [here] = [f"{cell}/{name}" for name, master in built.cells[cell].pins().interfaces.items() if master]
    assert chain == [*(name for name, _, _ in CHAIN), "dma"]


def test_the_dmas_streams_are_as_wide_as_the_networks_ends(built: StreamVivado):
    widths = {key: value for key, value in built.cells["dma"].config.items() if "tdata" in key}
    assert widths == dict.fromkeys(("c_m_axis_mm2s_tdata_width", "c_s_axis_s2mm_tdata_width"), str(ports.END_BITS))


def test_the_dma_reaches_memory_and_is_reached_by_the_processor(built: StreamVivado):
    assert built.slave_behind("dma/M_AXI_MM2S").startswith("ps/S_AXI_HP")
    assert built.slave_behind("dma/M_AXI_S2MM") == built.slave_behind("dma/M_AXI_MM2S")
    assert built.partner["control/M00_AXI"] == "dma/S_AXI_LITE"
    assert built.addresses["dma/S_AXI_LITE/Reg"][1] == 0x10000


def test_a_project_that_is_not_packaged_is_noticed(out: Path):
    with pytest.raises(VivadoError, match="network_graph3_axi"):
        run(out, load_board("zcu104"), CHAIN[:2])


@pytest.mark.parametrize(
    ("board", "message"),
    [("u250", "u250 has no processing system"), ("kv260", r"made for xczu7ev.*make hls PART=xck26-")],
)
def test_a_board_that_does_not_suit_is_refused(out: Path, board: str, message: str):
    with pytest.raises(ConfigurationError, match=message):
        stitch.prepare(out, load_board(board))


def test_a_project_without_ports_is_refused(out: Path):
    (out / "graph2" / "ports" / "network_graph2_axi.cpp").unlink()
    with pytest.raises(FileNotFoundError, match=r"graph2 has no ports: write it again with `make hls`"):
        stitch.prepare(out, load_board("zcu104"))
