"""The Alveo flow: kernel.xml and link.cfg by the vendor's rules, the packaging script, v++'s command line."""

import configparser
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from vivado_model import Vivado, VivadoError

from hw.board import VitisBuild, load_board
from hw.isa import ArrayConfig, Register, load_config
from hw.synth import kernel, vitis, vivado, wrapper
from hw.synth.kernel import arguments, kernel_xml, link_configuration

CONFIGS = ("u250", "zcu104", "sim-small")


class KernelError(Exception):
    """kernel.xml breaks a rule of UG1702, "RTL Kernel XML File"."""


RULES = {
    "kernel": {
        "name": r"\w+",
        "language": "ip_c",
        "vlnv": r"[\w.]+(:[\w.]+){3}",
        "attributes": "",
        "preferredWorkGroupSizeMultiple": "0",
        "workGroupSize": "1",
        "interrupt": "true|false",
        "hwControlProtocol": "ap_ctrl_hs|ap_ctrl_chain|ap_ctrl_none|user_managed",
    },
    "port": {
        "name": r"\w+",
        "mode": "master|slave",
        "range": "0x[0-9A-Fa-f]+",
        "dataWidth": r"\d+",
        "portType": "addressable",
        "base": "0x0",
    },
    "arg": {
        "name": r"[A-Za-z_]\w*",
        "addressQualifier": "[01]",
        "id": r"\d+",
        "port": r"\w+",
        "size": "0x[48]",
        "offset": "0x[0-9a-f]+",
        "type": r"[\w ]+\*?",
        "hostOffset": "0x0",
        "hostSize": "0x[48]",
    },
}
"""The attributes of each element, all of them required, and what each may hold."""


def check_kernel(text: str, config: ArrayConfig) -> None:
    """Raise KernelError where kernel.xml breaks the format's rules, or differs from the registers or the RTL's ports."""
    root = ElementTree.fromstring(text)
    if (root.tag, root.attrib) != ("root", {"versionMajor": "1", "versionMinor": "6"}):
        raise KernelError("root")
    for element in root.iter():
        rules = RULES.get(element.tag, {})
        if element.tag != "root" and element.attrib.keys() != rules.keys():
            raise KernelError(f"{element.tag} has attributes {sorted(element.attrib)}")
        for key, value in element.attrib.items():
            if key in rules and not re.fullmatch(rules[key], value):
                raise KernelError(f"{element.tag} {element.get('name')}: {key}={value!r}")
    ports = {port.attrib["name"]: port.attrib for port in root.iterfind("kernel/ports/port")}
    interfaces = {interface.name: interface for interface in wrapper.interfaces(config)}
    if ports.keys() != interfaces.keys():
        raise KernelError(f"ports {sorted(ports)} are not the RTL's {sorted(interfaces)}")
    for name, port in ports.items():
        expected = ("master" if interfaces[name].master else "slave", interfaces[name].data_bits)
        if (port["mode"], int(port["dataWidth"])) != expected:
            raise KernelError(f"port {name} is {port['mode']} of {port['dataWidth']} bits, the RTL's is {expected}")
    if [port["mode"] for port in ports.values()].count("slave") != 1:
        raise KernelError("a kernel has one AXI4-Lite slave")
    args = [arg.attrib for arg in root.iterfind("kernel/args/arg")]
    if [int(arg["id"]) for arg in args] != list(range(len(args))):
        raise KernelError("ids are not 0, 1, 2, ...")
    if len({arg["name"] for arg in args}) != len(args):
        raise KernelError("names are not unique")
    spans = []
    for arg in args:
        pointer = arg["addressQualifier"] == "1"
        if arg["port"] not in ports or (ports[arg["port"]]["mode"] == "master") != pointer:
            raise KernelError(f"arg {arg['name']} cannot use port {arg['port']}")
        if (int(arg["size"], 16), arg["hostSize"]) != (8 if pointer else 4, arg["size"]):
            raise KernelError(f"arg {arg['name']} has size {arg['size']}")
        spans.append((int(arg["offset"], 16), int(arg["offset"], 16) + int(arg["size"], 16)))
    # 0x00 to 0x0f are the control registers.
    if any(start < 0x10 for start, _ in spans) or any(
        a[1] > b[0] for a, b in zip(sorted(spans), sorted(spans)[1:], strict=False)
    ):
        raise KernelError("arguments overlap")
    if {arg["port"] for arg in args} != set(ports):
        raise KernelError("a port that no argument uses")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_kernel_description_keeps_the_formats_rules(name: str):
    check_kernel(kernel_xml(load_config(name)), load_config(name))


