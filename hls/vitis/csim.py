"""Compile (g++ only) and run the C simulation of a written Vitis project, with FIFOs as deep as its pragmas say.

hls4ml's own C simulation calls one layer after the other and its FIFOs are never full, so it computes the right features for a project
that stands still in hardware. Here every layer of ``firmware/<name>.cpp`` is a process of its own (cpp/dataflow.h), no file of the project
is changed, and images follow one another without a pause: the features are those of the very sources that Vitis HLS reads, and FIFOs that
are too shallow end in ``DeadlockError``.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hls.convert import IMAGE_FRACTION_BITS
from hls.vitis import ports
from hls.vitis.dataflow import DeadlockError

SOURCES = Path(__file__).with_name("cpp")
FOLDER = "csim"
"""Of a project: what is made here."""


class SimulationError(RuntimeError):
    """The project cannot be compiled or run."""


@dataclass(frozen=True)
class Fifo:
    """A FIFO after a run: its depth, how many words it held at most, how many went through it (words are pixels)."""

    depth: int
    most: int
    words: int


@dataclass(frozen=True)
class Simulated:
    """What a run gives.

    ``features``: float64 [images, outputs]. ``fifos``: by the stream's name. ``order``: by layer, when traced, its reads and writes in
    order: (``"r"`` or ``"w"``, stream, how many in a row).
    """

    features: NDArray[np.float64]
    fifos: dict[str, Fifo]
    order: dict[str, list[tuple[str, str, int]]]


class CSimulation:
    """The C simulation of the project in ``project``. Building takes from seconds to minutes (ResNet-50: one minute).

    ``optimise``: g++'s level; higher ones take longer to compile than they save for a few small images. Raises SimulationError.
    """

    def __init__(self, project: Path, optimise: int = 2) -> None:
        self.program = project / FOLDER / "simulate"
        network, (self.inputs, self.outputs) = processes(project)
        top, self.beat_bytes = ports.caller(project)
        (project / FOLDER).mkdir(exist_ok=True)
        source = project / FOLDER / "network.cpp"
        source.write_text(network + top)
        command = ["g++", f"-O{optimise}", "-std=c++14", "-w", f'-DWEIGHTS_DIR="{project.resolve()}/firmware/weights"']
        folders = (SOURCES, project / "firmware", project / "firmware" / "ap_types", project.resolve() / ports.FOLDER)
        command += [f"-I{path}" for path in folders]
        command += [str(source), str(SOURCES / "simulate.cpp"), "-o", str(self.program)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise SimulationError("the C simulation needs g++. On Debian: apt-get install g++") from error
        if done.returncode:
            raise SimulationError(f"g++ cannot compile {source}:\n{done.stderr[-4000:]}")

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Features, [n, outputs], of uint8 images, [n, height, width, channels]."""
        return self.run(images.astype(np.float64) / 2**IMAGE_FRACTION_BITS).features

    def run(
        self,
        values: NDArray[np.float64],
        depths: Mapping[str, int] | None = None,
        trace: bool = False,
        progress: bool = False,
    ) -> Simulated:
        """Run images, [n, ...] real values, one right after the other.

        ``depths``: of streams by name, instead of those in the project. ``progress`` shows a bar. Raises DeadlockError, which
        names the FIFOs that are full, and SimulationError when the simulation fails otherwise.
        """
        count = len(values)
        if not count or values.size != count * self.inputs:
            raise SimulationError(f"input of shape {values.shape}: the network takes images of {self.inputs} values")
        options = ["--trace"] if trace else []
        for name, depth in (depths or {}).items():
            options += ["--depth", f"{name}={depth}"]
        with tempfile.TemporaryDirectory() as folder:
            out = self._execute(Path(folder), np.ascontiguousarray(values, np.float64), options, progress)
            features = np.fromfile(f"{out}.features", np.float64).reshape(count, self.outputs)
            return Simulated(features, _fifos(Path(f"{out}.fifos")), _order(Path(f"{out}.order")) if trace else {})

    def run_beats(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Run the top function within its ports: bytes as the AXI4-Streams of a board bring and take them, lowest bits first.

        ``images``: [n, bytes]. Returns the bytes that come out, [n, bytes], and TLAST of each beat, [n, beats]. Raises like run().
        """
        if not self.beat_bytes:
            raise SimulationError(f"{self.program.parent.parent} has no ports: write it again with `make hls`")
        with tempfile.TemporaryDirectory() as folder:
            out = self._execute(Path(folder), np.ascontiguousarray(images, np.uint8), ["--beats"], False)
            beats = np.fromfile(f"{out}.features", np.uint8).reshape(len(images), -1, self.beat_bytes + 1)
        return beats[:, :, :-1].reshape(len(images), -1), beats[:, :, -1].astype(np.bool_)

    def _execute(self, folder: Path, images: NDArray[np.generic], options: Sequence[str], progress: bool) -> Path:
        """Run the program with files in ``folder``; returns the start of the names of those that it wrote."""
        out = folder / "out"
        images.tofile(folder / "images")
        command = [self.program.resolve(), folder / "images", len(images), out, *options]
        with (
            open(folder / "errors", "w+") as errors,
            tqdm(total=100, desc="C simulation", unit="%", disable=not progress) as bar,
            subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            _follow(process.stdout, bar)
            code = process.wait()
            errors.seek(0)
            said = errors.read().strip()
        if code == 3:
            raise DeadlockError(said)
        if code:
            raise SimulationError(said or f"the C simulation ended with {code}")
        return out


class Chain:
    """The C simulation of a network in one project, or in several of which each takes what the one before gives."""

    def __init__(self, projects: Sequence[Path], optimise: int = 2) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # each waits for a g++ of its own
            self.simulations = list(pool.map(lambda project: CSimulation(project, optimise), projects))

    def predict(self, images: NDArray[np.uint8], progress: bool = False) -> NDArray[np.float64]:
        """As ``CSimulation.predict``."""
        values = images.astype(np.float64) / 2**IMAGE_FRACTION_BITS
        for simulation in self.simulations:
            values = simulation.run(values, progress=progress).features
        return values

    def run_beats(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """As ``CSimulation.run_beats``: what one project writes is what the next one reads, bit by bit."""
        last = np.zeros((0, 0), np.bool_)
        for simulation in self.simulations:
            images, last = simulation.run_beats(images)
        return images, last


def find_projects(folder: Path) -> list[Path]:
    """The projects that ``make hls`` wrote into ``folder``, in the order of the chain. Raises FileNotFoundError if there are none."""
    found = sorted(folder.glob("graph[0-9]*"), key=lambda path: int(path.name.removeprefix("graph")))
    if not found:
        raise FileNotFoundError(f"no HLS projects in {folder}: write them with `make hls`")
    return found


def processes(project: Path) -> tuple[str, tuple[int, int]]:
    """C++ of the project's network with a process for each layer, and how many values it takes and gives for an image."""
    sources = sorted((project / "firmware").glob("*.cpp"))
    if len(sources) != 1:
        raise SimulationError(f"{project} is no HLS project: it has {len(sources)} sources in firmware/")
    name = sources[0].stem
    bridge = (project / f"{name}_bridge.cpp").read_text()
    taken = re.findall(r"convert_data<double, (\w+), ([\d*]+)>\((\w+), \w+_ap\);", bridge)
    given = re.findall(r"convert_data<(\w+), double, ([\d*]+)>\((\w+)_ap, \w+\);", bridge)
    if len(taken) != 1 or len(given) != 1:
        raise SimulationError(
            f"{name} has {len(taken)} input streams and {len(given)} output streams: one of each, please"
        )
    (in_type, in_size, in_name), (out_type, out_size, out_name) = taken[0], given[0]

    text = sources[0].read_text()
    head, marker, layers = text.partition("// hls-fpga-machine-learning insert layers\n")
    layers, pragmas = re.subn(
        r"^ *#pragma HLS STREAM variable=(\w+) depth=(\d+)$", r"    region.fifo(\1, \2);", layers, flags=re.M
    )
    layers, calls = re.subn(r"^ *(nnet::.*;) // (\w+)$", r'    region.process("\2", [&] { \1 });', layers, flags=re.M)
    body, end, rest = layers.rpartition("}")
    if not marker or not calls or calls != layers.count("nnet::") or pragmas != layers.count("hls::stream<"):
        raise SimulationError(f"{sources[0]} is not laid out as hls4ml 1.3.0 writes an io_stream project")
    network = f"""// Made by hls/vitis/csim.py from firmware/{name}.cpp and {name}_bridge.cpp: a process for each layer.
{head}{marker}
    dataflow::Region region;
    region.input({in_name});
{body}    region.run_all();
{end}{rest}
#include "nnet_utils/nnet_helpers.h"
namespace nnet {{
bool trace_enabled = false;
std::map<std::string, void *> *trace_outputs = nullptr;
size_t trace_type_size = sizeof(double);
}}
extern const std::size_t INPUT_SIZE = {in_size}, OUTPUT_SIZE = {out_size};
void simulate(double *images, double *features, std::size_t count) {{
    hls::stream<{in_type}> image("{in_name}");
    hls::stream<{out_type}> feature("{out_name}");
    for (std::size_t i = 0; i < count; ++i) nnet::convert_data<double, {in_type}, {in_size}>(images + i * INPUT_SIZE, image);
    {name}(image, feature);
    for (std::size_t i = 0; i < count; ++i) nnet::convert_data<{out_type}, double, {out_size}>(feature, features + i * OUTPUT_SIZE);
}}
"""
    return network, (_product(in_size), _product(out_size))


def _product(size: str) -> int:
    return int(np.prod([int(factor) for factor in size.split("*")]))


def _follow(lines: IO[str] | None, bar: tqdm) -> None:
    for line in lines or ():
        bar.update(line == "percent\n")


def _fifos(path: Path) -> dict[str, Fifo]:
    lines = (line.split() for line in path.read_text().splitlines())
    return {name: Fifo(*map(int, numbers)) for name, *numbers in lines}


def _order(path: Path) -> dict[str, list[tuple[str, str, int]]]:
    order = {}
    for line in path.read_text().splitlines():
        layer, *runs = line.split(" ")
        order[layer] = [(kind, stream, int(count)) for kind, stream, count in (run.split(":") for run in runs)]
    return order
