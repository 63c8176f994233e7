"""Vitis HLS on the written projects: finding it, running it, reading its reports. The tool is a small program."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from vendor_tools import Tools
from vitis_reports import TCLSH, report

from hls import __main__ as command
from hls.vitis import synth
from hls.vitis.csim import find_projects
from hls.vitis.csynth import ReportError, layer_names, read_report
from hls.vitis.parts import Resources
from hw.synth.process import SynthesisError

PROJECT = """variable project_name
set project_name "network_graph1"
set part "xcu250-figd2104-2L-e"
set clock_period 5.0
set clock_uncertainty 27%
set version "1.0.0"
set maximum_size 4096
"""

OPTIONS = {
    "open_project": {"-reset"},
    "set_top": set(),
    "add_files": {"-cflags", "-tb", "-blackbox", "-csimflags"},
    "open_solution": {"-reset", "-flow_target"},
    "config_array_partition": {"-maximum_size", "-complete_threshold", "-throughput_driven"},
    "config_compile": {"-name_max_length", "-pipeline_loops", "-unsafe_math_optimizations"},
    "set_part": set(),
    "config_schedule": {"-enable_dsp_full_reg", "-effort", "-relax_ii_for_timing"},
    "create_clock": {"-period", "-name"},
    "set_clock_uncertainty": set(),
    "csynth_design": {"-dump_cfg", "-dump_post_cfg", "-synthesis_check"},
    "export_design": {"-format", "-version", "-output", "-flow", "-rtl", "-vendor", "-library", "-ipname"},
    "exit": set(),
}
"""Commands of Vitis HLS and their options: UG1399, "Tcl Command Reference"; ``catch`` and ``puts`` are Tcl's."""


def run_script(folder: Path) -> list[list[str]]:
    """The calls that synthesise.tcl makes in ``folder``, in a Tcl interpreter in which each command says how it was called."""
    lines = ['proc say {words} { puts "call:[join $words \\x1f]" }']
    lines += [f"proc {name} {{args}} {{ say [list {name} {{*}}$args] }}" for name in OPTIONS if name != "exit"]
    lines += ["rename exit leave", "proc exit {} { say exit; leave }", f"source {synth.SCRIPT}"]
    done = subprocess.run([TCLSH], input="\n".join(lines), cwd=folder, capture_output=True, text=True, check=True)
    assert not done.stderr, done.stderr
    return [line.removeprefix("call:").split("\x1f") for line in done.stdout.splitlines() if line.startswith("call:")]


def reports(project: str, layers: dict[str, int], cycles: int, clock: str = "3.608") -> dict[str, str]:
    """Of a project: layer functions by the end of their names, with their cycles."""
    folder = f"{project}_prj/solution1/syn/report"
    top = f"{project}_axi"
    found = {f"{folder}/{top}_csynth.xml": report(top, cycles, 40, clock)}
    for number, (end, latency) in enumerate(layers.items()):
        name = f"conv_2d_cl_array_array_ap_fixed_19_9_5_3_0_4u_{end}_s"
        found[f"{folder}/{name}_csynth.xml"] = report(name, latency, 10 + number)
        inner = f"compute_output_buffer_2d_array_array_ap_fixed_19_9_5_3_0_4u_{end}_s"
        found[f"{folder}/{inner}_csynth.xml"] = report(inner, 53, 9)
    return found


