"""The script that stitches the sub-projects, run to its end in a Tcl interpreter whose Vivado commands are modelled; its adapter in RTL."""

import json
import os
import random
import sys
from pathlib import Path

import cocotb
import pytest
import vivado_commands
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotb_tools.runner import get_runner
from vivado_commands import Signature
from vivado_model import VivadoError
from vivado_streams import StreamVivado

from hls.vitis import stitch
from hls.vitis.csynth import ReportError
from hw.board import Board, VivadoBuild, board_names, load_board
from hw.isa import ConfigurationError
from hw.sources import BUILD
from sim.bench import MAKE_OPTIONS
from sim.toolchain import use_verilator

BOARDS = [name for name in board_names() if isinstance(load_board(name).build, VivadoBuild)]
PROJECTS = {
    "network_graph1": {"image": ("slave", 3), "layer20_out": ("master", 152)},
    "network_graph2": {"s2b0relu_input": ("slave", 152), "layer31_out": ("master", 152)},
    "network_graph3": {"s2b1relu_input": ("slave", 152), "layer196_out": ("master", 768)},
}


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more of Vivado's commands take part here: UG835."""
    monkeypatch.setitem(vivado_commands.COMMANDS, "get_property", Signature(("-min", "-max"), (), 2, 2))
    monkeypatch.setitem(
        vivado_commands.COMMANDS, "create_bd_cell", Signature((), ("-vlnv", "-type", "-reference", "-revision"), 1, 1)
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return written(tmp_path, load_board("zcu104"))


def written(out: Path, board: Board, projects: dict[str, dict[str, tuple[str, int]]] = PROJECTS) -> Path:
    """What `make hls` leaves for ``board``, as far as the script needs it."""
    assert board.device
    for number, (name, streams) in enumerate(projects.items(), 1):
        project = out / f"graph{number}"
        (project / "firmware").mkdir(parents=True)
        (project / "project.tcl").write_text(f'set project_name "{name}"\n')
        (project / "firmware" / f"{name}.cpp").write_text(f"    #pragma HLS INTERFACE axis port={','.join(streams)} \n")
    facts = {"part": board.device.part, "clock_ns": 5.0, "result_words": 1}
    (out / "report.json").write_text(json.dumps(facts))
    return out


def run(out: Path, board: Board, projects: dict[str, dict[str, tuple[str, int]]] = PROJECTS) -> StreamVivado:
    parameters = stitch.prepare(out, board)
    assert isinstance(board.build, VivadoBuild)
    model = StreamVivado((f"{board.build.board_part}:1.0",), projects)
    model.run(stitch.SCRIPT, parameters, parameters.parent)
    return model


@pytest.fixture(scope="module", params=BOARDS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StreamVivado:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vivado_commands.COMMANDS, "get_property", Signature(("-min", "-max"), (), 2, 2))
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
    assert chain == ["pixels", *PROJECTS, "features", "dma"]


def test_the_adapters_have_the_widths_of_the_ports(built: StreamVivado):
    assert built.cells["pixels"].config == {"S_TDATA_NUM_BYTES": "4", "M_TDATA_NUM_BYTES": "3"}
    assert built.cells["features"].config == {"WORD_BYTES": "768", "WORDS": "1"}


def test_every_project_is_started_for_ever(built: StreamVivado):
    assert {name: built.driver[f"{name}/ap_start"] for name in PROJECTS} == dict.fromkeys(PROJECTS, "always/dout")
    assert built.cells["always"].config == {"CONST_WIDTH": "1", "CONST_VAL": "1"}


def test_the_dma_reaches_memory_and_is_reached_by_the_processor(built: StreamVivado):
    assert built.slave_behind("dma/M_AXI_MM2S").startswith("ps/S_AXI_HP")
    assert built.slave_behind("dma/M_AXI_S2MM") == built.slave_behind("dma/M_AXI_MM2S")
    assert built.partner["control/M00_AXI"] == "dma/S_AXI_LITE"
    assert built.addresses["dma/S_AXI_LITE/Reg"][1] == 0x10000


def test_one_project_and_pixels_of_32_bits_need_no_converter(tmp_path: Path):
    board = load_board("zcu104")
    only = {"network": {"image": ("slave", 4), "layer9_out": ("master", 8)}}
    model = run(written(tmp_path, board, only), board, only)
    assert "pixels" not in model.cells
    assert model.partner["dma/M_AXIS_MM2S"] == "network/image"


def test_a_project_that_is_not_packaged_is_noticed(out: Path):
    with pytest.raises(VivadoError, match="network_graph3"):
        run(out, load_board("zcu104"), {name: PROJECTS[name] for name in ("network_graph1", "network_graph2")})


@pytest.mark.parametrize(
    ("board", "message"),
    [("u250", "u250 has no processing system"), ("kv260", r"made for xczu7ev.*make hls PART=xck26-")],
)
def test_a_board_that_does_not_suit_is_refused(out: Path, board: str, message: str):
    with pytest.raises(ConfigurationError, match=message):
        stitch.prepare(out, load_board(board))


def test_a_project_without_streams_is_refused(out: Path):
    (out / "graph2" / "firmware" / "network_graph2.cpp").write_text("void network_graph2() {}\n")
    with pytest.raises(ReportError, match="no AXI4-Stream interfaces"):
        stitch.prepare(out, load_board("zcu104"))


# ---------------------------------------------------------------------------------------------------------------------
# features_to_beats.v
# ---------------------------------------------------------------------------------------------------------------------


@cocotb.test()
@cocotb.parametrize(idle=[0.0, 0.6], stall=[0.0, 0.6])
async def words_leave_as_beats_and_the_last_one_of_an_image_is_marked(dut, idle, stall):
    size, words = int(dut.WORD_BYTES.value), int(dut.WORDS.value)
    cocotb.start_soon(Clock(dut.aclk, 10, "ns").start())
    dut.aresetn.value = dut.s_axis_tvalid.value = dut.m_axis_tready.value = 0
    for _ in range(3):
        await RisingEdge(dut.aclk)
    dut.aresetn.value = 1
    sent = [random.randbytes(size) for _ in range(3 * words)]
    expected = [
        (int.from_bytes(word[at : at + 4], "little"), at + 4 >= size and number % words == words - 1)
        for number, word in enumerate(sent)
        for at in range(0, size, 4)
    ]

    async def send() -> None:
        for word in sent:
            while random.random() < idle:
                await RisingEdge(dut.aclk)
            dut.s_axis_tdata.value, dut.s_axis_tvalid.value = int.from_bytes(word, "little"), 1
            await RisingEdge(dut.aclk)
            while not dut.s_axis_tready.value:
                await RisingEdge(dut.aclk)
            dut.s_axis_tvalid.value = 0

    cocotb.start_soon(send())
    found = []
    while len(found) < len(expected):
        ready = random.random() >= stall
        dut.m_axis_tready.value = ready
        await RisingEdge(dut.aclk)
        if ready and dut.m_axis_tvalid.value:
            found.append((int(dut.m_axis_tdata.value), bool(dut.m_axis_tlast.value)))
    assert found == expected


def test_features_to_beats(monkeypatch: pytest.MonkeyPatch):
    use_verilator()
    monkeypatch.setenv("MAKEFLAGS", MAKE_OPTIONS)
    runner, folder = get_runner("verilator"), BUILD / "verilated" / "features_to_beats"
    size, words = 10, 2  # a word is no multiple of a beat
    runner.build(
        sources=[stitch.ADAPTER],
        hdl_toplevel="features_to_beats",
        parameters={"WORD_BYTES": size, "WORDS": words},
        build_args=["-Wall", "-O1"],
        build_dir=folder,
    )
    here = str(Path(__file__).parent)
    runner.test(
        test_module=Path(__file__).stem,
        hdl_toplevel="features_to_beats",
        build_dir=folder,
        test_dir=folder,
        extra_env={"PYTHONPATH": os.pathsep.join([here, *sys.path])},
    )
