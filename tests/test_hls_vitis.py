"""The C simulation with FIFOs of the project's depths: the golden model's integers, and the deadlocks of FIFOs that are too shallow."""

from pathlib import Path

import numpy as np
import pytest
import qkeras_nets
from hls4ml.backends import get_backend

from hls.compare import integers, run
from hls.convert import convert
from hls.vitis import timing
from hls.vitis.csim import CSimulation, SimulationError, find_projects
from hls.vitis.dataflow import DeadlockError
from hls.vitis.fifos import least_depths, size_fifos
from hls.vitis.pragmas import bind_shallow_fifos
from hls.vitis.project import convert_sized, write_project
from hls.vitis.sizing import LayerSizing, Sizing, SizingError
from hls.vitis.split import cuts, split
from hls.vitis.stages import Network, read_graph
from quantize import checkpoint
from quantize.resnet import ResNetConfig

PART = "xcu250-figd2104-2L-e"


@pytest.fixture(scope="module")
def model():
    """Two residual blocks, one with a projection, and an average of 9 pixels, which hls4ml truncates."""
    return checkpoint.to_keras(checkpoint.random_quantised(ResNetConfig((2,), 4, 12), seed=3))


@pytest.fixture(scope="module")
def graph(model, tmp_path_factory: pytest.TempPathFactory):
    return convert_sized(model, tmp_path_factory.mktemp("vitis"))


@pytest.fixture(scope="module")
def network(graph) -> Network:
    return read_graph(graph)


@pytest.fixture(scope="module")
def simulation(graph) -> CSimulation:
    return CSimulation(write_project(graph), optimise=1)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(4).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def shallowest(simulation, network, images) -> dict[str, int]:
    """Depths of which none can be smaller while the later ones are 1: found by trying."""

    def runs(depths: dict[str, int]) -> bool:
        try:
            simulation.run(images / 256, depths)
        except DeadlockError:
            return False
        return True

    depths = {name: 1 for name, stream in network.streams.items() if not stream.is_port}
    skips = [name for name in depths if "cpy" in name]
    for name in skips:
        depths[name] = network.streams[name].words
    for name in skips:
        low, high = 0, depths[name]
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if runs({**depths, name: middle}) else (middle, high)
        depths[name] = high
    return depths


def test_features_equal_the_golden_models(model, simulation, images, tmp_path: Path):
    npu = convert(model, "NPU", str(tmp_path))
    npu.compile()
    features = integers(simulation.predict(images), npu.npu.program.output)
    assert (features == integers(npu.predict(images).reshape(3, -1), npu.npu.program.output)).all()


def test_every_layer_reads_and_writes_in_the_order_that_the_schedule_is_computed_from(simulation, network, images):
    order = simulation.run(images[:1] / 256, trace=True).order
    assert list(order) == [stage.name for stage in network.stages]
    for stage in network.stages:
        expected = [
            operation
            for reads, writes in zip(stage.reads, stage.writes, strict=True)
            for operation in [("r", name) for name in stage.inputs if reads]
            + [("w", name) for name in stage.outputs if writes]
        ]
        assert [(kind, name) for kind, name, count in order[stage.name] for _ in range(count)] == expected


def test_all_words_go_through_and_no_fifo_holds_more_than_its_depth(simulation, network, images, shallowest):
    fifos = simulation.run(images / 256, shallowest).fifos
    assert {name: fifo.depth for name, fifo in fifos.items()} == shallowest
    assert all(fifo.most <= fifo.depth for fifo in fifos.values())
    assert {name: fifo.words for name, fifo in fifos.items()} == {n: 3 * network.streams[n].words for n in shallowest}


def test_features_do_not_depend_on_the_depths(simulation, images, shallowest):
    assert (simulation.run(images / 256, shallowest).features == simulation.predict(images)).all()


def test_one_word_less_on_a_skip_connection_deadlocks_and_says_where(simulation, images, shallowest):
    critical = [name for name, depth in shallowest.items() if depth > 1]
    assert critical
    for name in critical:
        depth = shallowest[name] - 1
        with pytest.raises(DeadlockError, match=f"cannot write {name}, which is full with {depth}\n"):
            simulation.run(images / 256, {**shallowest, name: depth})


def test_the_depths_of_the_event_simulation_are_enough_and_hardly_more(simulation, network, images, shallowest):
    steps = {s.name: timing.steps(s, LayerSizing(s.name, "Resource", 2), depth=1) for s in network.stages}
    least = dict.fromkeys(shallowest, 1) | least_depths(network, steps, depth=1)
    simulation.run(images / 256, least)
    # There a step waits for its words and its room at once; a process here keeps the word that it has read, at most three on a branch.
    assert all(depth - 3 < shallowest[name] <= depth for name, depth in least.items())