FILES = {
    "graph1": reports("network_graph1", {"config3": 900, "relu_config5": 260}, 901),
    "graph2": reports("network_graph2", {"config12": 700}, 701),
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """What `make hls` leaves, as far as synthesis needs it."""
    out = tmp_path / "out"
    calls = {
        1: [
            "nnet::conv_2d_cl<input_t, layer3_t, config3>(image, layer3_out, w3, b3); // stem",
            "nnet::relu<layer3_t, layer5_t, relu_config5>(layer3_out, layer5_out); // stem_relu",
        ],
        2: ["nnet::pointwise_conv_2d_cl<layer5_t, layer6_t, config12>(stem_input, layer6_out, w12, b12); // last"],
    }
    for number, lines in calls.items():
        project = out / f"graph{number}"
        (project / "firmware").mkdir(parents=True)
        (project / "project.tcl").write_text(f'variable project_name\nset project_name "network_graph{number}"\n')
        body = "".join(f"    {line}\n" for line in lines)
        (project / "firmware" / f"network_graph{number}.cpp").write_text(f"void top() {{\n{body}}}\n")
        (project / "ports").mkdir()
        (project / "ports" / f"network_graph{number}_axi.cpp").write_text("")
    cost = {"dsp": 8, "bram18": 2, "uram": 0, "lut": 2000, "ff": 1500}
    layers = [{"layer": n, "interval_cycles": 850, "resources": cost} for n in ("stem", "stem_relu", "last")]
    facts = {"target_cycles": 1000, "interval_cycles": 850, "resources": cost, "layers": layers}
    (out / "report.json").write_text(json.dumps(facts))
    return out


class Installed(Tools):
    """Programs that behave like Vitis HLS on the projects of ``out``."""

    def vitis(self, name: str, files: dict[str, dict[str, str]] = FILES, version: str = "v2024.2", **told) -> None:
        self.install(name, {}, version=version, in_folders=files, **told)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for tool in (synth.VITIS_RUN, synth.VITIS_HLS):
        monkeypatch.delenv(tool.home, raising=False)
    return Installed(folder)


# ---------------------------------------------------------------------------------------------------------------------
# The tool
# ---------------------------------------------------------------------------------------------------------------------


def test_a_missing_tool_is_said_exactly(tools: Installed, out: Path):
    with pytest.raises(
        SynthesisError, match=r"(?s)neither vitis-run \(AMD Vitis 2023\.2 to 2025\.2\) nor vitis_hls.*settings64\.sh"
    ):
        synth.synthesise(out)


def test_an_unsupported_version_is_refused_with_the_supported_ones(tools: Installed, out: Path):
    tools.vitis("vitis_hls", version="v2019.2")
    with pytest.raises(SynthesisError, match=r"is version 2019\.2; supported are 2022\.1"):
        synth.synthesise(out)


@pytest.mark.parametrize(
    ("name", "version", "arguments"),
    [
        ("vitis-run", "v2024.2", ["--mode", "hls", "--tcl", str(synth.SCRIPT)]),
        ("vitis_hls", "v2023.1", ["-f", str(synth.SCRIPT)]),
    ],
    ids=["vitis-run", "vitis_hls"],
)
def test_every_project_is_synthesised_and_packaged(
    tools: Installed, out: Path, name: str, version: str, arguments: list[str]
):
    tools.vitis(name, version=version)
    found = synth.synthesise(out)
    assert [top.function for top in found.tops] == ["network_graph1_axi", "network_graph2_axi"]
    for project in ("graph1", "graph2"):
        assert json.loads((out / project / "arguments.json").read_text()) == arguments


@pytest.mark.parametrize(("kernels", "flow"), [(False, "vivado"), (True, "vitis")], ids=["IP", "kernel"])
def test_the_script_gives_vitis_hls_the_sources_and_the_flow(tools: Installed, out: Path, kernels: bool, flow: str):
    tools.vitis("vitis-run")
    synth.synthesise(out, kernels=kernels)
    (out / "graph1" / "project.tcl").write_text(PROJECT)
    said = run_script(out / "graph1")
    assert [call for call in said if call[0] in ("set_top", "add_files")] == [
        ["set_top", "network_graph1_axi"],
        [
            "add_files",
            "firmware/network_graph1.cpp",
            "-cflags",
            f"-std=c++0x -I{out}/graph1/firmware -I{out}/graph1/ports",
        ],
        [
            "add_files",
            "ports/network_graph1_axi.cpp",
            "-cflags",
            f"-std=c++0x -I{out}/graph1/firmware -I{out}/graph1/ports",
        ],
    ]
    assert ["open_solution", "-reset", "-flow_target", flow, "solution1"] in said
    assert ["create_clock", "-period", "5.0", "-name", "default"] in said
    packaged = (
        ["xo", "-output", f"{out}/graph1/network_graph1_axi.xo"] if kernels else ["ip_catalog", "-version", "1.0.0"]
    )
    assert said[-3:] == [["csynth_design"], ["export_design", "-format", *packaged], ["exit"]]


def test_the_script_keeps_to_the_options_of_the_reference(tools: Installed, out: Path):
    tools.vitis("vitis-run")
    synth.synthesise(out)
    (out / "graph1" / "project.tcl").write_text(PROJECT)
    for name, *words in run_script(out / "graph1"):
        given = {word.partition("=")[0] for word in words if word.startswith("-") and " " not in word}
        assert given <= OPTIONS[name], name


def test_projects_side_by_side_give_the_same(tools: Installed, out: Path):
    tools.vitis("vitis-run")
    assert synth.synthesise(out, jobs=2) == synth.read(find_projects(out))


def test_a_failure_shows_the_tools_own_error_and_the_log(tools: Installed, out: Path):
    tools.vitis("vitis-run", {}, says="ERROR: [HLS 200-70] Pre-synthesis failed.", code=1)
    with pytest.raises(SynthesisError, match=r"(?s)vitis_hls\.log.*\[HLS 200-70\] Pre-synthesis failed"):
        synth.synthesise(out)


def test_a_tool_that_leaves_no_report_is_an_error(tools: Installed, out: Path):
    tools.vitis("vitis-run", {})
    with pytest.raises(
        ReportError, match=r"there is no .*network_graph1_axi_csynth\.xml: C synthesis has not ended well"
    ):
        synth.synthesise(out)


def test_without_projects_it_says_what_to_run(tmp_path: Path, tools: Installed):
    with pytest.raises(FileNotFoundError, match=r"no HLS projects in .*: write them with `make hls`"):
        synth.synthesise(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# The reports
# ---------------------------------------------------------------------------------------------------------------------


def test_a_report_is_read_element_by_element(tmp_path: Path):
    path = tmp_path / "x_csynth.xml"
    path.write_text(report("conv_2d_cl_config5_s", 49501, 4))
    found = read_report(path)
    assert (found.function, found.version, found.interval, found.latency) == (
        "conv_2d_cl_config5_s",
        "2024.2",
        49501,
        49501,
    )
    assert (found.clock_target, found.clock_estimated, found.meets_clock) == (5.0, 3.608, True)
    assert found.resources == Resources(dsp=4, bram18=3, uram=0, lut=2496, ff=1738)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<Interval-max>8</Interval-max>", "", "has no PerformanceEstimates/SummaryOfOverallLatency/Interval-max"),
        ("<Interval-max>8<", "<Interval-max>undef<", "Interval-max is 'undef': Vitis HLS could not tell"),
        ("</profile>", "", "is no report of Vitis HLS"),
    ],
    ids=["left out", "not known", "cut off"],
)
def test_a_report_that_is_not_whole_is_refused(tmp_path: Path, old: str, new: str, message: str):
    path = tmp_path / "x_csynth.xml"
    text = report("x", 8, 1)
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ReportError, match=message):
        read_report(path)


