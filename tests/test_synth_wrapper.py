"""Module npu_top: its ports as Verilator elaborates them from the generated text, on top of the real RTL, for every board."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from hw.board import board_names
from hw.isa import load_config
from hw.sources import rtl_sources
from hw.synth import wrapper
from sim.toolchain import use_verilator

BOARDS = board_names()


def elaborate(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Verilator's elaboration of npu_top and all below it, as JSON in ``folder``."""
    use_verilator()
    (folder / "npu_top.v").write_text(text)
    sources = [str(path) for path in rtl_sources("npu")]
    # SYMRSVDWORD: Vitis prescribes the name "interrupt". PINCONNECTEMPTY and the like in generated registers have their own waivers.
    command = [
        "verilator",
        "--json-only",
        "-Wall",
        "-Wno-SYMRSVDWORD",
        "--Mdir",
        str(folder),
        "--top-module",
        "npu_top",
    ]
    return subprocess.run([*command, *sources, str(folder / "npu_top.v")], capture_output=True, text=True, check=False)


def elaborated_ports(folder: Path) -> set[wrapper.Port]:
    """Name, direction and width of every port of the top module, from the JSON tree."""
    tree = json.loads((folder / "Vnpu_top.tree.json").read_text())
    [top] = [module for module in tree["modulesp"] if module["name"] == "npu_top"]
    types: dict[str, int] = {}

    def visit(node: object) -> None:
        if isinstance(node, dict):
            if node.get("type") == "BASICDTYPE":
                low, _, high = str(node.get("range", "0:0")).partition(":")
                types[node["addr"]] = abs(int(low) - int(high or low)) + 1
            for child in node.values():
                visit(child)
        elif isinstance(node, list):
            for child in node:
                visit(child)

    visit(tree)
    return {
        wrapper.Port(node["name"], node["direction"] == "OUTPUT", types[node["dtypep"]])
        for node in top["stmtsp"]
        if node["type"] == "VAR" and node["direction"] in ("INPUT", "OUTPUT")
    }


def connected(folder: Path) -> dict[str, list[str]]:
    """For each port of npu.sv, the wrapper's ports that it is connected to, most significant bits first, from the JSON tree."""
    tree = json.loads((folder / "Vnpu_top.tree.json").read_text())
    [top] = [module for module in tree["modulesp"] if module["name"] == "npu_top"]
    [cell] = [node for node in top["stmtsp"] if node["type"] == "CELL"]

    def names(node: object) -> list[str]:
        if isinstance(node, list):
            return [name for child in node for name in names(child)]
        if not isinstance(node, dict):
            return []
        if node["type"] == "VARREF":
            return [node["name"]]
        if node["type"] == "CONCAT":  # left is the more significant
            return [*names(node["lhsp"]), *names(node["rhsp"])]
        return [name for key, child in node.items() if key.endswith("p") for name in names(child)]

    return {pin["name"]: names(pin["exprp"]) for pin in cell["pinsp"]}


@pytest.mark.parametrize("name", BOARDS)
def test_each_lane_of_the_weight_ports_is_its_own_interface(tmp_path: Path, name: str):
    config = load_config(name)
    assert elaborate(tmp_path, wrapper.wrapper_text(config)).returncode == 0
    pins = connected(tmp_path)
    for signal in ("araddr", "arlen", "arvalid", "arready", "rdata", "rlast", "rvalid", "rready"):
        lanes = list(reversed(pins[f"m_axi_weights_{signal}"]))  # lane 0 holds the least significant bits
        assert lanes == [f"m_axi_weights_{i}_{signal}" for i in range(config.ports)]
    plain = {pin: outer for pin, outer in pins.items() if "weights" not in pin and "_axi_" in pin}
    assert all(outer == [pin.replace("s_axi_", "s_axi_control_")] for pin, outer in plain.items())