def test_legal_reuse_factors_of_either_strategy_give_exact_features(tmp_path: Path):
    seed = 7
    model, rng = qkeras_nets.awkward(seed, 13, 17), np.random.default_rng(seed)
    x = rng.integers(0, 256, (2, 13, 17, 3), dtype=np.uint8)
    stages = read_graph(convert_sized(model, tmp_path)).sized
    legal = get_backend("Vitis").get_valid_reuse_factors
    factors = {s.name: legal(s.product.inputs, s.product.outputs) for s in stages}
    sizes = {
        name: LayerSizing(name, ("Resource", "Latency")[number % 3 == 2], int(rng.choice(factors[name][1:])))
        for number, name in enumerate(factors)
    }
    graph = convert_sized(model, tmp_path, sizing=Sizing(PART, 5, sizes))
    features = CSimulation(write_project(graph), optimise=0).predict(x)
    assert (features == qkeras_nets.eager(model, x).reshape(2, -1)).all(), (seed, sizes)


def test_projects_that_a_network_is_cut_into_compute_the_same_one_after_the_other(model, network, tmp_path: Path):
    layers = {s.name: LayerSizing(s.name, "Resource", s.product.inputs) for s in network.sized}
    steps = {s.name: timing.steps(s, layers.get(s.name)) for s in network.stages}
    sizing = Sizing(PART, 5, layers, size_fifos(network, steps).depths)
    pieces = split(convert_sized(model, tmp_path, sizing=sizing), cuts(network, sizing, 2), sizing)
    for piece in pieces:
        bind_shallow_fifos(write_project(piece))
    projects = find_projects(tmp_path)
    assert [project.name for project in projects] == ["graph1", "graph2"]
    assert run(model, tmp_path, images=2, projects=projects).equal


def test_reuse_factors_of_both_strategies_and_depths_reach_the_project(model, tmp_path: Path):
    sizes = {"s2b0c1": LayerSizing("s2b0c1", "Resource", 4), "s2b0c2": LayerSizing("s2b0c2", "Latency", 3)}
    graph = convert_sized(model, tmp_path, sizing=Sizing(PART, 4, sizes, {"layer7_out": 5}))
    project = write_project(graph)
    assert "#pragma HLS STREAM variable=layer7_out depth=5\n" in (project / "firmware" / "network.cpp").read_text()
    assert f'set part "{PART}"' in (project / "project.tcl").read_text()
    assert "set clock_period 4" in (project / "project.tcl").read_text()
    parameters = (project / "firmware" / "parameters.h").read_text()
    for size in sizes.values():
        config = parameters[parameters.index(f"// {size.name}\n") :]
        config = config[: config.index("\n// ", 1)]
        assert f"static const unsigned reuse_factor = {size.reuse_factor};" in config
        assert f"nnet::{size.strategy.lower()};" in config


@pytest.mark.parametrize(
    ("layers", "depths", "message"),
    [
        (
            [LayerSizing("s2b0c2", "Resource", 7)],
            {},
            "s2b0c2: hls4ml makes resource with reuse factor 6 of Resource with 7",
        ),
        ([LayerSizing("s9", "Resource", 1)], {}, "layer s9: the network has none of this name, but image, "),
        ([], {"layer99_out": 3}, "FIFO layer99_out: the network has none of this name, but "),
    ],
    ids=["impossible reuse factor", "no such layer", "no such stream"],
)
def test_a_sizing_that_does_not_fit_is_refused(model, tmp_path: Path, layers, depths, message: str):
    with pytest.raises(SizingError, match=message):
        convert_sized(model, tmp_path, sizing=Sizing(PART, 4, {layer.name: layer for layer in layers}, depths))


def test_images_of_another_size_are_refused(simulation):
    with pytest.raises(SimulationError, match=r"shape \(1, 10, 10, 3\): the network takes images of 432 values"):
        simulation.run(np.zeros((1, 10, 10, 3)))


def test_a_folder_without_a_project_is_refused(tmp_path: Path):
    with pytest.raises(SimulationError, match="is no HLS project"):
        CSimulation(tmp_path)


def test_a_machine_without_a_compiler_is_told(simulation, graph, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SimulationError, match=r"needs g\+\+"):
        CSimulation(Path(graph.config.get_output_dir()))


def test_a_source_of_another_layout_is_refused(simulation, graph, tmp_path: Path):
    (tmp_path / "firmware").mkdir()
    project = Path(graph.config.get_output_dir())
    text = (project / "firmware" / "network.cpp").read_text().replace("); // s2b0c1\n", ");\n")
    (tmp_path / "firmware" / "network.cpp").write_text(text)
    (tmp_path / "network_bridge.cpp").write_text((project / "network_bridge.cpp").read_text())
    with pytest.raises(SimulationError, match=r"is not laid out as hls4ml 1\.3\.0 writes"):
        CSimulation(tmp_path)
