"""The notebook, cell by cell in Jupyter's kernel, on the simulated board with the demo's network."""

from __future__ import annotations

import argparse
import base64
import os
import tarfile
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from driver.deploy.package import NOTEBOOK, build_wheel, demo_jets, package
from hls.__main__ import compile_checkpoint
from hw.program import Program

DEMO = Path(__file__).parents[1] / "quantize" / "trained" / "demo.npz"
JETS = 6
POWER_ON = """
import os
from pathlib import Path
from hw.isa import load_config
from sim.board import SimulatedBoard, on_zynq
board = SimulatedBoard(on_zynq(load_config("sim-small")))
board.bitstream(Path(os.environ["QUARKWAVE"]) / "overlay")
"""
"""Before the notebook: what stands for the board, and for the bitstream that an archive without synthesis lacks."""
KEEP = """
np.savez(Path(os.environ["QUARKWAVE"]) / "kept.npz", sums=sums, p_top=p_top, milliseconds=milliseconds, cycles=cycles, length=length,
         utilisation=utilisation, layers=[layer.name for layer in layers], leaked=board.memory_used)
board.close()
"""
"""After it: what it has computed."""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked archive with the demo's network."""
    folder = tmp_path_factory.mktemp("notebook")
    compile_checkpoint(argparse.Namespace(checkpoint=DEMO, board="sim-small", out=folder / "demo.npu"))
    program = Program.load(folder / "demo.npu")
    jets = demo_jets(program.image.height, folder / "jets", JETS // 2)
    path = package("sim-small", program, DEMO, jets, folder, wheel=build_wheel(folder / "wheel"))
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return path.with_name(path.name.removesuffix(".tar.gz"))


@pytest.fixture(scope="module")
def executed(release: Path) -> Any:
    """The notebook after its execution; an exception in any cell fails here."""
    notebook = nbformat.read(release / "notebook" / "quarkwave.ipynb", as_version=4)
    notebook.cells = [new_code_cell(POWER_ON), *notebook.cells, new_code_cell(KEEP)]
    environment = {**os.environ, "QUARKWAVE": str(release)}
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(release)}}
    )
    return client.execute(env=environment)


@pytest.fixture(scope="module")
def kept(executed: Any, release: Path) -> dict[str, Any]:
    """What it has computed."""
    with np.load(release / "kept.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def jets(release: Path) -> dict[str, Any]:
    """The jets of the archive, with the golden model's integers."""
    with np.load(release / "notebook" / "jets.npz") as stored:
        return dict(stored)


def printed(executed: Any) -> str:
    return "".join(
        o.text for c in executed.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream"
    )


def test_every_feature_equals_the_golden_models(kept: dict[str, Any], jets: dict[str, Any], executed: Any):
    assert np.array_equal(kept["sums"], jets["sums"])
    assert f"{jets['sums'].size} of {jets['sums'].size} features equal" in printed(executed)


def test_it_tags_the_jets(kept: dict[str, Any], jets: dict[str, Any], executed: Any):
    right = np.count_nonzero((kept["p_top"] > 0.5) == jets["is_top"])
    assert right > JETS // 2, "the trained network does better than a coin"
    assert f"{right} of {JETS} jets tagged right" in printed(executed)


def test_it_draws_jets_latency_and_timeline(executed: Any):
    pictures = [
        o.data["image/png"]
        for c in executed.cells
        if c.cell_type == "code"
        for o in c.outputs
        if o.output_type == "display_data" and "image/png" in o.data
    ]
    assert len(pictures) == 3
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)


def test_the_timelines_layers_are_the_programs_and_fill_the_run(kept: dict[str, Any], release: Path):
    program = Program.load(release / "model" / "program.npu")
    assert kept["layers"].tolist() == list(program.layer_names)
    assert 0 < kept["length"].sum() <= kept["cycles"][-1]


def test_utilisation_is_the_networks_share_of_the_array(kept: dict[str, Any], release: Path):
    program = Program.load(release / "model" / "program.npu")
    assert kept["utilisation"].tolist() == [
        program.macs / (cycles * program.config.macs) for cycles in kept["cycles"].tolist()
    ]


def test_it_measures_every_image_as_often(kept: dict[str, Any]):
    assert len(kept["milliseconds"]) in range(JETS, 10_000, JETS)
    assert (kept["milliseconds"] > 0).all()


def test_it_gives_all_contiguous_memory_back(kept: dict[str, Any]):
    assert kept["leaked"] == 0


def test_outputs_stay_out_of_the_repository():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not c.outputs and c.execution_count is None for c in notebook.cells if c.cell_type == "code")
