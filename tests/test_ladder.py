"""The ladder of docs/numerics.md for the demo's trained network on real jets: each rung gives the integers of the one before.

eager QKeras == golden model == hls4ml C simulation == NPU RTL == gRPC answer. Jets come from Pythia with a seed that training does not use.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from running_service import running_service

from driver.board import HlsOverlay
from driver.golden import GoldenDevice
from driver.runtime import Npu, Result
from driver.streamed import StreamedNetwork
from hls.compare import integers
from hls.convert import IMAGE_FRACTION_BITS, convert
from hls.npu.backend import program_path
from hls.vitis import timing
from hls.vitis.csim import CSimulation
from hls.vitis.fifos import size_fifos
from hls.vitis.parts import find_part
from hls.vitis.ports import write_ports
from hls.vitis.project import convert_sized, write_project
from hls.vitis.sizing import Sizing
from hls.vitis.solve import solve
from hls.vitis.stages import read_graph
from hw.program import Program
from quantize import checkpoint, dataset, jets
from quantize.images import jet_images
from sim.hls_board import SimulatedHlsBoard
from sim.verilated import VerilatedDevice

IMAGES, C_SIMULATED = 20, 2
SEED = 4242
PART, CYCLES = "xcu250-figd2104-2L-e", 100_000


@pytest.fixture(scope="module")
def model():
    return checkpoint.load_quantised(checkpoint.DEMO)


@pytest.fixture(scope="module")
def program(model, tmp_path_factory: pytest.TempPathFactory) -> Program:
    graph = convert(model, "NPU", str(tmp_path_factory.mktemp("ladder")), "demo")
    graph.write()
    return Program.load(program_path(graph))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, program: Program) -> NDArray[np.uint8]:
    folder = tmp_path_factory.mktemp("jets")
    jets.generate(folder, jets.Recipe(seed=SEED, batches_per_chunk=1), IMAGES // 2, {"test": 1.0})
    found = dataset.read(folder / "test.h5")
    return jet_images(found.constituents[:IMAGES], program.image.height)


@pytest.fixture(scope="module")
def golden(program: Program, images: NDArray[np.uint8]) -> NDArray[np.int32]:
    with Npu(GoldenDevice(program.config)) as npu:
        npu.load(program)
        return np.stack([npu.run(image).result for image in images])


@pytest.fixture(scope="module")
def rtl(program: Program) -> Iterator[VerilatedDevice]:
    device = VerilatedDevice(program.config)
    yield device
    device.close()


def test_the_jets_are_real_and_the_features_are_not_constant(images: NDArray[np.uint8], golden: NDArray[np.int32]):
    assert len(images) == IMAGES and all(image.any() for image in images)
    assert len({row.tobytes() for row in golden}) == IMAGES


def test_eager_qkeras_equals_the_golden_model(model, program, images, golden):
    features = np.concatenate([model(images[i : i + 1] / np.float32(1 << IMAGE_FRACTION_BITS)) for i in range(IMAGES)])
    assert (integers(features, program.output) == golden).all()


@pytest.fixture(scope="module")
def hls_project(model, tmp_path_factory: pytest.TempPathFactory) -> tuple[CSimulation, Sizing, StreamedNetwork]:
    """The sized HLS project, its C simulation, and what a board sees of it."""
    folder = tmp_path_factory.mktemp("hls")
    network = read_graph(graph := convert_sized(model, folder))
    solution = solve(network, graph.config.backend, CYCLES, find_part(PART))
    fifos = size_fifos(network, {s.name: timing.steps(s, solution.layers.get(s.name)) for s in network.stages})
    sizing = Sizing(PART, 5, solution.layers, fifos.depths)
    project = write_project(sized := convert_sized(model, folder, sizing=sizing))
    streams = write_ports([sized], [project], folder)
    return CSimulation(project, optimise=1), sizing, streams


def test_the_golden_model_equals_hls4mls_c_simulation_of_the_sized_project(program, images, golden, hls_project):
    simulation, sizing, _ = hls_project
    assert max(layer.reuse_factor for layer in sizing.layers.values()) > 100  # not hls4ml's default, which is 1
    simulated = simulation.run(images[:C_SIMULATED] / 2**IMAGE_FRACTION_BITS)
    assert (integers(simulated.features, program.output) == golden[:C_SIMULATED]).all()
    assert {name: fifo.depth for name, fifo in simulated.fifos.items()} == sizing.fifo_depths


def test_the_golden_model_equals_what_pynq_gets_of_the_hls_network_through_an_axi_dma(
    program, images, golden, hls_project, tmp_path: Path
):
    simulation, _, streams = hls_project
    with HlsOverlay(SimulatedHlsBoard(streams, simulation.run_beats).bitstream(tmp_path), timeout=300) as overlay:
        features = overlay.run_batch(images[:C_SIMULATED])
    assert (integers(features, program.output) == golden[:C_SIMULATED]).all()


def test_the_golden_model_equals_the_rtl_and_every_cycle_is_accounted_for(program, images, golden, rtl):
    npu = Npu(rtl)
    npu.load(program)
    for image, expected in zip(images, golden, strict=True):
        before = rtl.cycles
        answer: Result = npu.run(image)
        simulated = rtl.cycles - before
        c = answer.counters
        assert (answer.result == expected).all()
        assert c.cycles == c.mac_busy + c.weight_stall + c.image_stall + c.drain + c.overhead
        # The simulator counts the register accesses before start and after done as well.
        assert c.cycles < simulated < c.cycles + 4000


def test_the_rtl_equals_the_grpc_answer(program, images, golden):
    with running_service(
        program, checkpoint.load(checkpoint.DEMO).classifier, VerilatedDevice(program.config)
    ) as address:
        client = triton.InferenceServerClient(address)
        tensor = triton.InferInput("image", images.shape, "UINT8")
        tensor.set_data_from_numpy(images)
        answer = client.infer("featurizer", [tensor])
    assert (answer.as_numpy("feature_sums") == golden).all()
    assert (answer.as_numpy("features") == program.features(golden)).all()
