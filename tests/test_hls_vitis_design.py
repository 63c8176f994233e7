"""A sized design as a whole: from a ModelGraph to sizing, report and sub-projects."""

import json
import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from dataflow_networks import residual
from hls4ml.backends import get_backend
from hls4ml.converters import convert_from_keras_model
from tensorflow import keras

from hls import __main__ as command
from hls.vitis import report
from hls.vitis.build import build
from hls.vitis.dataflow import DeadlockError, simulate
from hls.vitis.design import Design, assess, design
from hls.vitis.fifos import SHALLOW
from hls.vitis.parts import Resources
from hls.vitis.pragmas import bind_shallow_fifos
from hls.vitis.project import convert_sized
from hls.vitis.sizing import LayerSizing, Sizing, SizingError
from hls.vitis.solve import legal_reuse_factors
from hls.vitis.split import cuts, legal_cuts
from hls.vitis.stages import Network, read_graph
from quantize import checkpoint
from quantize.resnet import ResNetConfig

PART = "xcu250-figd2104-2L-e"
VITIS = get_backend("Vitis")


@pytest.fixture(scope="module")
def model():
    return checkpoint.to_keras(checkpoint.random_quantised(ResNetConfig((1, 2), 4, 16), seed=1))


@pytest.fixture(scope="module")
def network(model, tmp_path_factory: pytest.TempPathFactory) -> Network:
    return read_graph(convert_sized(model, tmp_path_factory.mktemp("graph")))


@pytest.fixture(scope="module")
def sized(network: Network) -> Design:
    return design(network, VITIS, PART, clock_ns=5, target_ms=0.01)


@pytest.fixture(scope="module")
def built(model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Design]:
    out = tmp_path_factory.mktemp("built")
    return out, build(model, out, PART, target_ms=0.01, clock_ns=5, projects=3)


# ---------------------------------------------------------------------------------------------------------------------
# The graph as dataflow
# ---------------------------------------------------------------------------------------------------------------------


def test_every_stream_has_as_many_words_as_its_stages_read_and_write(network: Network):
    for stage in network.stages:
        for name in stage.inputs:
            assert network.streams[name].words == stage.reads.sum(), (stage.name, name)
        for name in stage.outputs:
            assert network.streams[name].words == stage.writes.sum(), (stage.name, name)


def test_the_multiplications_are_those_of_the_network(model, network: Network):
    expected = {
        layer.name: int(np.prod(layer.kernel.shape) * np.prod(layer.output_shape[1:3]))
        for layer in model.layers
        if type(layer).__name__ == "QConv2D"
    }
    assert {stage.name: stage.multiplications for stage in network.sized} == expected


def test_the_network_has_two_ends_and_every_other_stream_a_writer_and_a_reader(network: Network):
    ends = [stream for stream in network.streams.values() if stream.is_port]
    assert [bool(stream.writer) for stream in ends] == [False, True]


def test_a_layer_of_no_known_kind_is_refused(tmp_path: Path):
    image = keras.layers.Input((4, 4, 2), name="image")
    graph = convert_from_keras_model(
        keras.Model(image, keras.layers.UpSampling2D(2, name="larger")(image)),
        output_dir=str(tmp_path),
        backend="Vitis",
        io_type="io_stream",
    )
    with pytest.raises(SizingError, match="layer larger is a Resize; sized are ZeroPadding2D, Conv2D"):
        read_graph(graph)


# ---------------------------------------------------------------------------------------------------------------------
# The design
# ---------------------------------------------------------------------------------------------------------------------


def test_a_design_meets_its_target_in_the_simulation_too(sized: Design):
    assert sized.target_cycles == 2000
    assert not sized.shortages
    run = simulate(sized.network, sized.steps, sized.sizing.fifo_depths, images=3)
    assert run.interval == sized.fifos.run.interval <= sized.target_cycles
    assert sized.interval_ms <= 0.01


def test_a_part_that_is_too_small_is_used_as_well_as_it_can_be(network: Network, sized: Design):
    small = design(network, VITIS, "xc7z020clg400-1", clock_ns=5, target_ms=0.01)
    total = small.total
    assert small.shortages and any(re.match(r"DSP|block RAM", reason) for reason in small.shortages)
    assert small.solution.fits and total.dsp <= small.part.dsp and total.bram18 <= small.part.bram18
    assert small.fifos.run.interval > sized.fifos.run.interval


def test_the_total_is_the_sum_of_the_layers_and_their_fifos(sized: Design):
    listed = report.rows(sized)
    total = sum((Resources(**row["resources"]) + Resources(**row["fifo_resources"]) for row in listed), Resources())
    assert total == sized.total


