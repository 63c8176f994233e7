"""The whole ResNet-50 at 224x224 in RTL: every feature, the utilisation, and an account for every cycle."""

import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import resnet50_rtl
import timeline
import workload
from cycle_model import busy_cycles, drain_cycles, layer_costs

from hw.isa import LayerDescriptor
from hw.program import Program
from sim.verilated import VerilatedDevice

FEATURES = 2048


class WatchedDevice(VerilatedDevice):
    """Remembers which clock cycles register accesses took."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.accesses: list[tuple[int, int]] = []
        super().__init__(*arguments, **options)

    def read_register(self, offset: int) -> int:
        return self._watched(super().read_register, offset)

    def write_register(self, offset: int, value: int) -> None:
        self._watched(super().write_register, offset, value)

    def _watched(self, access: Callable[..., Any], *arguments: int) -> Any:
        begin = self.cycles
        answer = access(*arguments)
        self.accesses.append((begin, self.cycles))
        return answer


@dataclass(frozen=True)
class Run:
    """One jet on zcu104, with what `make resnet50-rtl` assumes of its memory."""

    program: Program
    facts: dict[str, Any]
    elapsed: int
    """Cycles on the simulator's clock."""
    access_cycles: int
    """Those of them that register accesses took."""


@pytest.fixture(scope="module")
def run() -> Run:
    options = resnet50_rtl.parse_arguments([])
    images = workload.jet_sample(1)
    program = workload.program(options.config, options.version, options.seed)
    device = WatchedDevice(options.config, latency=options.latency, bandwidth=options.bandwidth, seed=options.seed)
    measured = resnet50_rtl.measure(program, images, device)
    facts = resnet50_rtl.report(program, options, measured, resnet50_rtl.golden(program, images))
    start, end = measured.first_start, measured.ends[-1]
    accesses = sum(after - before for before, after in device.accesses if start <= before and after <= end)
    return Run(program, facts, end - start, accesses)


def test_every_feature_equals_the_golden_model(run: Run):
    assert (run.facts["features_equal"], run.facts["features"]) == (FEATURES, FEATURES)


def test_the_array_is_as_busy_as_the_configuration_must_reach(run: Run):
    assert all(shown for shown, _ in resnet50_rtl.verdict(run.facts)), resnet50_rtl.verdict(run.facts)


def test_every_layer_computes_and_drains_exactly_as_long_as_the_cycle_model_says(run: Run):
    costs = layer_costs(run.program)
    counted = [(row["name"], row["mac_busy"], row["drain"]) for row in run.facts["layers"][: len(costs)]]
    assert counted == [(cost.name, cost.busy, cost.drain) for cost in costs]


def test_every_cycle_is_counted_once(run: Run):
    facts = run.facts
    assert facts["mac_busy"] + sum(facts["stalls"].values()) == facts["cycles"]
    for name in ("mac_busy", "weight_stall", "image_stall", "drain", "overhead"):
        total = facts["stalls"].get(name, facts["mac_busy"])
        assert sum(row[name] for row in facts["layers"]) == total, name
    assert sum(row["cycles"] for row in facts["layers"]) == facts["cycles"]


def test_the_counted_cycles_are_the_simulators_but_for_register_accesses(run: Run):
    assert 0 <= run.elapsed - run.facts["cycles"] <= run.access_cycles


def test_nothing_is_faster_than_the_bandwidth_bound(run: Run):
    assert run.facts["ideal_cycles"] <= run.facts["bound_cycles"] <= run.facts["cycles"]


def test_the_timeline_is_drawn(run: Run, tmp_path: Path):
    timeline.draw(run.facts, run.program, tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_survives_json(run: Run):
    assert json.loads(json.dumps(run.facts)) == run.facts | {"latency": list(run.facts["latency"])}


def test_every_bank_access_of_the_timeline_belongs_to_a_tensor(run: Run):
    tensors = [timeline.tensor_accesses(d, run.program) for d in run.program.descriptors()]
    expected = [sum(accesses for _, _, accesses in layer) for layer in tensors]
    assert np.allclose(timeline.bank_accesses(run.program).sum(axis=1), expected)


def walked(d: LayerDescriptor) -> tuple[int, int]:
    """(busy, drain) cycles of a layer by walking its passes one by one."""
    rows = [min(d.tile_rows, d.out_height - tile * d.tile_rows) for tile in range(d.tiles)]
    tiles = [row * d.out_width for row in rows] * d.out_blocks
    busy = drain = before = 0
    for pixels in tiles:
        if d.exclusive_drain:
            drain, before = drain + pixels, 0
        drain += max(0, before - pixels)
        busy += d.passes_per_tile * pixels
        before = pixels
    return busy, drain + (0 if d.exclusive_drain else before)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_cycles_of_a_layer_are_those_of_its_passes(seed: int, exclusive: int):
    rng = np.random.default_rng(seed)
    in_blocks, kernel, out_blocks, width, height, tile_rows = (int(n) for n in rng.integers(1, 9, 6))
    d = LayerDescriptor(
        in_blocks=in_blocks, kernel_h=kernel, kernel_w=kernel, out_blocks=out_blocks, out_width=width,
        out_height=height, tile_rows=min(tile_rows, height), exclusive_drain=exclusive,
    )  # fmt: skip
    d = replace(d, tiles=-(-d.out_height // d.tile_rows))
    assert (busy_cycles(d), drain_cycles(d)) == walked(d), f"seed {seed}"


def verdict(**facts: Any) -> list[bool]:
    passed = {
        "config": "zcu104",
        "features": FEATURES,
        "features_equal": FEATURES,
        "cycles": 100,
        "bound_cycles": 98,
        "images": 1,
    }
    return [
        shown for shown, _ in resnet50_rtl.verdict(passed | {"utilisation": 0.96, "bound_utilisation": 0.97} | facts)
    ]


def test_one_unequal_feature_fails():
    assert verdict() == [True, True]
    assert verdict(features_equal=FEATURES - 1) == [False, True]


def test_utilisation_below_the_goal_fails_where_bandwidth_allows_it():
    assert verdict(utilisation=0.949) == [True, False]


def test_where_bandwidth_rules_the_goal_out_the_bound_counts():
    assert verdict(utilisation=0.8, bound_utilisation=0.82) == [True, True]
    assert verdict(utilisation=0.8, bound_utilisation=0.82, cycles=102) == [True, False]


def test_images_back_to_back_must_hide_loading_and_storing():
    two = {"images": 2, "compute_cycles": 100}
    assert verdict(**two, cycles_per_image=100.9) == [True, True, True]
    assert verdict(**two, cycles_per_image=101.0) == [True, True, False]


def test_the_command_refuses_more_jets_than_there_are():
    with pytest.raises(ValueError, match="17 jets: there are 1 to 16"):
        resnet50_rtl.run(Namespace(images=17))