def test_swapped_lanes_are_caught(tmp_path: Path):
    text = wrapper.wrapper_text(load_config("u250"))
    swapped = text.replace(
        "{m_axi_weights_1_rdata, m_axi_weights_0_rdata}", "{m_axi_weights_0_rdata, m_axi_weights_1_rdata}"
    )
    assert swapped != text
    assert elaborate(tmp_path, swapped).returncode == 0  # no linter sees it
    assert connected(tmp_path)["m_axi_weights_rdata"] == ["m_axi_weights_0_rdata", "m_axi_weights_1_rdata"]


@pytest.mark.parametrize("name", BOARDS)
def test_the_elaborated_ports_are_those_that_the_flows_are_told(tmp_path: Path, name: str):
    config = load_config(name)
    done = elaborate(tmp_path, wrapper.wrapper_text(config))
    assert done.returncode == 0, done.stderr  # -Wall: a width or a name that differs from npu.sv's would be a warning
    assert elaborated_ports(tmp_path) == set(wrapper.ports(config))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[511:0] m_axi_image_rdata", "[255:0] m_axi_image_rdata", "WIDTH"),
        (".m_axi_image_rlast(", ".m_axi_image_last(", "PINNOTFOUND"),
        ("    .m_axi_features_bvalid(m_axi_features_bvalid),\n", "", "PINMISSING"),
        ("output wire m_axi_image_rready", "input wire m_axi_image_rready", "image_rready"),
    ],
)
def test_a_port_that_differs_from_the_rtl_is_caught(tmp_path: Path, old: str, new: str, complaint: str):
    text = wrapper.wrapper_text(load_config("u250"))
    assert old in text
    done = elaborate(tmp_path, text.replace(old, new, 1))
    assert done.returncode != 0
    assert complaint in done.stderr


@pytest.mark.parametrize("name", BOARDS)
def test_every_port_is_annotated_as_part_of_an_interface(name: str):
    config = load_config(name)
    text = wrapper.wrapper_text(config)
    declaration = r"X_INTERFACE_INFO = .\S+ (\w+ \w+). \*\)\n(?:.*X_INTERFACE_PARAMETER.*\n)?\s+(?:in|out)put wire.*? (\w+)(?:,|\n)"
    annotated = dict(re.findall(declaration, text))
    expected = {
        f"{i.name} {s.name.upper()}": f"{i.name}_{s.name}" for i in wrapper.interfaces(config) for s in i.signals
    }
    assert {k: v for k, v in annotated.items() if "_axi_" in k} == expected
    assert set(annotated.values()) == {port.name for port in wrapper.ports(config)}


@pytest.mark.parametrize("name", BOARDS)
def test_each_interface_says_its_protocol_and_widths_once(name: str):
    config = load_config(name)
    found = re.findall(r'X_INTERFACE_PARAMETER = "XIL_INTERFACENAME (\w+), (.*?)" \*\)', wrapper.wrapper_text(config))
    parameters = {interface: dict(item.split(" ") for item in rest.split(", ")) for interface, rest in found}
    assert len(found) == len(parameters)
    assert parameters["s_axi_control"]["PROTOCOL"] == "AXI4LITE"
    assert parameters["m_axi_features"]["READ_WRITE_MODE"] == "WRITE_ONLY"
    for i in range(config.ports):
        weights = parameters[f"m_axi_weights_{i}"]
        assert weights["READ_WRITE_MODE"] == "READ_ONLY"
        assert int(weights["DATA_WIDTH"]) == 8 * config.port_bytes
    assert parameters["ap_clk"]["ASSOCIATED_BUSIF"].split(":") == [i.name for i in wrapper.interfaces(config)]


def test_the_longest_burst_is_the_rtls():
    rtl = {path.stem: path.read_text() for path in rtl_sources("npu")}
    for module in ("axi_read_dma", "axi_write_dma"):
        assert f"parameter int unsigned BURST_BEATS = {wrapper.BURST_BEATS}" in rtl[module]
    assert ".BURST_BEATS" not in rtl["npu"]
