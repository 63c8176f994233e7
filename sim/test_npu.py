"""The whole NPU on random networks, over its real buses: every result equals the golden model's, every cycle is accounted for."""

import logging
import random
from dataclasses import dataclass, field, replace

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from hw.golden import execute
from hw.isa import DESCRIPTOR_BYTES, ArrayConfig, Control, ErrorCode, Register
from hw.stream import encode, stripe
from sim.axi_memory import AxiReadPort, AxiWritePort, Memory, Timing
from sim.bench import run_bench
from sim.random_layers import random_program
from sim.streams import random_generator, start

BASE = 0x8_0000_0000
REGION = 1 << 20
WEIGHTS, IMAGE, FEATURES = BASE, BASE + 4 * REGION, BASE + 5 * REGION
WITHOUT_FAILURES = (
    "random_networks_equal_the_golden_model",
    "queued_images_are_loaded_ahead_and_equal_the_golden_model",
)
SPACING = 1 << 16
"""Between the buffers of queued images."""
NEVER = 1 << 60
LIMIT = 3_000_000
"""Cycles after which a test counts as hung."""

PARAMETERS = ("cp", "kp", "banks", "bank_words", "acc_depth", "ports", "port_bytes", "pool_columns", "field_bits")
CONFIGURATIONS = {
    "8x8": ArrayConfig(
        "8x8", cp=8, kp=8, banks=8, bank_words=512, acc_depth=64, ports=1, port_bytes=8, pool_columns=16, field_bits=0
    ),
    "16x16": ArrayConfig(
        "16x16", 16, 16, banks=4, bank_words=1024, acc_depth=128, ports=2, port_bytes=16, pool_columns=16
    ),
    "16x8": ArrayConfig(
        "16x8", 16, 8, banks=5, bank_words=512, acc_depth=32, ports=3, port_bytes=4, pool_columns=16, field_bits=16
    ),
}


class Bench:
    """The NPU with memory at its ports and a master at its registers."""

    def __init__(self, dut, timing=None):
        self.dut = dut
        self.config = ArrayConfig("bench", **{name: int(getattr(dut, name.upper()).value) for name in PARAMETERS})
        self.timing = timing or Timing()
        self.rng = random_generator()

    async def start(self):
        d = self.dut
        logging.getLogger(f"cocotb.{d._name}").setLevel(logging.WARNING)
        self.memory = Memory(6 * REGION, BASE)
        self.weights = AxiReadPort(d, "m_axi_weights", self.memory, self.timing, lanes=self.config.ports)
        self.image = AxiReadPort(d, "m_axi_image", self.memory, self.timing)
        self.features = AxiWritePort(d, "m_axi_features", self.memory, self.timing)
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(d, "s_axi"), d.clk_i, d.rst_ni, reset_active_level=False)
        await start(d, deadline=LIMIT)
        await self.write(Register.GLOBAL_INTERRUPT_ENABLE, 1)
        await self.write(Register.INTERRUPT_ENABLE, 1)

    async def read(self, register):
        return await self.master.read_dword(int(register))

    async def write(self, register, value):
        await self.master.write_dword(int(register), value)

    async def write_address(self, register, value):
        await self.write(register, value & 0xFFFFFFFF)
        await self.write(register + 4, value >> 32)

    def load(self, program):
        """Put a program into memory, each port's part at an odd distance from the last."""
        self.addresses = []
        for port, part in enumerate(stripe(program.stream, self.config)):
            address = WEIGHTS + port * REGION + 64 * random.randrange(100)
            self.memory.write(address, part.tobytes())
            self.addresses.append(address)

    async def begin(self, program, image, image_address=IMAGE, feature_address=FEATURES, watchdog=0):
        """Start one image, or queue it."""
        self.memory.write(image_address, program.pack_image(image).tobytes())
        for port, address in enumerate(self.addresses):
            await self.write_address(Register.PROGRAM_ADDRESS + 8 * port, address)
        await self.write_address(Register.IMAGE_ADDRESS, image_address)
        await self.write_address(Register.FEATURE_ADDRESS, feature_address)
        await self.write(Register.PROGRAM_BEATS, program.beats)
        await self.write(Register.WATCHDOG, watchdog)
        await self.write(Register.CONTROL, Control.START)

    async def finish(self):
        """Wait for the interrupt, acknowledge it, return the error code."""
        if not self.dut.interrupt_o.value:
            await RisingEdge(self.dut.interrupt_o)
        await self.write(Register.INTERRUPT_STATUS, 1)
        control = await self.read(Register.CONTROL)
        assert control == Control.DONE | Control.READY | Control.IDLE
        return ErrorCode(await self.read(Register.ERROR_CODE))

    async def run(self, program, image):
        """One image, start to finish; returns the result."""
        await self.begin(program, image)
        error = await self.finish()
        assert error == ErrorCode.NONE, f"{error.name} at layer {await self.read(Register.ERROR_LAYER)}"
        words = np.frombuffer(self.memory.read(FEATURES, program.result_bytes), np.uint8)
        return program.read_result(words)

    def random_image(self, program):
        layout = program.image
        return self.rng.integers(0, 256, (layout.height, layout.width, layout.channels)).astype(np.uint8)


