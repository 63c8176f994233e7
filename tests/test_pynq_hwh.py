"""The .hwh that we write: it says what Vivado's script builds, and the real pynq reads it."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from vivado_model import Vivado

from hw.board import Board, VivadoBuild, board_names, load_board
from hw.isa import REGISTER_BITS, ConfigurationError, Register
from hw.synth import vivado, wrapper
from hw.synth.hwh import CONTROLLER, hwh_text
from hw.synth.kernel import VLNV
from hw.synth.processing_system import DIVISOR_MAX, divisors
from sim.board import Metadata, RuntimeMetadataParser

BOARDS = [name for name in board_names() if isinstance(load_board(name).build, VivadoBuild)]


@pytest.fixture(scope="module", params=[*BOARDS, "zcu104 x 2", "pynq-z2 x 3"])
def board(request: pytest.FixtureRequest) -> Board:
    name, _, npus = request.param.partition(" x ")
    board = load_board(name)
    assert isinstance(board.build, VivadoBuild)
    return replace(board, build=replace(board.build, npus=int(npus or 1)))


@pytest.fixture(scope="module")
def handoff(board: Board) -> ElementTree.Element:
    return ElementTree.fromstring(hwh_text(board).partition("\n")[2])


@pytest.fixture(scope="module")
def script(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Vivado:
    """What zynq.tcl builds for the board."""
    assert isinstance(board.build, VivadoBuild)
    work = vivado.prepare(board, tmp_path_factory.mktemp(board.name))
    model = Vivado(board_parts=(f"{board.build.board_part}:1.0",))
    model.run(vivado.SCRIPTS / "zynq.tcl", work / "parameters.tcl", work)
    return model


@pytest.fixture(scope="module")
def parsed(board: Board, tmp_path_factory: pytest.TempPathFactory) -> RuntimeMetadataParser:
    path = tmp_path_factory.mktemp(board.name) / "npu.hwh"
    path.write_text(hwh_text(board))
    return RuntimeMetadataParser(Metadata(input=str(path)))


def test_the_cells_are_those_of_the_script(handoff: ElementTree.Element, script: Vivado):
    kinds = {module.get("INSTANCE"): module.get("MODTYPE") for module in handoff.iter("MODULE")}
    assert kinds == {name: cell.kind for name, cell in script.cells.items()}


def test_every_pin_is_driven_as_in_the_script(handoff: ElementTree.Element, script: Vivado):
    driven = {}
    for module in handoff.iter("MODULE"):
        for port in module.iter("PORT"):
            if port.get("DIR") == "I":
                [source] = port.iter("CONNECTION")
                driven[f"{module.get('INSTANCE')}/{port.get('NAME')}"] = (
                    f"{source.get('INSTANCE')}/{source.get('PORT')}"
                )
    assert driven == script.driver


def test_every_bus_ends_where_it_does_in_the_script(handoff: ElementTree.Element, script: Vivado):
    ends: dict[str, dict[str, str]] = {"MASTER": {}, "SLAVE": {}}
    for module in handoff.iter("MODULE"):
        for bus in module.iter("BUSINTERFACE"):
            ends[bus.attrib["TYPE"]][bus.attrib["BUSNAME"]] = f"{module.get('INSTANCE')}/{bus.get('NAME')}"
    assert ends["MASTER"].keys() == ends["SLAVE"].keys()
    assert {ends["MASTER"][bus]: ends["SLAVE"][bus] for bus in ends["MASTER"]} == script.partner


def test_pynq_finds_the_ip_at_the_address_of_the_script(parsed: RuntimeMetadataParser, script: Vivado):
    npus = {name: ip for name, ip in parsed.ip_dict.items() if ip["type"] == VLNV}
    assert sorted(npus) == sorted(name for name, cell in script.cells.items() if cell.kind == "npu")
    for name, npu in npus.items():
        assert (npu["phys_addr"], npu["addr_range"]) == script.addresses[f"{name}/{wrapper.REGISTER_INTERFACE}/reg0"]
        assert npu["addr_range"] == 1 << REGISTER_BITS
    if len(npus) > 1:
        controller = parsed.ip_dict[CONTROLLER]
        assert (controller["phys_addr"], controller["addr_range"]) == script.addresses[f"{CONTROLLER}/s_axi/Reg"]


def test_pynq_finds_the_registers_of_the_ip(parsed: RuntimeMetadataParser, script: Vivado):
    registers = next(ip for ip in parsed.ip_dict.values() if ip["type"] == VLNV)["registers"]
    assert set(registers) == set(script.registers)
    assert registers["RUNS"]["address_offset"] == Register.RUNS
    offsets = {name: int(script.properties[f"register:{name}", "address_offset"]) for name in script.registers}
    assert {name: register["address_offset"] for name, register in registers.items()} == offsets


def test_pynq_sets_the_clock_that_the_script_asks_for(board: Board, parsed: RuntimeMetadataParser, script: Vivado):
    [wanted] = [float(value) for key, value in script.cells["ps"].config.items() if key.endswith("FREQMHZ")]
    first, *others = parsed.clock_dict.values()
    nominal = {"zynq_ultra_ps_e": 1500.0, "processing_system7": 1000.0}[parsed.family_ps]
    assert nominal / (first["divisor0"] * first["divisor1"]) == wanted == board.array.clock_mhz
    assert first["enable"] == 1 and not any(other["enable"] for other in others)


def test_the_interrupt_goes_to_the_first_line_that_pynq_serves(parsed: RuntimeMetadataParser):
    [line] = parsed.ps.get_irqs.values()
    [source] = line._connections.values()
    several = len(parsed.interrupt_controllers)
    driver = (CONTROLLER, "irq") if several else ("npu", wrapper.INTERRUPT)
    assert (source.parent().parent().hierarchy_name, source.name) == driver
    assert parsed.ps.irq_map[0] in (121, 61)  # pl_ps_irq0[0] and IRQ_F2P[0] in the GIC (UG1085, UG585)


@pytest.mark.parametrize("mhz", [100.0, 150.0, 214.0, 250.0, 300.0, 0.5])
def test_the_divisors_fit_their_registers_and_make_the_clock(mhz: float):
    first, second = divisors(1500.0, mhz)
    assert 1 <= first <= DIVISOR_MAX and 1 <= second <= DIVISOR_MAX
    assert abs(1500.0 / (first * second) - mhz) <= 0.01 * mhz


@pytest.mark.parametrize("mhz", [0.0, 400.0, 0.1])
def test_a_clock_that_cannot_be_divided_is_refused(mhz: float):
    with pytest.raises(ConfigurationError, match="MHz"):
        divisors(1500.0, mhz)


@pytest.mark.parametrize("name", ["u250", "sim-small", "ecp5-85f"])
def test_only_a_zynq_board_has_a_handoff(name: str):
    with pytest.raises(ConfigurationError, match="is no Zynq board"):
        hwh_text(load_board(name))


def test_another_memory_port_changes_the_handoff():
    board = load_board("zcu104")
    assert isinstance(board.build, VivadoBuild)
    ports = ("S_AXI_HP3_FPD", *board.build.memory_ports[1:])
    assert hwh_text(replace(board, build=replace(board.build, memory_ports=ports))) != hwh_text(board)


def test_the_handoff_is_written_beside_the_bitstream(tmp_path: Path):
    from sim.board import SimulatedBoard, on_zynq

    board = on_zynq(load_board("sim-small").array)
    with SimulatedBoard(board) as simulated:
        bitstream = simulated.bitstream(tmp_path)
    assert bitstream.with_suffix(".hwh").read_text() == hwh_text(board)
