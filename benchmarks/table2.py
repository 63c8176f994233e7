"""Table 2 of Duarte et al. 2019 (arXiv:1904.08986), ResNet-50 inference by CPU and FPGA, with this project's rows beside the paper's.

``make table2`` runs this. It measures nothing: our rows come from the reports of ``make bench-emulator`` and ``make resnet50-rtl``. Times
of the NPU are cycles counted in the RTL, divided by the clock that the board's configuration asks for; no board has run them, so they
are called predicted.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw.sources import BUILD

REPORTS = BUILD / "reports"


@dataclass(frozen=True)
class Row:
    """One line of the table; None where nobody says."""

    system: str
    milliseconds: float | None
    images_per_second: str
    source: str


PAPER = (
    # The CPU's time is what "a factor of approximately 175" over the 10 ms of an edge service makes it.
    Row("CPU in the experiment's software, float32", 1750.0, "0.6", "paper, abstract: about 175 x the edge service"),
    Row("Brainwave as a cloud service, round trip", 60.0, "600 to 700", "paper, abstract"),
    Row("Brainwave on the premises, round trip", 10.0, "600 to 700", "paper, abstract"),
    Row("Brainwave, the FPGA alone", 1.8, "", "paper"),
)


def cpu_rows(reports: Path) -> list[Row]:
    """What benchmarks/emulator.py measured."""
    path = reports / "emulator.json"
    if not path.is_file():
        return [Row("this machine's CPU", None, "", "not measured yet: make bench-emulator")]
    facts = _read(path)
    rows = []
    for row in facts["rows"]:
        system = f"{row['name']}, {row['threads']} thread{'s' * (row['threads'] > 1)}, batch {row['batch']}"
        rows.append(Row(system, row["ms"], f"{1e3 / row['ms']:.1f}", f"measured, {facts['cpu']}"))
    return rows


def npu_rows(reports: Path) -> list[Row]:
    """The NPU's cycles, counted in the RTL, at each board's clock."""
    rows = []
    for path in sorted(reports.glob("resnet50-*.json")):
        facts = _read(path)
        if not facts["clock_mhz"]:
            continue  # a configuration for simulation, of no board
        name = f"NPU {facts['cp']} x {facts['kp']} of {facts['config']} at {facts['clock_mhz']:g} MHz"
        one = facts["cycles"] / facts["clock_mhz"] / 1e3
        steady = facts.get("cycles_per_image", facts["cycles"]) / facts["clock_mhz"] / 1e3
        used = f"predicted: {facts['cycles']:,} cycles in RTL, {facts['utilisation']:.1%} of the multipliers busy"
        rows.append(Row(name, one, f"{1e3 / steady:.0f}", used))
    return rows or [Row("NPU", None, "", "not simulated yet: make resnet50-rtl CONFIG=zcu104")]


def _read(path: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise SystemExit(f"error: {path} is not a report ({error}): make it again") from None
    return facts


def table(reports: Path) -> str:
    """The table as text."""
    lines = [f"{'ResNet-50, 224 x 224':52}{'ms an image':>12}{'images/s':>12}  from"]
    for title, rows in (
        ("Duarte et al. 2019", PAPER),
        ("this project, CPU", cpu_rows(reports)),
        ("this project, FPGA", npu_rows(reports)),
    ):
        lines.append(f"-- {title}")
        for row in rows:
            time = "-" if row.milliseconds is None else f"{row.milliseconds:.4g}"
            lines.append(f"{row.system:52}{time:>12}{row.images_per_second:>12}  {row.source}")
    lines.append(
        "predicted: simulated cycles at the configuration's clock, without host and network; no board has run them."
    )
    lines.append(
        "The paper's rows for GPUs and its CPUs' models are left out: only what its abstract and text say is quoted."
    )
    return "\n".join(lines)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--reports", type=Path, default=REPORTS, help="folder of reports (default: build/reports)")
    print(table(parser.parse_args().reports))
    return 0


if __name__ == "__main__":
    sys.exit(main())
