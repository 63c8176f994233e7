"""The Zynq flow's scripts, run to their end for every Zynq board in a Tcl interpreter whose Vivado commands are modelled (vivado_model)."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from vivado_model import Vivado, VivadoError

from hw.board import Board, VivadoBuild, board_names, load_board
from hw.isa import REGISTER_BITS, Register
from hw.synth import vivado, wrapper
from hw.synth.kernel import VLNV

BOARDS = [name for name in board_names() if isinstance(load_board(name).build, VivadoBuild)]
SCRIPT = vivado.SCRIPTS / "zynq.tcl"


def run(board: Board, out: Path, script: Path = SCRIPT) -> Vivado:
    """The whole script for ``board``."""
    assert isinstance(board.build, VivadoBuild)
    work = vivado.prepare(board, out)
    model = Vivado(board_parts=(f"{board.build.board_part}:1.0", f"{board.build.board_part}:1.1"))
    model.run(script, work / "parameters.tcl", work)
    return model


@pytest.fixture(scope="module", params=BOARDS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Board, Vivado]:
    board = load_board(request.param)
    return board, run(board, tmp_path_factory.mktemp(board.name))


def test_the_script_runs_from_rtl_to_bitstream(built: tuple[Board, Vivado]):
    _, model = built
    names = [call.name for call in model.calls]
    order = [
        "ipx::package_project",
        "create_bd_design",
        "validate_bd_design",
        "synth_design",
        "opt_design",
        "place_design",
    ]
    order += ["phys_opt_design", "route_design", "report_timing_summary", "write_bitstream"]
    assert [names.index(name) for name in order] == sorted(names.index(name) for name in order)
    steps = [line.removeprefix("quarkwave step: ") for line in model.printed]
    assert steps == [start.removeprefix(vivado.STEP) for start in vivado.PHASES if start.startswith(vivado.STEP)]


def test_the_ip_has_the_interfaces_of_the_wrapper_all_on_its_clock(built: tuple[Board, Vivado]):
    board, model = built
    axi = [interface.name for interface in wrapper.interfaces(board.array)]
    assert model.clock_of == dict.fromkeys(axi, wrapper.CLOCK)
    assert set(model.bus_interfaces) == {*axi, wrapper.CLOCK, wrapper.RESET, wrapper.INTERRUPT}
    assert model.cells["npu"].vlnv == VLNV == "quarkwave:npu:npu:1.0"


def test_the_ip_shows_every_register_at_its_offset(built: tuple[Board, Vivado]):
    board, model = built
    offsets = {name: int(model.properties[f"register:{name}", "address_offset"]) for name in model.registers}
    assert offsets["CTRL"] == Register.CONTROL
    assert offsets["IMAGE"] == Register.IMAGE_ADDRESS
    assert offsets["FEATURES"] == Register.FEATURE_ADDRESS
    for i in range(board.array.ports):
        assert offsets[f"PROGRAM_{i}"] == Register.PROGRAM_ADDRESS + 8 * i
        assert model.properties[f"register:PROGRAM_{i}:ASSOCIATED_BUSIF", "value"] == f"m_axi_weights_{i}"
    plain = {register.name: int(register) for register in Register if register.name in offsets}
    assert offsets.items() >= plain.items() and len(plain) >= 15
    ends = sorted((o, o + int(model.properties[f"register:{n}", "size"]) // 8) for n, o in offsets.items())
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))


def test_every_master_reaches_the_memory_port_of_the_board_file(built: tuple[Board, Vivado]):
    board, model = built
    assert isinstance(board.build, VivadoBuild)
    masters = [interface.name for interface in wrapper.masters(board.array)]
    reached = [model.slave_behind(f"npu/{master}") for master in masters]
    assert reached == [f"ps/{port}" for port in board.build.memory_ports]


def test_memory_ports_are_as_wide_as_the_array_wants_them(built: tuple[Board, Vivado]):
    board, model = built
    config = model.cells["ps"].config
    widths = {value for key, value in config.items() if re.search(r"SAXIGP\d__DATA_WIDTH|S_AXI_HP\d_DATA_WIDTH", key)}
    assert widths == {str(8 * board.array.port_bytes)}


def test_the_processor_reaches_the_registers(built: tuple[Board, Vivado]):
    _, model = built
    [(segment, (base, size))] = model.addresses.items()
    assert segment == f"npu/{wrapper.REGISTER_INTERFACE}/reg0"
    assert size == 1 << REGISTER_BITS
    assert base in (0xA0000000, 0x43C00000)
    [control] = [master for master in model.partner if master.startswith("ps/")]
    assert model.slave_behind(control) == f"npu/{wrapper.REGISTER_INTERFACE}"


def test_one_clock_of_the_boards_frequency_drives_everything(built: tuple[Board, Vivado]):
    board, model = built
    source = model.driver[f"npu/{wrapper.CLOCK}"]
    assert source in ("ps/pl_clk0", "ps/FCLK_CLK0")
    [megahertz] = [value for key, value in model.cells["ps"].config.items() if key.endswith("FREQMHZ")]
    assert float(megahertz) == board.array.clock_mhz


def test_interrupt_and_reset_are_wired(built: tuple[Board, Vivado]):
    _, model = built
    [sink] = [sink for sink, source in model.driver.items() if source == f"npu/{wrapper.INTERRUPT}"]
    assert sink in ("ps/pl_ps_irq0", "ps/IRQ_F2P")
    assert model.driver[f"npu/{wrapper.RESET}"] == "reset/peripheral_aresetn"
    assert model.driver["reset/ext_reset_in"] in ("ps/pl_resetn0", "ps/FCLK_RESET0_N")


def test_part_constraints_and_newest_board_files_are_used(built: tuple[Board, Vivado]):
    board, model = built
    assert board.device and isinstance(board.build, VivadoBuild)
    assert {call.options["-part"] for call in model.calls if "-part" in call.options} == {board.device.part}
    assert str(board.constraints) in model.files
    assert model.properties["project", "board_part"] == f"{board.build.board_part}:1.1"


# ---------------------------------------------------------------------------------------------------------------------
# Each check can fail: a mistake in script or board file is caught
# ---------------------------------------------------------------------------------------------------------------------


def spoilt(tmp_path: Path, file: str, old: str, new: str) -> Path:
    """The scripts with one change; the path of zynq.tcl among them."""
    for source in vivado.SCRIPTS.glob("*.tcl"):
        text = source.read_text()
        if source.name == file:
            assert old in text, f"{file} no longer holds {old!r}"
            text = text.replace(old, new, 1)
        (tmp_path / source.name).write_text(text)
    return tmp_path / "zynq.tcl"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("zynq.tcl", "place_design -directive Explore", "place_desing", "invalid command name 'place_desing'"),
        (
            "zynq.tcl",
            "route_design -directive AggressiveExplore",
            "route_design -effort high",
            "unknown option -effort",
        ),
        ("zynq.tcl", "opt_design -directive Explore", "opt_design -directive Exploree", "no directive Exploree"),
        ("zynq.tcl", "write_bitstream -force npu.bit", "write_bitstream -force", "write_bitstream: 0 arguments"),
        ("zynq.tcl", "reset/peripheral_aresetn $npu", "reset/peripheral_areset $npu", "has no pin peripheral_areset"),
        ("zynq.tcl", "fan_out [lindex $npus 0]/[dict get $p interrupt]", "# fan_out", "loose pins pl_ps_irq0"),
        ("zynq.tcl", "npu/[dict get $p register_interface]/reg0", "npu/s_axi/reg0", "npu has no interface s_axi"),
        ("zynq.tcl", "\nassign_bd_address\n", "\n", "masters without addresses"),
        ("zynq.tcl", "get_bd_intf_pins $member", "get_bd_intf_pins npu/m_axi_image", "is connected already"),
        ("zynq.tcl", "foreach port $distinct_ports {", "foreach port $distinct_ports", "wrong # args"),
        (
            "processing_system.tcl",
            "CONFIG.PSU__USE__IRQ0",
            "CONFIG.PSU__USE_IRQ0",
            "has no parameter CONFIG.PSU__USE_IRQ0",
        ),
        ("processing_system.tcl", "] + 2}", "] + 1}", "has no interface S_AXI_HP3_FPD"),
        ("package_ip.tcl", "dict get $p interfaces", "list m_axi_bogus", "did not recognise interface m_axi_bogus"),
    ],
)
def test_a_mistake_in_a_script_is_caught(tmp_path: Path, file: str, old: str, new: str, message: str):
    script = spoilt(tmp_path, file, old, new)
    with pytest.raises(VivadoError, match=message):
        run(load_board("zcu104"), tmp_path / "out", script)


def test_a_memory_port_that_the_processor_lacks_is_named(tmp_path: Path):
    board = load_board("zcu104")
    assert isinstance(board.build, VivadoBuild)
    ports = ("S_AXI_HP7_FPD", *board.build.memory_ports[1:])
    with pytest.raises(VivadoError, match="memory port S_AXI_HP7_FPD: the processing system's ports look like"):
        run(replace(board, build=replace(board.build, memory_ports=ports)), tmp_path)


def test_missing_board_files_end_with_what_to_install(tmp_path: Path):
    board = load_board("kv260")
    work = vivado.prepare(board, tmp_path)
    with pytest.raises(VivadoError, match=r"no board files for xilinx\.com:kv260_som:part0: install them"):
        Vivado(board_parts=()).run(SCRIPT, work / "parameters.tcl", work)


@pytest.mark.parametrize("text", ["plain", "with space", "$dollar [bracket]", 'quote"', "semi;colon", "#hash", ""])
def test_a_value_reaches_tcl_as_it_is(tmp_path: Path, text: str):
    script = tmp_path / "show.tcl"
    script.write_text(
        "source [lindex $argv 0]\nforeach item [dict get $p list] { puts <$item> }\nputs <[dict get $p key]>\n"
    )
    (tmp_path / "parameters.tcl").write_text(f"set p {vivado.tcl({'key': text, 'list': [text, 1]})}\n")
    model = Vivado(board_parts=())
    model.run(script, tmp_path / "parameters.tcl", tmp_path)
    assert model.printed == [f"<{text}>", "<1>", f"<{text}>"]
