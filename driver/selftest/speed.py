"""Checks of what the device reaches: bandwidth of its memory ports, right and fast answers of the network.

Bandwidth is the difference of two runs that differ only in how much one port moves, so latency and everything else drop out.
"""

from __future__ import annotations

import statistics
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driver.device import Device
from driver.golden import GoldenDevice
from driver.registers import Counters
from driver.runtime import Npu, Result
from driver.selftest.bench import Bench
from driver.selftest.builder import Builder, Pooling
from driver.selftest.findings import CheckError, NotApplicableError, Seen
from driver.selftest.memory import copy_program
from hw.image_layout import ImageLayout
from hw.isa import ArrayConfig, Pool
from hw.program import Program

LEAST_SHARE = 0.5
"""Of a port's width, below which a port counts as too slow: a board's memory gives 0.6 and more."""
MOST_SPREAD = 0.25
"""By which an image may take longer than the fastest one."""
SIGNATURE = "signature"
"""Key in ``Program.metadata``: what sign() puts there."""
SIGNATURE_SEED, SIGNATURE_IMAGES = 2048, 2


def bandwidth(bench: Bench) -> Seen:
    """Bytes a cycle of each kind of port, by the NPU's own counters, against the ports' width."""
    if bench.is_model:
        raise NotApplicableError("a model has no clock")
    c = bench.array
    measured = {
        "weights": (_rate(bench, _many_passes(c, 7), _many_passes(c, 15), lambda p: len(p.stream)), c.stream_bytes),
        "image": (_rate(bench, _large_image(c, 24), _large_image(c, 48), lambda p: p.image_bytes), c.port_bytes),
        "features": (_rate(bench, copy_program(c, 1), copy_program(c), lambda p: p.result_bytes), c.port_bytes),
    }
    text = ", ".join(f"{name} {rate:.1f} of {width}" for name, (rate, width) in measured.items()) + " bytes/cycle"
    slow = [name for name, (rate, width) in measured.items() if rate < LEAST_SHARE * width]
    if slow:
        raise CheckError(
            f"{text}: too slow is {', '.join(slow)}",
            "the memory cannot follow: does something else load it, is the port's width what the board file says, is the NPU's clock "
            "too high for the memory's?",
        )
    return Seen(text, {name: round(rate, 3) for name, (rate, _) in measured.items()})


def _rate(bench: Bench, small: Program, large: Program, moved: Any) -> float:
    """Bytes a cycle by which two programs differ."""
    cycles = [bench.cost(program).cycles for program in (small, large)]
    if cycles[1] <= cycles[0]:
        raise CheckError(
            f"the NPU counts {cycles[0]} cycles for a run and {cycles[1]} for one that moves more",
            "its counters: is the bitstream ours?",
        )
    return float(moved(large) - moved(small)) / (cycles[1] - cycles[0])


