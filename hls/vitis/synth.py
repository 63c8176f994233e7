"""``make hls-synth``: run Vitis HLS on the written projects, and put its reports beside the estimates.

Nobody has run it with the real tool here; the tests run it on a program that behaves like it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from hls.vitis.csim import find_projects
from hls.vitis.csynth import Report, project_name, read_project
from hls.vitis.parts import Resources
from hls.vitis.ports import top_source
from hw.files import write_if_changed
from hw.synth.process import SynthesisError, run_tool
from hw.synth.tool import Tool, find

VITIS_RUN = Tool(
    "vitis-run", "AMD Vitis", "XILINX_VITIS", "--version", ("2023.2", "2024.1", "2024.2", "2025.1", "2025.2")
)
VITIS_HLS = Tool("vitis_hls", "AMD Vitis HLS", "XILINX_HLS", "-version", ("2022.1", "2022.2", "2023.1", "2023.2"))
SCRIPT = Path(__file__).parent / "tcl" / "synthesise.tcl"
ARGUMENTS = {"vitis-run": ("--mode", "hls", "--tcl"), "vitis_hls": ("-f",)}
TARGET = "target.tcl"
PHASES = {
    "quarkwave step: C synthesis": "reading the sources",
    "INFO: [HLS 200-10] Starting hardware synthesis": "hardware synthesis",
    "INFO: [RTGEN 206-100] Finished creating RTL": "writing RTL",
    "quarkwave step: packaging": "packaging",
}


@dataclass(frozen=True)
class Synthesised:
    """Reports of all projects: of their top functions in the order of the network, and of every layer."""

    tops: tuple[Report, ...]
    layers: dict[str, Report]

    @property
    def total(self) -> Resources:
        """Of all projects."""
        return sum((top.resources for top in self.tops), Resources())

    @property
    def interval(self) -> int:
        """Cycles an image: the slowest project's."""
        return max(top.interval for top in self.tops)


def find_tool() -> tuple[Path, Tool]:
    """The newest way to call Vitis HLS. Raises SynthesisError that says exactly what is missing."""
    for tool in (VITIS_RUN, VITIS_HLS):
        try:
            return find(tool), tool
        except SynthesisError as error:
            if "was not found" not in str(error):
                raise
    raise SynthesisError(
        f"Vitis HLS was not found: neither {VITIS_RUN.command} ({VITIS_RUN.product} {VITIS_RUN.supported[0]} to "
        f"{VITIS_RUN.supported[-1]}) nor {VITIS_HLS.command} ({VITIS_HLS.supported[0]} to {VITIS_HLS.supported[-1]}) is on the PATH; "
        f"install it and source its settings64.sh, or set {VITIS_RUN.home}. Everything else, and `make hls-csim`, works without"
    )


def synthesise(out: Path, jobs: int = 1, kernels: bool = False) -> Synthesised:
    """Synthesise and package every project in ``out``, ``jobs`` at a time, as IPs or as ``kernels`` of Vitis; live progress.

    Raises SynthesisError, ReportError, FileNotFoundError if there are no projects.
    """
    projects = find_projects(out)
    for project in projects:
        name, source = project_name(project), top_source(project)
        lines = [
            "source project.tcl",
            f"set top {source.stem}",
            f"set sources {{firmware/{name}.cpp {source.relative_to(project)}}}",
            'set flags "-std=c++0x -I[pwd]/firmware -I[pwd]/ports"',
            f"set flow {'vitis' if kernels else 'vivado'}",
        ]
        write_if_changed(project / TARGET, "\n".join([*lines, ""]))
    run_all(projects, jobs)
    return read(projects)


def run_all(folders: Sequence[Path], jobs: int) -> None:
    """Vitis HLS in each of ``folders``, by its target.tcl. Raises SynthesisError."""
    executable, tool = find_tool()
    command: list[str | Path] = [executable, *ARGUMENTS[tool.command], SCRIPT]

    def run(folder: Path) -> None:
        run_tool(folder.name, command, folder / "vitis_hls.log", PHASES, folder=folder, quiet=jobs > 1)

    with ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(run, folder) for folder in folders]
        for job in tqdm(started, desc="Vitis HLS", unit="project", disable=jobs == 1):
            try:
                job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def read(projects: Sequence[Path]) -> Synthesised:
    """The reports that are there. Raises ReportError."""
    tops, layers = [], {}
    for project in projects:
        top, inner = read_project(project)
        tops.append(top)
        layers.update(inner)
    return Synthesised(tuple(tops), layers)


def table(out: Path, found: Synthesised) -> str:
    """Estimates of ``out``/report.json beside what was synthesised, layer by layer. Also written to ``out``/synthesis.txt."""
    estimates = json.loads((out / "report.json").read_text())
    header = ("layer", "cycles", "HLS", "DSP", "HLS", "BRAM18", "HLS", "LUT", "HLS", "FF", "HLS")
    names = ("dsp", "bram18", "lut", "ff")
    lines: list[tuple[str, ...]] = [header]
    for row in estimates["layers"]:
        report = found.layers.get(row["layer"])
        cells = [row["interval_cycles"], report and report.interval]
        for name in names:
            cells += [row["resources"][name], report and getattr(report.resources, name)]
        lines.append((row["layer"], *("-" if cell is None else f"{cell:,}" for cell in cells)))
    total = [estimates["interval_cycles"], found.interval]
    for name in names:
        total += [estimates["resources"][name], getattr(found.total, name)]
    lines.append(("all, with FIFOs", *(f"{cell:,}" for cell in total)))
    widths = [max(len(line[n]) for line in lines) for n in range(len(header))]
    text = "\n".join(
        "  ".join(
            word.ljust(width) if n == 0 else word.rjust(width)
            for n, (word, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
    slow = [top for top in found.tops if not top.meets_clock]
    for top in slow:
        text += f"\n{top.function} misses the clock: {top.clock_estimated} ns by estimate of Vitis HLS, {top.clock_target} ns wanted"
    write_if_changed(out / "synthesis.txt", text + "\n")
    return text


def missed(out: Path, found: Synthesised) -> bool:
    """Whether the target or the clock is missed."""
    target = json.loads((out / "report.json").read_text())["target_cycles"]
    return found.interval > target or not all(top.meets_clock for top in found.tops)