def test_the_report_has_a_line_for_each_layer_and_says_what_is_an_estimate(sized: Design):
    lines = report.text(sized).splitlines()
    assert lines[0].split()[:4] == ["layer", "multiplications", "reuse", "multipliers"]
    assert [line.split()[0] for line in lines[1 : 1 + len(sized.network.stages)]] == [
        s.name for s in sized.network.stages
    ]
    assert any("estimates (docs/hls.md" in line for line in lines)
    assert "The target is met, and the part has the DSP slices and the memory for it." in lines


def test_the_written_reports_are_whole(sized: Design, tmp_path: Path):
    report.write(sized, tmp_path)
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts["interval_cycles"] == sized.fifos.run.interval and len(facts["layers"]) == len(sized.network.stages)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"report.txt", "report.json", "report.png"}


# ---------------------------------------------------------------------------------------------------------------------
# Sub-projects
# ---------------------------------------------------------------------------------------------------------------------


def test_the_legal_cuts_are_the_activations_behind_the_adds(network: Network):
    assert legal_cuts(network) == ["s2b0relu", "s3b0relu", "s3b1relu"]


def test_the_cuts_share_the_multipliers_as_evenly_as_can_be(network: Network, sized: Design):
    work = {s.name: s.product.count // sized.sizing.layers[s.name].reuse_factor for s in network.sized}
    names = [stage.name for stage in network.stages]

    def most(before: tuple[str, ...]) -> int:
        bounds = [0, *(names.index(name) for name in before), len(names)]
        return max(sum(work.get(n, 0) for n in names[a:b]) for a, b in pairwise(bounds))

    legal = legal_cuts(network)
    pairs = [(a, b) for i, a in enumerate(legal) for b in legal[i + 1 :]]
    assert most(tuple(cuts(network, sized.sizing, 3))) == min(most(pair) for pair in pairs)
    assert cuts(network, sized.sizing, 1) == []


def test_more_projects_than_cuts_are_refused(network: Network, sized: Design):
    with pytest.raises(SizingError, match="cut into 1 to 4 projects, not 5"):
        cuts(network, sized.sizing, 5)


def test_a_chain_without_adds_cannot_be_cut():
    assert legal_cuts(residual(6)) == []  # its Add is the last stage


def test_a_build_writes_sizing_report_and_projects(built: tuple[Path, Design]):
    out, found = built
    assert {path.name for path in out.iterdir()} >= {"sizing.json", "report.txt", "graph1", "graph2", "graph3"}
    assert Sizing.from_json(out / "sizing.json") == found.sizing


def test_the_projects_have_the_depths_of_the_sizing_and_pass_one_stream_on(built: tuple[Path, Design]):
    out, found = built
    tops = [(out / f"graph{n}" / "firmware" / f"network_graph{n}.cpp").read_text() for n in (1, 2, 3)]
    written = {
        name: int(depth)
        for top in tops
        for name, depth in re.findall(r"#pragma HLS STREAM variable=(\w+) depth=(\d+)", top)
    }
    ports = [re.search(r"INTERFACE axis port=(\w+),(\w+)", top) for top in tops]
    assert all(ports)
    passed_on = {port[2] for port in ports if port} - {s.name for s in found.network.streams.values() if not s.reader}
    assert written == {n: d for n, d in found.sizing.fifo_depths.items() if n not in passed_on}
    assert len(passed_on) == 2


def test_the_projects_have_the_reuse_factors_of_the_sizing(built: tuple[Path, Design]):
    out, found = built
    text = "".join((out / f"graph{n}" / "firmware" / "parameters.h").read_text() for n in (1, 2, 3))
    written = re.findall(
        r"// (\w+)\nstruct config\d+_mult .*?reuse_factor = (\d+);\n.*?strategy = nnet::(\w+);", text, re.S
    )
    expected = {(s.name, str(s.reuse_factor), s.strategy.lower()) for s in found.sizing.layers.values()}
    assert set(written) == expected


def test_shallow_fifos_are_bound_to_shift_registers_once(built: tuple[Path, Design], tmp_path: Path):
    out, _ = built
    top = out / "graph2" / "firmware" / "network_graph2.cpp"
    text = top.read_text()
    deep = {name for name, depth in re.findall(r"STREAM variable=(\w+) depth=(\d+)", text) if 2 < int(depth) <= 64}
    assert set(re.findall(r"BIND_STORAGE variable=(\w+) type=FIFO impl=SRL", text)) == deep and deep
    assert bind_shallow_fifos(out / "graph2") == len(deep)
    assert top.read_text() == text


# ---------------------------------------------------------------------------------------------------------------------
# A sizing that was edited by hand
# ---------------------------------------------------------------------------------------------------------------------


def test_a_sizing_as_it_was_chosen_does_what_was_found(network: Network, sized: Design):
    found = assess(network, sized.sizing, target_ms=0.01)
    assert (found.sizing, found.fifos.run.interval, found.total) == (
        sized.sizing,
        sized.fifos.run.interval,
        sized.total,
    )
    assert found.fifos.least == sized.fifos.least and not found.shortages


def test_an_edited_reuse_factor_is_kept_and_the_layer_that_is_too_slow_is_named(network: Network, sized: Design):
    factor = max(legal_reuse_factors(*_inputs_and_outputs(network, "s3b0c2"), VITIS))
    layers = {**sized.sizing.layers, "s3b0c2": LayerSizing("s3b0c2", "Resource", factor)}
    found = assess(network, replace(sized.sizing, layers=layers), target_ms=0.01)
    assert found.sizing.layers["s3b0c2"].reuse_factor == factor
    assert found.shortages[0].startswith("s3b0c2 takes ")


def _inputs_and_outputs(network: Network, name: str) -> tuple[int, int]:
    [product] = [stage.product for stage in network.sized if stage.name == name]
    assert product
    return product.inputs, product.outputs


def test_an_edited_depth_that_locks_up_is_refused_with_the_full_fifos_name(network: Network, sized: Design):
    name, least = next(iter(sized.fifos.least.items()))
    depths = {**dict.fromkeys(sized.sizing.fifo_depths, SHALLOW), **sized.fifos.least, name: least - 1}
    with pytest.raises(DeadlockError, match=name):
        assess(network, replace(sized.sizing, fifo_depths=depths), target_ms=0.01)


@pytest.mark.parametrize("what", ["layers", "fifo_depths"])
def test_a_sizing_of_another_network_is_refused(network: Network, sized: Design, what: str):
    first, *_ = getattr(sized.sizing, what)
    less = {name: value for name, value in getattr(sized.sizing, what).items() if name != first}
    with pytest.raises(SizingError, match=f"{what} should name those of the network; missing or not known: {first}"):
        assess(network, replace(sized.sizing, **{what: less}), target_ms=0.01)


# ---------------------------------------------------------------------------------------------------------------------
# The command line
# ---------------------------------------------------------------------------------------------------------------------


def test_the_command_writes_everything_and_its_status_says_whether_the_target_is_met(
    model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(checkpoint, "load_quantised", lambda path: model)
    arguments = ["--checkpoint", "net.npz", "--target-ms", "0.0001", "--projects", "1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["hls", "vitis", *arguments])
    with pytest.raises(SystemExit) as end:
        command.main()
    printed = capsys.readouterr().out
    assert end.value.code == 1 and "NOT MET" in printed and "read pixel by pixel" in printed
    assert (tmp_path / "out" / "graph1" / "firmware" / "network.cpp").is_file()


def test_the_command_writes_the_projects_of_an_edited_sizing(
    model, sized: Design, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoint, "load_quantised", lambda path: model)
    deeper = {**sized.sizing.fifo_depths, "layer2_out": 33}
    replace(sized.sizing, fifo_depths=deeper).to_json(tmp_path / "mine.json")
    arguments = ["--sizing", str(tmp_path / "mine.json"), "--target-ms", "0.01", "--projects", "1"]
    monkeypatch.setattr(
        sys, "argv", ["hls", "vitis", "--checkpoint", "net.npz", "--out", str(tmp_path / "out"), *arguments]
    )
    command.main()
    top = (tmp_path / "out" / "graph1" / "firmware" / "network.cpp").read_text()
    assert "#pragma HLS STREAM variable=layer2_out depth=33\n" in top
    assert Sizing.from_json(tmp_path / "out" / "sizing.json").fifo_depths == deeper


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--part", "xc1"], "error: part 'xc1' is not known"), ([], "error: no trained network at missing.npz")],
    ids=["part", "network"],
)
def test_bad_input_ends_in_one_clear_line(monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str):
    monkeypatch.setattr(sys, "argv", ["hls", "vitis", "--checkpoint", "missing.npz", *arguments])
    with pytest.raises(SystemExit, match=message):
        command.main()


# ---------------------------------------------------------------------------------------------------------------------
# Why parallelisation is 1
# ---------------------------------------------------------------------------------------------------------------------


def test_hls4mls_streaming_convolutions_know_no_partitions():
    import hls4ml

    headers = Path(hls4ml.__file__).parent / "templates"
    streaming = [
        *headers.glob("vitis/nnet_utils/nnet_*conv2d_stream.h"),
        headers / "vivado/nnet_utils/nnet_conv_stream.h",
    ]
    assert len(streaming) == 3
    assert not any("n_partitions" in path.read_text() for path in streaming)


def test_a_parallelisation_that_would_change_nothing_is_refused():
    with pytest.raises(SizingError, match="parallelisation 2 would change nothing"):
        LayerSizing("stem", "Resource", 3, parallelisation=2)