@pytest.mark.parametrize("name", CONFIGS)
def test_arguments_lie_at_the_registers_of_the_rtl(name: str):
    config = load_config(name)
    root = ElementTree.fromstring(kernel_xml(config))
    offsets = {arg.attrib["name"]: int(arg.attrib["offset"], 16) for arg in root.iterfind("kernel/args/arg")}
    programs = {f"program_{i}": Register.PROGRAM_ADDRESS + 8 * i for i in range(config.ports)}
    assert offsets == {
        **programs,
        "image": Register.IMAGE_ADDRESS,
        "features": Register.FEATURE_ADDRESS,
        "program_beats": Register.PROGRAM_BEATS,
        "watchdog": Register.WATCHDOG,
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('language="ip_c"', 'language="c"', "language='c'"),
        ('workGroupSize="1"', "", "kernel has attributes"),
        ('"m_axi_image" mode="master"', '"m_axi_pixels" mode="master"', "are not the RTL's"),
        ('"m_axi_image" mode="master"', '"m_axi_image" mode="slave"', "port m_axi_image is slave"),
        ('dataWidth="512"', 'dataWidth="256"', "of 256 bits"),
        ('id="2"', 'id="1"', "ids are not"),
        ('port="m_axi_image"', 'port="s_axi_control"', "arg image cannot use port s_axi_control"),
        ('offset="0x38"', 'offset="0x34"', "overlap"),
        ('offset="0x10"', 'offset="0x8"', "overlap"),
        ('size="0x8" offset="0x30"', 'size="0x4" offset="0x30"', "arg image has size 0x4"),
        ('name="features"', 'name="image"', "names are not unique"),
    ],
)
def test_each_rule_catches_its_mistake(old: str, new: str, message: str):
    config = load_config("u250")
    text = kernel_xml(config)
    assert old in text
    with pytest.raises(KernelError, match=message):
        check_kernel(text.replace(old, new, 1), config)


def link_file(text: str) -> list[tuple[str, str]]:
    """The (key, value) lines of [connectivity]; keys repeat, so configparser reads them one by one."""
    parser = configparser.ConfigParser(strict=False)
    parser.read_string(text)
    assert parser.sections() == ["connectivity"]
    return [tuple(line.split("=", 1)) for line in text.splitlines() if "=" in line]  # type: ignore[misc]


def test_each_core_lies_in_its_slr_with_all_masters_on_its_memory():
    board = load_board("u250")
    assert isinstance(board.build, VitisBuild)
    lines = link_file(link_configuration(board))
    assert ("nk", "npu:4") in lines
    assert [value for key, value in lines if key == "slr"] == [f"npu_{i + 1}:SLR{i}" for i in range(4)]
    masters = [interface.name for interface in wrapper.masters(board.array)]
    expected = {f"npu_{i + 1}.{master}:DDR[{i}]" for i in range(4) for master in masters}
    assert {value for key, value in lines if key == "sp"} == expected


def test_fewer_cores_are_linked_when_the_board_file_says_so():
    board = load_board("u250")
    assert isinstance(board.build, VitisBuild)
    one = replace(board, build=replace(board.build, cores=("SLR2:DDR[2]",)))
    assert link_file(link_configuration(one))[:2] == [("nk", "npu:1"), ("slr", "npu_1:SLR2")]


def package(tmp_path: Path, script: Path) -> Vivado:
    """The packaging script, run to its end on the modelled Vivado."""
    board = load_board("u250")
    work = vivado.prepare(board, tmp_path)
    (work / "kernel.xml").write_text(kernel_xml(board.array))
    parameters = vivado.tcl({**vivado.parameters(board, work), "kernel_xml": work / "kernel.xml"})
    (work / "parameters.tcl").write_text(f"set p {parameters}\n")
    model = Vivado(board_parts=())
    model.run(script, work / "parameters.tcl", work)
    return model


def test_the_kernel_object_is_made_of_the_ip_and_its_description(tmp_path: Path):
    model = package(tmp_path, vivado.SCRIPTS / "alveo.tcl")
    [call] = model.named("package_xo")
    assert call.options["-kernel_name"] == kernel.NAME
    assert Path(call.options["-kernel_xml"]).is_file()
    [packaged] = model.named("ipx::package_project")
    assert call.options["-ip_directory"] == packaged.options["-root_dir"]
    assert (model.properties["core", "sdx_kernel"], model.properties["core", "sdx_kernel_type"]) == ("true", "rtl")
    assert model.properties["core", "vitis_drc"] == "ctrl_protocol ap_ctrl_hs"
    vlnv = [model.properties["core", key] for key in ("name", "version")]
    assert kernel.VLNV.split(":") == [packaged.options["-vendor"], packaged.options["-library"], *vlnv]


def test_the_packager_and_the_description_name_the_same_interfaces(tmp_path: Path):
    model = package(tmp_path, vivado.SCRIPTS / "alveo.tcl")
    axi = {name: kind for name, kind in model.bus_interfaces.items() if kind in ("master", "slave")}
    root = ElementTree.fromstring(kernel_xml(load_config("u250")))
    assert {port.attrib["name"]: port.attrib["mode"] for port in root.iterfind("kernel/ports/port")} == axi


def test_a_mistake_in_the_packaging_script_is_caught(tmp_path: Path):
    for source in vivado.SCRIPTS.glob("*.tcl"):
        text = source.read_text().replace("-kernel_xml", "-kernel_description")
        (tmp_path / source.name).write_text(text)
    with pytest.raises(VivadoError, match="unknown option -kernel_description"):
        package(tmp_path / "out", tmp_path / "alveo.tcl")


def test_the_linker_is_told_platform_clock_and_places(tmp_path: Path):
    board = load_board("u250")
    command = vitis.link_command(Path("/opt/v++"), board, tmp_path / "link.cfg")
    options = dict(pairwise(command))
    assert isinstance(board.build, VitisBuild)
    assert options["--platform"] == board.build.platform
    assert options["--config"] == str(tmp_path / "link.cfg")
    assert float(options["--kernel_frequency"]) == board.array.clock_mhz
    assert options["--output"] == "npu.xclbin" and command[-1] == "npu.xo"


def test_every_pointer_belongs_to_one_master():
    config = load_config("u250")
    pointers = [argument for argument in arguments(config) if argument.pointer]
    assert [argument.port for argument in pointers] == [interface.name for interface in wrapper.masters(config)]