def test_layers_are_found_by_the_number_of_their_configuration(out: Path):
    assert layer_names(out / "graph1" / "firmware" / "network_graph1.cpp") == {"3": "stem", "5": "stem_relu"}


def test_a_layers_report_is_its_own_and_not_that_of_a_function_within_it(tools: Installed, out: Path):
    tools.vitis("vitis-run")
    found = synth.synthesise(out)
    assert {name: r.interval for name, r in found.layers.items()} == {"stem": 900, "stem_relu": 260, "last": 700}


def test_the_table_has_estimates_and_reports_side_by_side(tools: Installed, out: Path):
    tools.vitis("vitis-run")
    text = synth.table(out, synth.synthesise(out))
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines()}
    assert lines["stem"][:4] == ["850", "900", "8", "10"]
    assert lines["all,"][2:6] == ["850", "901", "8", "80"]  # after "with FIFOs"
    assert (out / "synthesis.txt").read_text() == text + "\n"


@pytest.mark.parametrize(("cycles", "clock", "status"), [(900, "3.6", 0), (1200, "3.6", 1), (900, "5.2", 1)])
def test_the_commands_status_says_whether_target_and_clock_are_met(
    tools: Installed, out: Path, monkeypatch: pytest.MonkeyPatch, cycles: int, clock: str, status: int
):
    tools.vitis("vitis-run", FILES | {"graph1": reports("network_graph1", {"config3": 900}, cycles, clock)})
    monkeypatch.setattr(sys, "argv", ["hls", "synth", "--out", str(out)])
    if status:
        with pytest.raises(SystemExit) as end:
            command.main()
        assert end.value.code == status
    else:
        command.main()


def test_the_command_without_the_tool_ends_in_one_clear_line(
    tools: Installed, out: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["hls", "synth", "--out", str(out)])
    with pytest.raises(SystemExit, match=r"error: Vitis HLS was not found"):
        command.main()
