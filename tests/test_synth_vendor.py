"""The vendor flows around the tools: finding them, their versions, their failures, and what is delivered. The tools are small programs."""

import json
import sys
from pathlib import Path

import pytest
from vendor_reports import UTILISATION_7SERIES, UTILISATION_ULTRASCALE, timing_summary
from vendor_tools import Tools

from hw import __main__ as command
from hw.board import load_board
from hw.isa import ConfigurationError
from hw.synth import flow, tool, vitis, vivado
from hw.synth.process import SynthesisError

HANDOFF = "npu/npu.gen/sources_1/bd/npu_system/hw_handoff/npu_system.hwh"
VIVADO_FILES = {
    "npu.bit": "bits",
    HANDOFF: "handoff",
    "utilisation.rpt": UTILISATION_ULTRASCALE,
    "timing.rpt": timing_summary("0.100"),
}


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """Nothing is installed but what the test installs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for known in (tool.VIVADO, tool.VPP):
        monkeypatch.delenv(known.home, raising=False)
    return Tools(folder)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def delivered(out: Path) -> set[str]:
    return {path.name for path in out.iterdir() if path.is_file()} if out.is_dir() else set()


# ---------------------------------------------------------------------------------------------------------------------
# Finding the tool
# ---------------------------------------------------------------------------------------------------------------------


def test_a_missing_tool_says_what_to_install_and_names_the_open_flow(tools: Tools, out: Path):
    with pytest.raises(SynthesisError, match=r"install AMD Vivado \(2022\.1 to 2025\.2\).*`make synth` without BOARD"):
        vivado.build(load_board("zcu104"), out)
    assert not out.exists()


def test_the_environment_names_an_installation_off_the_path(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home = tmp_path / "Vivado" / "2023.2"
    (home / "bin").mkdir(parents=True)
    Tools(home / "bin").install("vivado", {})
    monkeypatch.setenv("XILINX_VIVADO", str(home))
    assert tool.find(tool.VIVADO) == home / "bin" / "vivado"


@pytest.mark.parametrize("version", ["v2019.1", "v2031.2"])
def test_an_unsupported_version_is_refused_with_the_supported_ones(tools: Tools, out: Path, version: str):
    tools.install("vivado", VIVADO_FILES, version=version)
    with pytest.raises(SynthesisError, match=rf"is version {version[1:]}; supported are 2022\.1, .*2025\.2"):
        vivado.build(load_board("zcu104"), out)


def test_a_program_that_names_no_version_is_refused(tools: Tools, out: Path):
    tools.install("vivado", VIVADO_FILES, version="of another maker")
    with pytest.raises(SynthesisError, match="names no version; it said: 'vivado of another maker"):
        vivado.build(load_board("zcu104"), out)


def test_vitis_needs_both_tools(tools: Tools, out: Path):
    tools.install("v++", {})
    with pytest.raises(SynthesisError, match="vivado was not found"):
        vitis.build(load_board("u250"), out)


def test_the_documented_versions_are_the_supported_ones():
    page = (Path(__file__).parents[1] / "docs" / "synthesis.md").read_text()
    for known in (tool.VIVADO, tool.VPP):
        assert f"{known.product} {', '.join(known.supported)}" in page


# ---------------------------------------------------------------------------------------------------------------------
# Zynq
# ---------------------------------------------------------------------------------------------------------------------


def test_a_build_delivers_bitstream_and_handoff_under_one_name(tools: Tools, out: Path):
    tools.install("vivado", VIVADO_FILES)
    result = vivado.build(load_board("zcu104"), out)
    assert delivered(out) == {"npu.bit", "npu.hwh", "utilisation.rpt", "timing.rpt"}
    assert (out / "npu.bit").read_text() == "bits" and (out / "npu.hwh").read_text() == "handoff"
    assert result.met and result.bitstream == out / "npu.bit"
    assert (result.utilisation.dsp, result.part.dsp) == (1024, 1728)
    assert result.critical_path[0].startswith("WNS +0.100 ns")


def test_vivado_runs_the_script_with_the_boards_parameters(tools: Tools, out: Path):
    tools.install("vivado", {**VIVADO_FILES, "utilisation.rpt": UTILISATION_7SERIES})
    vivado.build(load_board("pynq-z2"), out)
    arguments = json.loads((out / "work" / "arguments.json").read_text())
    assert arguments[arguments.index("-source") + 1] == str(vivado.SCRIPTS / "zynq.tcl")
    assert "{part} {xc7z020clg400-1}" in Path(arguments[-1]).read_text()


def test_a_failure_shows_the_tools_own_error_lines_and_the_log(tools: Tools, out: Path):
    says = "quarkwave step: synthesis\nERROR: [Synth 8-439] module 'npu' not found\nINFO: done"
    tools.install("vivado", {}, says=says, code=1)
    with pytest.raises(SynthesisError, match=r"(?s)vivado\.log.*\[Synth 8-439\] module 'npu' not found$"):
        vivado.build(load_board("zcu104"), out)
    assert "INFO: done" in (out / "work" / "vivado.log").read_text()
    assert not delivered(out)


def test_a_design_that_misses_its_clock_is_reported_but_not_delivered(tools: Tools, out: Path):
    tools.install("vivado", {**VIVADO_FILES, "timing.rpt": timing_summary("-0.250", failing=17)})
    result = vivado.build(load_board("zcu104"), out)
    assert not result.met
    assert result.fmax_mhz == pytest.approx(1000 / (1000 / 300 + 0.25))
    assert result.critical_path[0].startswith("WNS -0.250 ns (17 endpoints fail)")
    assert not delivered(out)
    assert result.bitstream == out / "work" / "npu.bit"


@pytest.mark.parametrize("slack", [{"hold": "-0.010"}, {"pulse_width": "-0.020"}])
def test_a_design_that_no_clock_would_save_is_an_error(tools: Tools, out: Path, slack: dict[str, str]):
    tools.install("vivado", {**VIVADO_FILES, "timing.rpt": timing_summary(**slack)})
    with pytest.raises(SynthesisError, match=r"timing not met.*-0\.0[12]0 ns"):
        vivado.build(load_board("zcu104"), out)
    assert "npu.bit" not in delivered(out)


@pytest.mark.parametrize("name", ["npu.bit", HANDOFF, "timing.rpt"])
def test_a_tool_that_ends_well_but_leaves_something_out_is_an_error(tools: Tools, out: Path, name: str):
    tools.install("vivado", {key: text for key, text in VIVADO_FILES.items() if key != name})
    with pytest.raises(SynthesisError, match=Path(name).suffix):
        vivado.build(load_board("zcu104"), out)
    assert "npu.bit" not in delivered(out)


def test_a_failed_or_slow_build_leaves_what_an_earlier_one_delivered(tools: Tools, out: Path):
    tools.install("vivado", VIVADO_FILES)
    vivado.build(load_board("zcu104"), out)
    before = {path.name: path.read_text() for path in out.iterdir() if path.is_file()}
    tools.install("vivado", {}, says="ERROR: no licence", code=1)
    with pytest.raises(SynthesisError, match="no licence"):
        vivado.build(load_board("zcu104"), out)
    tools.install("vivado", {**VIVADO_FILES, "npu.bit": "slow", "timing.rpt": timing_summary("-0.100")})
    assert not vivado.build(load_board("zcu104"), out).met
    assert {path.name: path.read_text() for path in out.iterdir() if path.is_file()} == before
    tools.install("vivado", {**VIVADO_FILES, "npu.bit": "better"})
    vivado.build(load_board("zcu104"), out)
    assert (out / "npu.bit").read_text() == "better"


def test_a_board_of_another_tool_is_refused(out: Path):
    with pytest.raises(ConfigurationError, match="u250 is not built by Vivado"):
        vivado.build(load_board("u250"), out)
    with pytest.raises(ConfigurationError, match="zcu104 is not built by Vitis"):
        vitis.build(load_board("zcu104"), out)


# ---------------------------------------------------------------------------------------------------------------------
# Alveo
# ---------------------------------------------------------------------------------------------------------------------

LINK_FILES = {
    "npu.xclbin": "container",
    "link/reports/link/imp/impl_1_full_util_routed.rpt": UTILISATION_ULTRASCALE,
    "link/reports/link/imp/impl_1_hw_bb_locked_timing_summary_routed.rpt": timing_summary("0.050"),
}


def test_an_alveo_build_packages_and_links(tools: Tools, out: Path):
    tools.install("vivado", {"npu.xo": "kernel"})
    tools.install("v++", LINK_FILES, says="[10:11:12] Run vpl: Step impl: Started")
    result = vitis.build(load_board("u250"), out)
    assert result.met and result.bitstream == out / "npu.xclbin"
    assert delivered(out) == {"npu.xclbin", "npu.xo", "utilisation.rpt", "timing.rpt"}
    assert (out / "work" / "kernel.xml").is_file()
    arguments = json.loads((out / "work" / "arguments.json").read_text())
    assert arguments[0] == "--link"


def test_a_link_that_misses_its_clock_delivers_nothing(tools: Tools, out: Path):
    timing = {
        "link/reports/link/imp/impl_1_hw_bb_locked_timing_summary_routed.rpt": timing_summary("-0.400", failing=9)
    }
    tools.install("vivado", {"npu.xo": "kernel"})
    tools.install("v++", LINK_FILES | timing)
    result = vitis.build(load_board("u250"), out)
    assert not result.met and result.critical_path[0].startswith("WNS -0.400 ns")
    assert "npu.xclbin" not in delivered(out)


def test_a_failed_link_shows_the_linkers_error(tools: Tools, out: Path):
    tools.install("vivado", {"npu.xo": "kernel"})
    tools.install("v++", {}, says="ERROR: [v++ 60-1258] no such platform: xilinx_u250", code=1)
    with pytest.raises(SynthesisError, match=r"no such platform"):
        vitis.build(load_board("u250"), out)


# ---------------------------------------------------------------------------------------------------------------------
# The command line
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slack", "status", "verdict"), [("0.100", 0, "met"), ("-0.250", 1, "MISSED")])
def test_the_commands_status_says_whether_timing_is_met(
    tools: Tools,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    slack: str,
    status: int,
    verdict: str,
):
    tools.install("vivado", {**VIVADO_FILES, "timing.rpt": timing_summary(slack)})
    monkeypatch.setattr(flow, "BUILD", tmp_path)
    monkeypatch.setattr(sys, "argv", ["hw", "synth", "--board", "zcu104"])
    with pytest.raises(SystemExit) as end:
        command.main()
    printed = capsys.readouterr().out
    assert end.value.code == status
    assert verdict in printed and f"WNS {float(slack):+.3f} ns" in printed and "1,024" in printed


def test_the_commands_status_is_not_zero_when_the_tool_is_missing(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(flow, "BUILD", tmp_path)
    monkeypatch.setattr(sys, "argv", ["hw", "synth", "--board", "kv260"])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    assert "vivado was not found" in capsys.readouterr().err
