"""An HLS network on an Alveo card: v++'s configuration, the kernels that move images and features, the calls of the tools."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import hls4ml
import pytest
from stitched_projects import CHAIN, written
from vendor_tools import Tools
from vitis_reports import TCLSH, report

from driver.streamed import StreamedNetwork
from hls import __main__ as command
from hls.vitis import csim, link, synth
from hls.vitis.ports import ARGUMENT
from hw.board import load_board
from hw.isa import ConfigurationError
from hw.synth import tool
from hw.synth.process import SynthesisError

CARD = load_board("u250")
AP_TYPES = Path(hls4ml.__file__).parent / "templates" / "vivado" / "ap_types"
KERNELS = [link.READER, *(name for name, _, _ in CHAIN), link.WRITER]
COST = {"dsp": 8, "bram18": 2, "uram": 0, "lut": 2000, "ff": 1500}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return written(tmp_path / "out", CARD)


def connectivity(path: Path) -> dict[str, list[str]]:
    """The values of link.cfg by key; keys repeat."""
    parser = configparser.ConfigParser(strict=False)
    parser.read(path)
    assert parser.sections() == ["connectivity"]
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found.setdefault(key, []).append(value)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# What v++ is told
# ---------------------------------------------------------------------------------------------------------------------


def test_every_kernel_is_there_once(out: Path):
    assert connectivity(link.prepare(out, CARD))["nk"] == [f"{name}:1:{name}_1" for name in KERNELS]


def test_the_streams_make_a_chain_from_memory_to_memory(out: Path):
    pairs = [value.split(":") for value in connectivity(link.prepare(out, CARD))["stream_connect"]]
    units = [(source.split(".")[0], sink.split(".")[0]) for source, sink in pairs]
    names = [f"{name}_1" for name in KERNELS]
    assert units == list(pairwise(names))


def test_every_port_that_is_connected_is_an_argument_of_its_kernel_and_both_ends_are_as_wide(out: Path):
    sources = {path.stem: path for path in out.glob("graph*/ports/*.cpp")} | dict.fromkeys(
        (link.READER, link.WRITER), link.MOVERS
    )
    for pair in connectivity(link.prepare(out, CARD))["stream_connect"]:
        widths = []
        for end in pair.split(":"):
            unit, port = end.split(".")
            text = sources[unit.removesuffix("_1")].read_text().replace("Beat>", "ap_axiu<32, 0, 0, 0>>")
            [bits] = [bits for bits, name in ARGUMENT.findall(text) if name == port]
            assert f"#pragma HLS INTERFACE axis port={port}\n" in text
            widths.append(int(bits))
        assert widths[0] == widths[1] <= 2048, pair  # v++ connects no wider ones


def test_the_kernels_of_the_network_have_no_control_signals_and_the_movers_do(out: Path):
    for path in out.glob("graph*/ports/*.cpp"):
        assert "INTERFACE ap_ctrl_none port=return" in path.read_text()
    assert link.MOVERS.read_text().count("INTERFACE ap_ctrl_hs port=return") == 2


def test_the_chain_goes_through_the_slrs_in_order_and_each_mover_lies_beside_its_memory(out: Path):
    found = connectivity(link.prepare(out, CARD))
    slrs = dict(value.split(":") for value in found["slr"])
    assert list(slrs) == [f"{name}_1" for name in KERNELS]
    assert list(slrs.values()) == sorted(slrs.values()) and len(set(slrs.values())) == 4
    cores = dict(core.split(":") for core in CARD.build.cores)
    assert found["sp"] == [f"{mover}_1.m_axi_gmem:{cores[slrs[f'{mover}_1']]}" for mover in (link.READER, link.WRITER)]


@pytest.mark.parametrize(
    ("board", "message"),
    [("zcu104", "zcu104 is no Alveo card"), ("sim-small", "sim-small is no Alveo card")],
)
def test_a_board_that_is_no_card_is_refused(out: Path, board: str, message: str):
    with pytest.raises(ConfigurationError, match=message):
        link.prepare(out, load_board(board))


def test_projects_for_another_part_are_refused(tmp_path: Path):
    out = written(tmp_path, load_board("kv260"))
    with pytest.raises(ConfigurationError, match=r"made for xck26-.*run `make hls PART=xcu250-"):
        link.prepare(out, CARD)


# ---------------------------------------------------------------------------------------------------------------------
# The kernels of movers.cpp
# ---------------------------------------------------------------------------------------------------------------------

MAIN = """#include "movers.cpp"
#include <cstdio>
int main() {
    ap_uint<32> images[12], features[12];
    for (unsigned i = 0; i < 12; ++i) images[i] = 0x01020304u * (i + 1), features[i] = 0xA5A5A5A5u;
    hls::stream<Beat> between("between"), results("results");
    image_reader(images, 10, between);
    while (between.level != 0) {
        const Beat beat = between.read();
        std::printf("%u %u %u\\n", beat.data.to_uint(), beat.keep.to_uint(), beat.last.to_uint());
        results.write(beat);
    }
    feature_writer(features, 10, results);
    for (unsigned i = 0; i < 12; ++i) std::printf("%u\\n", features[i].to_uint());
}
"""


def test_the_movers_carry_every_beat_in_order_and_nothing_beyond(tmp_path: Path):
    (tmp_path / "main.cpp").write_text(MAIN)
    folders = [f"-I{folder}" for folder in (csim.SOURCES, AP_TYPES)]
    compile_ = ["g++", "-std=c++11", "-w", *folders, str(tmp_path / "main.cpp"), "-o", str(tmp_path / "main")]
    subprocess.run(compile_, check=True)
    said = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout.splitlines()
    words = [(0x01020304 * (i + 1)) % 2**32 for i in range(10)]
    assert said[:10] == [f"{word} 15 {int(i == 9)}" for i, word in enumerate(words)]
    assert said[10:] == [str(word) for word in (*words, 0xA5A5A5A5, 0xA5A5A5A5)]


# ---------------------------------------------------------------------------------------------------------------------
# The tools' calls
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """Vitis HLS and v++, as programs that leave what the tools leave."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for each in (synth.VITIS_RUN, synth.VITIS_HLS, tool.VPP):
        monkeypatch.delenv(each.home, raising=False)
    tools = Tools(folder)
    files = {name: {f"{name}.xo": ""} for name in (link.READER, link.WRITER)}
    for number, (name, _, _) in enumerate(CHAIN, 1):
        where = f"{name.removesuffix('_axi')}_prj/solution1/syn/report/{name}_csynth.xml"
        files[f"graph{number}"] = {f"{name}.xo": "", where: report(name, 700, 9)}
    tools.install("vitis_hls", {}, version="v2023.2", in_folders=files)
    tools.install("v++", {link.XCLBIN: "bits"})
    return tools