def golden(program, image, rng):
    """The result by hw.golden, on memory that holds garbage, as after power-up."""
    config, header = program.config, program.header
    memory = rng.integers(0, 256, (config.total_words, config.cp)).astype(np.uint8)
    words = slice(header.image_base, header.image_base + header.image_words)
    memory[words, : program.image_word_bytes] = program.pack_image(image)
    for layer in program.layers():
        execute(layer.descriptor, layer.weights, layer.bias, layer.shift, layer.res_shift, memory, config)
    return program.read_result(memory[header.feature_base : header.feature_base + header.feature_words])


def steps(d):
    """Words that a layer sends through the array."""
    return d.passes_per_tile * d.out_blocks * d.out_height * d.out_width


def describe(program):
    return "; ".join(str(d) for d in program.descriptors())


@cocotb.test()
@cocotb.parametrize(timing=[Timing(), Timing((1, 60), 0.3), Timing((150, 200))])
async def random_networks_equal_the_golden_model(dut, timing):
    bench = Bench(dut, timing)
    await bench.start()
    layers = 0
    while layers < 25:
        program = random_program(bench.rng, bench.config)
        bench.load(program)
        image = bench.random_image(program)
        result = await bench.run(program, image)
        assert np.array_equal(result, golden(program, image, bench.rng)), describe(program)
        layers += len(program.layer_names)
        await check_counters(bench, program)


async def check_counters(bench, program):
    """Each cycle has one cause, and the array was busy for exactly the work that the descriptors ask for."""
    parts = (Register.MAC_BUSY, Register.WEIGHT_STALL, Register.IMAGE_STALL, Register.DRAIN, Register.OVERHEAD)
    total = await bench.read(Register.CYCLES)
    assert total == sum([await bench.read(part) for part in parts])
    busy = [steps(d) for d in program.descriptors()]
    assert await bench.read(Register.MAC_BUSY) == sum(busy)
    assert await bench.read(Register.LAYERS_DONE) == len(busy)
    counted = [await bench.read(Register.LAYER_COUNTERS + 16 * layer + 4) for layer in range(len(busy))]
    assert counted == busy


def patient_program(bench):
    """A program whose layers after the last use of the image's words take long enough to queue a run and load its image."""
    while True:
        program = random_program(bench.rng, bench.config, layers=4)
        free = [steps(d) for d in program.descriptors() if d.image_free]
        if sum(free) > 1000 and sum(steps(d) for d in program.descriptors()) < 5000:
            return program