def _many_passes(c: ArrayConfig, kernel: int) -> Program:
    """One pixel, and a weight tile for each tap: the array waits for weights."""
    b = Builder("weights", c, ImageLayout.plain(1, 1, c.cp))
    b.conv(b.image, np.zeros((c.kp, c.cp, kernel, kernel), np.int64), pad=kernel // 2)
    return b.program()


def _large_image(c: ArrayConfig, rows: int) -> Program:
    """Reads every third pixel of every third row: the array waits for the image."""
    b = Builder("image", c, ImageLayout.plain(rows, 48, c.cp))
    b.conv(b.image, np.zeros((c.kp, c.cp, 1, 1), np.int64), stride=3)
    return b.program(1)


# The network ---------------------------------------------------------------------------------------------------------


class Lent:
    """A device that stays its owner's: closing does nothing."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def close(self) -> None:
        """Nothing."""


def small_network(config: ArrayConfig) -> Program:
    """What is run where no program is given: a stem, a residual block and a global sum, [32, 32, 3] -> [kp]."""
    rng = np.random.default_rng([SIGNATURE_SEED, config.cp, config.kp])
    layout = ImageLayout.for_stem((32, 32, 3), 7, 2, 3, (16, 16))
    b = Builder("small network", config, layout)
    width = config.kp

    def weights(c_in: int, kernel: int) -> NDArray[np.int64]:
        return rng.integers(-128, 128, (width, c_in, kernel, kernel))

    stem = b.conv(b.image, layout.rewrite_weights(weights(3, 7)), 10, pool=Pooling(Pool.MAX, 3, 2, 1))
    inner = b.conv(stem, weights(width, 3), 10, pad=1)
    b.conv(inner, weights(width, 1), 9, residual=stem, res_shift=7, pool=Pooling(Pool.GLOBAL_SUM))
    return b.program()


def signature_images(program: Program) -> NDArray[np.uint8]:
    """The images of a program's signature, uint8 [n, height, width, channels]."""
    shape = (SIGNATURE_IMAGES, program.image.height, program.image.width, program.image.channels)
    return np.random.default_rng(SIGNATURE_SEED).integers(0, 256, shape, np.uint8)


def signature(npu: Npu) -> int:
    """CRC-32 over the results of signature_images() of the program that ``npu`` holds."""
    crc = 0
    for result in npu.run_many(signature_images(npu.program)):
        crc = zlib.crc32(result.result.astype("<i4").tobytes(), crc)
    return crc


def golden_signature(program: Program) -> int:
    """signature() by the golden model: a minute for a ResNet-50."""
    with Npu(GoldenDevice(program.config)) as golden:
        golden.load(program)
        return signature(golden)


def network(bench: Bench) -> Seen:
    """The network's answers to fixed images are those stored with the program, or the golden model's."""
    program = bench.program or small_network(bench.array)
    stored = program.metadata.get(SIGNATURE)
    expected, source = (
        (int(stored), "stored with the program") if stored is not None else (golden_signature(program), "golden")
    )
    with Npu(Lent(bench.device), timeout=10 * bench.timeout, layer_counters=False) as npu:
        npu.load(program)
        found = signature(npu)
    if found != expected:
        raise CheckError(
            f"{program.name}: signature {found:08x}, not {expected:08x} ({source})",
            "the answers are wrong. Should the layers above be right: is the program the released one? Else lower the clock",
        )
    text = f"{program.name}: signature {found:08x} of {SIGNATURE_IMAGES} images, as {source}"
    return Seen(text, {"signature": f"{found:08x}", "source": source})


def throughput(bench: Bench) -> Seen:
    """What an image costs: cycles, use of the array, images a second; every image costs about the same."""
    program = bench.program or small_network(bench.array)
    image = signature_images(program)[0]
    with Npu(Lent(bench.device), timeout=10 * bench.timeout) as npu:
        npu.load(program)
        results = list(npu.run_many([image] * bench.images))
    seconds = statistics.median(result.seconds for result in results)
    wall = f"{1 / seconds:.1f} images/s by the clock on the wall"
    if bench.is_model:
        return Seen(f"{program.name}: {wall}", {"seconds": seconds})
    return _by_counters(bench, program, results, wall)


def _by_counters(bench: Bench, program: Program, results: list[Result], wall: str) -> Seen:
    counters = [result.counters for result in results]
    cycles = [c.cycles for c in counters]
    if any(_sum(c) != c.cycles for c in counters):
        raise CheckError(
            "the counters of a run do not add up to its cycles", "the counters: is the bitstream ours? Lower the clock"
        )
    middle, use = statistics.median(cycles), counters[0].utilisation(program.macs, bench.array)
    text = f"{program.name}: {middle:,.0f} cycles an image, {use:.1%} of the array"
    figures = {"cycles": middle, "utilisation": use, "seconds": statistics.median(r.seconds for r in results)}
    mhz = getattr(bench.device, "clock_mhz", 0)
    if mhz:
        text += f", {mhz:g} MHz: {1e6 * mhz / middle:,.1f} images/s"
        figures |= {"clock_mhz": mhz, "images_per_second": 1e6 * mhz / middle}
    if max(cycles) > (1 + MOST_SPREAD) * min(cycles):
        raise CheckError(
            f"{text}, but between {min(cycles):,} and {max(cycles):,}",
            "something else loads the memory: see what else runs on the board",
        )
    return Seen(f"{text}; {wall}", figures)


def _sum(c: Counters) -> int:
    return c.mac_busy + c.weight_stall + c.image_stall + c.drain + c.overhead
