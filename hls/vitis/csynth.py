"""Read what Vitis HLS reports of a synthesised project: ``<project>_prj/solution1/syn/report/*_csynth.xml``.

The format is that of the reports that Vitis HLS 2023.1 and 2024.2 left in public repositories (Alezander9/ML_FPGAonPixel and
tsopeter/753-FPGA on GitHub), both of hls4ml projects; hls4ml's own report/vivado_report.py reads the same elements of the top function.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hls.vitis.parts import Resources
from hls.vitis.ports import SUFFIX

TAGS = {"dsp": "DSP", "bram18": "BRAM_18K", "uram": "URAM", "lut": "LUT", "ff": "FF"}
CALL = re.compile(r"nnet::\w+<.*config(?P<index>\d+)>\(.*// (?P<layer>\w+)$")
"""The call of a layer function in hls4ml's top function."""
MODULE = re.compile(r"config(?P<index>\d+)_s$")
"""The end of the name that Vitis HLS gives the function of that layer."""


class ReportError(ValueError):
    """A report that is missing or not in the format known here."""


@dataclass(frozen=True)
class Report:
    """Of a function. ``interval`` and ``latency``: the most cycles. Clock periods in ns."""

    function: str
    version: str
    interval: int
    latency: int
    clock_target: float
    clock_estimated: float
    resources: Resources

    @property
    def meets_clock(self) -> bool:
        """Whether the estimated period is within the target."""
        return self.clock_estimated <= self.clock_target


def read_report(path: Path) -> Report:
    """One csynth.xml. Raises ReportError with what is missing."""
    try:
        root = ET.parse(path).getroot()
    except FileNotFoundError as error:
        raise ReportError(f"there is no {path}: C synthesis has not ended well") from error
    except ET.ParseError as error:
        raise ReportError(f"{path} is no report of Vitis HLS: {error}") from error

    def text(element: str) -> str:
        found = root.findtext(element)
        if found is None:
            raise ReportError(f"{path} has no {element}: a report of another version of Vitis HLS?")
        return found.strip()

    def cycles(element: str) -> int:
        word = text(f"PerformanceEstimates/SummaryOfOverallLatency/{element}")
        if not word.isdigit():
            raise ReportError(f"{path}: {element} is {word!r}: Vitis HLS could not tell how often a loop runs")
        return int(word)

    return Report(
        function=text("UserAssignments/TopModelName"),
        version=text("ReportVersion/Version"),
        interval=cycles("Interval-max"),
        latency=cycles("Worst-caseLatency"),
        clock_target=float(text("UserAssignments/TargetClockPeriod")),
        clock_estimated=float(text("PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod")),
        resources=Resources(**{name: int(text(f"AreaEstimates/Resources/{tag}")) for name, tag in TAGS.items()}),
    )


def read_project(project: Path) -> tuple[Report, dict[str, Report]]:
    """The report of the top function, and those of the layers by their names. Raises ReportError."""
    name, folder = project_name(project), report_folder(project)
    top = read_report(folder / f"{name}{SUFFIX}_csynth.xml")
    layers = layer_names(project / "firmware" / f"{name}.cpp")
    found: dict[str, Report] = {}
    for path in sorted(folder.glob("*_csynth.xml")):
        match = MODULE.search(path.name.removesuffix("_csynth.xml"))
        if match and match["index"] in layers and "_Pipeline_" not in path.name:
            report = read_report(path)
            layer = layers[match["index"]]
            if layer not in found or report.latency > found[layer].latency:  # what a layer function calls is within it
                found[layer] = report
    return top, found


def layer_names(source: Path) -> Mapping[str, str]:
    """Layers by the number of their configuration, from the top function that hls4ml wrote."""
    try:
        lines = source.read_text().splitlines()
    except FileNotFoundError as error:
        raise ReportError(f"there is no {source}: write the project again with `make hls`") from error
    return {match["index"]: match["layer"] for line in lines if (match := CALL.search(line.strip()))}


def project_name(project: Path) -> str:
    """What hls4ml called the project in ``project``. Raises ReportError if there is none."""
    try:
        match = re.search(r'^set project_name "(\w+)"', (project / "project.tcl").read_text(), re.MULTILINE)
    except FileNotFoundError as error:
        raise ReportError(f"{project} holds no project of hls4ml: write it with `make hls`") from error
    if match is None:
        raise ReportError(f"{project / 'project.tcl'} names no project")
    return match[1]


def report_folder(project: Path) -> Path:
    """Where Vitis HLS leaves the reports of a project."""
    return project / f"{project_name(project)}_prj" / "solution1" / "syn" / "report"
