"""FIFOs between the layers: the event simulation against one that goes cycle by cycle, and the depths that come of it."""

import numpy as np
import pytest
from dataflow_networks import Builder, cycle_by_cycle, residual

from hls.vitis.dataflow import UNBOUNDED, DeadlockError, simulate
from hls.vitis.fifos import SPARE_WORDS, least_depths, size_fifos
from hls.vitis.sizing import LayerSizing
from hls.vitis.stages import Network
from hls.vitis.timing import CYCLES_BESIDE_REUSE, CYCLES_WITHOUT_WINDOW, FRAME_CYCLES, Steps, interval, steps


def hardware(network: Network, reuse_factor: int = 4, depth: int = 3) -> dict[str, Steps]:
    return {s.name: steps(s, LayerSizing(s.name, "Resource", reuse_factor), depth) for s in network.stages}


def random_network(rng: np.random.Generator) -> Network:
    """A few layers, forks that meet again, random kernels and strides."""
    b = Builder()
    x = b.image(int(rng.integers(5, 9)))
    for n in range(int(rng.integers(2, 5))):
        match rng.integers(4):
            case 0:
                x = b.conv(f"conv{n}", b.pad(f"pad{n}", x), 3, int(rng.integers(1, 3)))
            case 1:
                (x,) = b.plain(f"relu{n}", x)
            case 2:
                left, right = b.plain(f"clone{n}", x, outputs=2)
                (x,) = b.plain(f"add{n}", b.conv(f"left{n}", left, 1), right)
            case 3:
                left, right = b.plain(f"clone{n}", x, outputs=2)
                left = b.conv(f"left{n}", b.pad(f"pad{n}", left), 3, 2)
                (x,) = b.plain(f"add{n}", left, b.conv(f"right{n}", right, 1, 2))
    return b.network()


@pytest.mark.parametrize("seed", range(25))
def test_every_image_is_done_in_the_cycle_in_which_a_simulation_cycle_by_cycle_has_it_done(seed: int):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    work = {
        s.name: steps(
            s,
            LayerSizing(s.name, str(rng.choice(["Resource", "Latency"])), int(rng.integers(1, 7))),
            depth=int(rng.integers(1, 4)),
        )
        for s in network.stages
    }
    depths = {name: int(rng.integers(1, 30)) for name in network.streams}
    expected = cycle_by_cycle(network, work, depths, images=2)
    if expected is None:
        with pytest.raises(DeadlockError):
            simulate(network, work, depths, images=2)
    else:
        assert list(simulate(network, work, depths, images=2).finished) == expected, f"seed {seed}"


@pytest.mark.parametrize("depth", [1, 3], ids=["as the C simulation", "as pipelines that stall"])
@pytest.mark.parametrize("side", [4, 9])
def test_the_least_depths_run_through_and_one_less_on_any_of_them_locks_up(side: int, depth: int):
    network = residual(side, blocks=2)
    work = hardware(network, depth=depth)
    least = least_depths(network, work)
    depths = dict.fromkeys(network.streams, 2) | least
    assert set(least) == {"clone0_out1", "clone1_out1"}
    simulate(network, work, depths, images=2)
    for name in least:
        with pytest.raises(DeadlockError, match=f"waits for room in {name}"):
            simulate(network, work, depths | {name: least[name] - 1}, images=2)


@pytest.mark.parametrize("seed", range(10))
def test_the_least_depths_of_random_networks_are_least(seed: int):
    network = random_network(np.random.default_rng(seed))
    work = hardware(network)
    least = least_depths(network, work)
    depths = dict.fromkeys(network.streams, 2) | least
    simulate(network, work, depths, images=2)
    for name in least:
        with pytest.raises(DeadlockError):
            simulate(network, work, depths | {name: least[name] - 1}, images=2)


def test_a_skip_connection_around_a_3x3_holds_what_the_line_buffer_keeps_back():
    side = 10
    least = least_depths(residual(side), hardware(residual(side), depth=1))
    # The 3x3 gives its first pixel when pixel (1, 1) has come, the side + 2nd; FIFOs of depth 2 after the fork hold the last two.
    assert side <= least["clone0_out1"] <= side + 2


def test_sized_fifos_let_the_slowest_stage_run_without_waiting():
    network = residual(8, blocks=2)
    work = hardware(network)
    plan = size_fifos(network, work)
    slowest = max(s.interval for s in work.values())
    endless = simulate(network, work, dict.fromkeys(network.streams, UNBOUNDED), images=3)
    assert plan.run.interval == endless.interval == slowest
    assert simulate(network, work, plan.depths, images=3).finished == plan.run.finished
    assert all(d <= plan.depths[name] <= d + SPARE_WORDS for name, d in plan.least.items())
    assert sum(plan.depths.values()) < sum(s.words for s in network.streams.values()) / 3


def test_peaks_are_depths_with_which_no_writer_ever_waits():
    network = residual(8)
    work = hardware(network)
    endless = simulate(network, work, dict.fromkeys(network.streams, UNBOUNDED), images=2)
    assert simulate(network, work, endless.peaks, images=2).finished == endless.finished
    name = max(endless.peaks, key=lambda n: endless.peaks[n])
    assert simulate(network, work, {**endless.peaks, name: endless.peaks[name] - 1}, images=2).peaks != endless.peaks


def test_a_deadlock_is_told_as_a_circle():
    network = residual(8)
    with pytest.raises(DeadlockError) as told:
        simulate(network, hardware(network), dict.fromkeys(network.streams, 2))
    message = str(told.value)
    assert "clone0 waits for room in clone0_out1 (depth 2)" in message
    assert "add0 waits for a word in third0_out0" in message


def test_a_convolutions_cycles_are_those_of_its_pixels():
    b = Builder()
    b.conv("conv", b.image(6), 3)
    stage = b.network().stages[0]
    windows, pixels = 4 * 4, 6 * 6
    sizing = LayerSizing("conv", "Resource", 9)
    expected = windows * (9 + CYCLES_BESIDE_REUSE) + (pixels - windows) * CYCLES_WITHOUT_WINDOW + FRAME_CYCLES
    assert interval(stage, sizing) == expected
    assert interval(stage, LayerSizing("conv", "Latency", 5)) == 5 * pixels + FRAME_CYCLES


def test_a_stage_with_multiplications_needs_its_sizing():
    b = Builder()
    b.conv("conv", b.image(6), 3)
    with pytest.raises(ValueError, match="conv has multiplications"):
        steps(b.network().stages[0])