@dataclass
class Queued:
    """Several images, each queued as soon as the one before has been taken."""

    images: list
    errors: dict = field(default_factory=dict)
    """By run. A run that finished before the error of the one before was read hides that one's: the host then cannot know."""
    loaded_ahead: list = field(default_factory=list)
    """Whether the next image had been asked for when a run was seen to have ended."""

    async def run(self, bench, program):
        where = [(IMAGE + i * SPACING, FEATURES + i * SPACING) for i in range(len(self.images))]
        bench.image.bursts.clear()
        before = await bench.read(Register.RUNS)
        begun = ended = 0
        while ended < len(self.images):
            if begun < len(where) and not await bench.read(Register.CONTROL) & Control.START:
                await bench.begin(program, self.images[begun], *where[begun])
                begun += 1
            runs = await bench.read(Register.RUNS) - before
            if runs > ended:
                ended, after = runs, IMAGE + runs * SPACING
                self.loaded_ahead.append(any(after <= at < after + SPACING for at, _ in bench.image.bursts))
                error = ErrorCode(await bench.read(Register.ERROR_CODE))
                if await bench.read(Register.RUNS) - before == runs:
                    self.errors[runs - 1] = error
        await bench.write(Register.INTERRUPT_STATUS, 1)
        await bench.read(Register.CONTROL)

    def right(self, bench, program, run):
        """Whether a run's result equals the golden model's."""
        words = np.frombuffer(bench.memory.read(FEATURES + run * SPACING, program.result_bytes), np.uint8)
        return np.array_equal(program.read_result(words), golden(program, self.images[run], bench.rng))


@cocotb.test()
@cocotb.parametrize(timing=[Timing(), Timing((20, 60), 0.3)])
async def queued_images_are_loaded_ahead_and_equal_the_golden_model(dut, timing):
    bench = Bench(dut, timing)
    await bench.start()
    for _ in range(3):
        program = patient_program(bench)
        bench.load(program)
        queued = Queued([bench.random_image(program) for _ in range(4)])
        await queued.run(bench, program)
        assert queued.errors == dict.fromkeys(range(4), ErrorCode.NONE)
        assert all(queued.right(bench, program, run) for run in range(4)), describe(program)
        assert queued.loaded_ahead == [True, True, True, False], describe(program)


@cocotb.test()
async def an_error_does_not_touch_the_runs_beside_it(dut):
    bench = Bench(dut, Timing((1, 30), 0.2))
    await bench.start()
    program = patient_program(bench)
    bench.load(program)
    for buffers, error in ((IMAGE, ErrorCode.IMAGE_READ), (FEATURES, ErrorCode.FEATURE_WRITE)):
        for wrong in range(3):  # the second and third image are loaded ahead
            at = buffers + wrong * SPACING
            bench.memory.bad = {range(at, at + 1)}
            queued = Queued([bench.random_image(program) for _ in range(3)])
            await queued.run(bench, program)
            assert queued.errors[wrong] == error
            assert all(found == ErrorCode.NONE for run, found in queued.errors.items() if run != wrong)
            assert all(queued.right(bench, program, run) for run in range(3) if run != wrong), f"{error.name}, {wrong}"


async def expect_error(bench, program, error, layer=None, watchdog=0):
    """Run into an error; once its cause is gone, the next run must be right."""
    await bench.begin(program, bench.random_image(program), watchdog=watchdog)
    assert await bench.finish() == error
    if layer is not None:
        assert await bench.read(Register.ERROR_LAYER) == layer


async def run_well(bench, program):
    image = bench.random_image(program)
    assert np.array_equal(await bench.run(program, image), golden(program, image, bench.rng)), describe(program)


@cocotb.test()
@cocotb.parametrize(error=[ErrorCode.WEIGHT_READ, ErrorCode.IMAGE_READ, ErrorCode.FEATURE_WRITE])
async def a_bus_error_stops_the_run_and_not_the_next(dut, error):
    bench = Bench(dut, Timing((1, 30), 0.2))
    await bench.start()
    for _ in range(3):
        program = random_program(bench.rng, bench.config)
        bench.load(program)
        first, size = {
            ErrorCode.WEIGHT_READ: (bench.addresses[-1], program.beats * bench.config.port_bytes),
            ErrorCode.IMAGE_READ: (IMAGE, program.image_bytes),
            ErrorCode.FEATURE_WRITE: (FEATURES, program.result_bytes),
        }[error]
        at = first + random.randrange(size)
        bench.memory.bad = {range(at, at + 1)}
        await expect_error(bench, program, error)
        bench.memory.bad = set()
        await run_well(bench, program)