def test_one_command_goes_from_the_projects_to_the_xclbin(
    tools: Tools, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    facts = json.loads((out / "report.json").read_text())
    facts |= {"target_cycles": 1000, "interval_cycles": 850, "resources": COST, "layers": []}
    (out / "report.json").write_text(json.dumps(facts))
    monkeypatch.setattr(sys, "argv", ["hls", "synth", "--out", str(out), "--board", "u250"])
    command.main()
    assert f"bitstream: {out.resolve()}/board/network.xclbin" in capsys.readouterr().out
    assert StreamedNetwork.load(out / "board" / "network.json").features.channels == 512

    words = json.loads((out / "board" / "arguments.json").read_text())
    assert words[:3] == ["--link", "--target", "hw"]
    assert words[words.index("--kernel_frequency") + 1] == "200"
    assert words[words.index("--platform") + 1] == CARD.build.platform
    assert {Path(word).stem for word in words if word.endswith(".xo")} == set(KERNELS)
    for project in out.glob("graph*"):
        assert "set flow vitis\n" in (project / synth.TARGET).read_text()


@pytest.mark.parametrize("mover", [link.READER, link.WRITER])
def test_the_movers_are_synthesised_by_the_same_script(out: Path, mover: str):
    folder = link.prepare(out, CARD).parent / mover
    lines = ['proc unknown {args} { puts "call:$args" }', "rename exit leave", f"source {synth.SCRIPT}"]
    done = subprocess.run([TCLSH], input="\n".join(lines), cwd=folder, capture_output=True, text=True, check=True)
    assert not done.stderr
    assert f"call:set_top {mover}\n" in done.stdout
    assert f"call:export_design -format xo -output {folder}/{mover}.xo\n" in done.stdout
    [source] = re.findall(r"call:add_files (\S+) ", done.stdout)
    assert f'extern "C" void {mover}(' in Path(source).read_text()


def test_a_missing_linker_is_said_before_the_synthesis(tools: Tools, out: Path, monkeypatch: pytest.MonkeyPatch):
    (tools.folder / "v++").unlink()
    monkeypatch.setattr(sys, "argv", ["hls", "synth", "--out", str(out), "--board", "u250"])
    with pytest.raises(SystemExit, match=r"error: v\+\+ was not found: install AMD Vitis"):
        command.main()
    assert not list(out.glob("graph*/arguments.json"))


def test_a_kernel_object_that_is_missing_is_an_error(tools: Tools, out: Path):
    with pytest.raises(SynthesisError, match=r"left no .*network_graph1_axi\.xo"):
        link.link(out, CARD)


def test_a_failing_linker_shows_its_own_error_and_the_log(tools: Tools, out: Path):
    synthesise_objects(out)
    tools.install("v++", {}, says="ERROR: [CFGEN 83-2229] Failed to verify kernel arguments", code=1)
    with pytest.raises(SynthesisError, match=r"(?s)v\+\+\.log.*CFGEN 83-2229"):
        link.link(out, CARD)


def test_a_linker_that_leaves_nothing_is_an_error(tools: Tools, out: Path):
    synthesise_objects(out)
    tools.install("v++", {})
    with pytest.raises(SynthesisError, match=r"left no network\.xclbin"):
        link.link(out, CARD)


def synthesise_objects(out: Path) -> None:
    """The kernel objects of the projects, as Vitis HLS leaves them."""
    for number, (name, _, _) in enumerate(CHAIN, 1):
        (out / f"graph{number}" / f"{name}.xo").touch()