@cocotb.test()
async def damaged_programs_stop_with_their_own_code(dut):
    bench = Bench(dut)
    await bench.start()
    program = random_program(bench.rng, bench.config)
    first_payload = 2 * bench.config.padded(DESCRIPTOR_BYTES)
    places = [(0, ErrorCode.BAD_MAGIC), (4, ErrorCode.BAD_VERSION), (20, ErrorCode.BAD_CRC)]
    places += [(bench.config.padded(DESCRIPTOR_BYTES) + 5, ErrorCode.BAD_CRC), (first_payload, ErrorCode.BAD_PAYLOAD)]
    for at, error in places:
        stream = bytearray(program.stream)
        stream[at] ^= 1 << random.randrange(8)
        bench.load(replace(program, stream=bytes(stream)))
        await expect_error(bench, program, error, layer=0)
        bench.load(program)
        await run_well(bench, program)


@cocotb.test()
async def a_program_for_another_configuration_stops_the_run(dut):
    bench = Bench(dut)
    await bench.start()
    program = random_program(bench.rng, bench.config)
    header = program.header
    for other in ({"cp": 2 * header.cp}, {"kp": 2 * header.kp}, {"acc_depth": header.acc_depth + 1}):
        stream = replace(header, **other).pack() + program.stream[DESCRIPTOR_BYTES:]
        bench.load(replace(program, stream=stream))
        await expect_error(bench, program, ErrorCode.WRONG_CONFIGURATION, layer=0)
        bench.load(program)
        await run_well(bench, program)


@cocotb.test()
async def a_descriptor_out_of_range_stops_the_run(dut):
    bench = Bench(dut)
    await bench.start()
    program = random_program(bench.rng, bench.config)
    layers = program.layers()
    first = layers[0].descriptor
    for wrong in ({"stride": 0}, {"in_blocks": 0}, {"tile_rows": bench.config.acc_depth + 1}):
        at = bench.config.padded(DESCRIPTOR_BYTES)
        record = replace(first, **wrong).pack()
        stream = program.stream[:at] + record + program.stream[at + DESCRIPTOR_BYTES :]
        bench.load(replace(program, stream=stream))
        await expect_error(bench, program, ErrorCode.BAD_DESCRIPTOR, layer=0)
        bench.load(program)
        await run_well(bench, program)


@cocotb.test()
async def an_address_beyond_the_banks_stops_the_run(dut):
    bench = Bench(dut)
    await bench.start()
    program = random_program(bench.rng, bench.config, layers=2)
    while len(program.layer_names) < 2:
        program = random_program(bench.rng, bench.config, layers=2)
    first, second = program.layers()
    for address in ("in_origin", "out_base"):
        beyond = replace(second.descriptor, **{address: bench.config.total_words + 100})
        layers = [first, replace(second, descriptor=beyond)]
        bench.load(replace(program, stream=encode(program.header, layers, bench.config)))
        await expect_error(bench, program, ErrorCode.BAD_ADDRESS, layer=1)
        bench.load(program)
        await run_well(bench, program)


@cocotb.test()
async def the_watchdog_ends_a_run_that_waits_for_memory(dut):
    bench = Bench(dut)
    await bench.start()
    program = random_program(bench.rng, bench.config)
    bench.load(program)
    for port in (bench.weights, bench.image, bench.features):
        port.timing = Timing((NEVER, NEVER))
        await expect_error(bench, program, ErrorCode.WATCHDOG, watchdog=500)
        port.timing = bench.timing
        port.answer_now()
        await run_well(bench, program)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_npu(name):
    config = CONFIGURATIONS[name]
    # Failures end alike on every array; the arithmetic, the placement and the stream's cutting differ.
    tests = () if name == "8x8" else WITHOUT_FAILURES
    run_bench("npu", __name__, {n.upper(): getattr(config, n) for n in PARAMETERS}, tests)
