"""npu_regs: the ap_ctrl_chain handshake, interrupts, configuration and counters, through cocotbext-axi's AXI4-Lite master."""

import itertools
import logging
import random

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge, Timer
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from hw.isa import MAGIC, VERSION, Control, Register
from hw.registers import InterruptStatus
from sim.bench import run_bench
from sim.streams import cycles, pauses, start

STATUS_INPUTS = {
    Register.ERROR_CODE: ("error_code_i", 8),
    Register.ERROR_LAYER: ("error_layer_i", 16),
    Register.CYCLES: ("cycles_i", 32),
    Register.MAC_BUSY: ("mac_busy_i", 32),
    Register.WEIGHT_STALL: ("weight_stall_i", 32),
    Register.IMAGE_STALL: ("image_stall_i", 32),
    Register.DRAIN: ("drain_i", 32),
    Register.OVERHEAD: ("overhead_i", 32),
    Register.LAYERS_DONE: ("layers_done_i", 32),
}
CONFIGURATION = {
    **{Register.PROGRAM_ADDRESS + 8 * i: ("program_address_o", 64 * i) for i in range(4)},
    **{Register.PROGRAM_ADDRESS + 8 * i + 4: ("program_address_o", 64 * i + 32) for i in range(4)},
    Register.IMAGE_ADDRESS: ("image_address_o", 0),
    Register.IMAGE_ADDRESS + 4: ("image_address_o", 32),
    Register.FEATURE_ADDRESS: ("feature_address_o", 0),
    Register.FEATURE_ADDRESS + 4: ("feature_address_o", 32),
    Register.PROGRAM_BEATS: ("program_beats_o", 0),
    Register.WATCHDOG: ("watchdog_o", 0),
}


class Bench:
    """A master with random pauses, and the core's side of the handshake."""

    def __init__(self, dut, pause=0.3):
        self.dut = dut
        self.pause = pause

    async def start(self):
        d = self.dut
        logging.getLogger(f"cocotb.{d._name}").setLevel(logging.WARNING)
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(d, "s_axi"), d.clk_i, d.rst_ni, reset_active_level=False)
        for channel in (
            self.master.write_if.aw_channel,
            self.master.write_if.w_channel,
            self.master.write_if.b_channel,
            self.master.read_if.ar_channel,
            self.master.read_if.r_channel,
        ):
            channel.set_pause_generator(pauses(self.pause))
        inputs = {name: 0 for name, _ in STATUS_INPUTS.values()}
        await start(d, idle_i=1, done_i=0, layer_counter_data_i=0, **inputs)
        self.starts = 0
        cocotb.start_soon(self._count_starts())
        cocotb.start_soon(self._layer_counters())

    async def _count_starts(self):
        while True:
            await RisingEdge(self.dut.clk_i)
            self.starts += int(self.dut.start_o.value)

    async def _layer_counters(self):
        """Answers an address one cycle later."""
        while True:
            await RisingEdge(self.dut.clk_i)
            self.dut.layer_counter_data_i.value = counter_content(int(self.dut.layer_counter_addr_o.value))

    async def read(self, register):
        return await self.master.read_dword(int(register))

    async def write(self, register, value):
        await self.master.write_dword(int(register), value)

    async def run(self):
        """Start a run and let the core take it up."""
        await self.write(Register.CONTROL, Control.START)
        self.dut.idle_i.value = 0
        await cycles(self.dut, 2)

    async def done(self):
        """The core finishes."""
        self.dut.done_i.value = 1
        await RisingEdge(self.dut.clk_i)
        self.dut.done_i.value = 0
        self.dut.idle_i.value = 1
        await cycles(self.dut, 2)

    async def configure(self, values):
        for register, value in random.sample(list(values.items()), len(values)):
            await self.write(register, value)

    async def outputs(self):
        """What the core sees, by register."""
        await ReadOnly()
        found = {
            register: int(getattr(self.dut, name).value) >> low & 0xFFFFFFFF
            for register, (name, low) in CONFIGURATION.items()
        }
        await RisingEdge(self.dut.clk_i)
        return found


def random_configuration():
    return {register: random.getrandbits(32) for register in CONFIGURATION}


def counter_content(address):
    """Something different at every address."""
    return (address * 0x9E3779B1 + 1) & 0xFFFFFFFF


@cocotb.test()
async def idle_after_reset(dut):
    bench = Bench(dut)
    await bench.start()
    assert await bench.read(Register.CONTROL) == Control.IDLE
    assert bench.starts == 0 and not dut.interrupt_o.value


@cocotb.test()
async def a_start_is_taken_once(dut):
    bench = Bench(dut)
    await bench.start()
    for run in range(1, 4):
        await bench.run()
        assert bench.starts == run
        assert await bench.read(Register.CONTROL) == Control.READY
        assert await bench.read(Register.CONTROL) == 0
        await cycles(dut, 20)
        assert bench.starts == run
        await bench.done()
        assert await bench.read(Register.CONTROL) == Control.IDLE | Control.DONE


@cocotb.test()
async def a_start_during_a_run_waits_for_its_end(dut):
    bench = Bench(dut)
    await bench.start()
    await bench.run()
    await bench.read(Register.CONTROL)
    await bench.write(Register.CONTROL, Control.START)
    await bench.write(Register.CONTROL, Control.START)  # one start waits, not two
    assert await bench.read(Register.CONTROL) == Control.START
    assert bench.starts == 1
    await bench.done()
    dut.idle_i.value = 0
    await cycles(dut, 3)
    assert bench.starts == 2
    assert await bench.read(Register.CONTROL) == Control.DONE | Control.READY
    await bench.done()
    await cycles(dut, 5)
    assert bench.starts == 2


@cocotb.test()
async def a_start_waits_for_the_core_to_be_idle(dut):
    bench = Bench(dut)
    await bench.start()
    dut.idle_i.value = 0
    await bench.write(Register.CONTROL, Control.START)
    await cycles(dut, 10)
    assert bench.starts == 0
    assert await bench.read(Register.CONTROL) == Control.START
    dut.idle_i.value = 1
    await cycles(dut, 3)
    assert bench.starts == 1


@cocotb.test()
async def a_done_is_never_lost_to_a_read(dut):
    bench = Bench(dut, pause=0.0)
    await bench.start()
    for delay in range(12):
        await bench.run()
        read = cocotb.start_soon(bench.read(Register.CONTROL))
        await cycles(dut, delay)
        await bench.done()
        seen = [await read, await bench.read(Register.CONTROL)]
        assert [value & Control.DONE for value in seen].count(Control.DONE) == 1, f"done {delay} cycles after the read"


@cocotb.test()
async def an_interrupt_stands_until_its_status_is_toggled(dut):
    bench = Bench(dut)
    await bench.start()
    await bench.write(Register.GLOBAL_INTERRUPT_ENABLE, 1)
    for source in (InterruptStatus.DONE, InterruptStatus.READY):
        await bench.write(Register.INTERRUPT_ENABLE, source)
        assert not dut.interrupt_o.value
        await bench.run()
        assert bool(dut.interrupt_o.value) == (source == InterruptStatus.READY)
        await bench.done()
        assert dut.interrupt_o.value
        assert await bench.read(Register.INTERRUPT_STATUS) == source
        await bench.write(Register.GLOBAL_INTERRUPT_ENABLE, 0)
        await cycles(dut, 2)
        assert not dut.interrupt_o.value
        await bench.write(Register.GLOBAL_INTERRUPT_ENABLE, 1)
        await cycles(dut, 2)
        assert dut.interrupt_o.value
        await bench.write(Register.INTERRUPT_STATUS, source)
        await cycles(dut, 2)
        assert not dut.interrupt_o.value
        assert await bench.read(Register.INTERRUPT_STATUS) == 0


@cocotb.test()
async def no_interrupt_that_is_not_enabled(dut):
    bench = Bench(dut)
    await bench.start()
    await bench.write(Register.GLOBAL_INTERRUPT_ENABLE, 1)
    await bench.run()
    await bench.done()
    assert not dut.interrupt_o.value
    assert await bench.read(Register.INTERRUPT_STATUS) == 0


@cocotb.test()
async def a_run_takes_the_configuration_when_it_begins(dut):
    bench = Bench(dut)
    await bench.start()
    first = random_configuration()
    await bench.configure(first)
    await bench.run()
    assert await bench.outputs() == first
    # Written during the run, it is for the next one ...
    second = random_configuration()
    await bench.configure(second)
    assert await bench.outputs() == first
    assert {register: await bench.read(register) for register in second} == second
    # ... and while that one waits, what is written is lost.
    await bench.write(Register.CONTROL, Control.START)
    await bench.configure(random_configuration())
    assert {register: await bench.read(register) for register in second} == second
    assert await bench.outputs() == first
    await bench.done()
    assert await bench.outputs() == second


@cocotb.test()
async def the_next_image_may_be_loaded_only_for_the_same_program(dut):
    bench = Bench(dut)
    await bench.start()
    configuration = random_configuration()
    await bench.configure(configuration)
    await bench.run()
    assert not dut.next_image_o.value
    for register, same in [
        (Register.IMAGE_ADDRESS, True),
        (Register.FEATURE_ADDRESS + 4, True),
        (Register.WATCHDOG, True),
        (Register.PROGRAM_BEATS, False),
        (Register.PROGRAM_ADDRESS + 4, False),
        (Register.PROGRAM_ADDRESS + 24, False),
    ]:
        await bench.write(register, configuration[register] ^ 1 << random.randrange(32))
        assert not dut.next_image_o.value, "no START waits"
        await bench.write(Register.CONTROL, Control.START)
        await cycles(dut, 2)
        assert bool(dut.next_image_o.value) == same, hex(register)
        low, high = await bench.read(Register.IMAGE_ADDRESS), await bench.read(Register.IMAGE_ADDRESS + 4)
        assert int(dut.next_image_address_o.value) == high << 32 | low
        await bench.done()
        dut.idle_i.value = 0
        await cycles(dut, 2)
        assert not dut.next_image_o.value
        await bench.done()
        await bench.configure(configuration)
        await bench.run()


@cocotb.test()
async def only_strobed_bytes_are_written(dut):
    bench = Bench(dut)
    await bench.start()
    for register in CONFIGURATION:
        value = bytearray(random.randbytes(4))
        await bench.master.write(int(register), bytes(value))
        at, part = random.randrange(4), random.randbytes(random.randrange(1, 5))
        part = part[: 4 - at]
        await bench.master.write(int(register) + at, part)
        value[at : at + len(part)] = part
        assert await bench.read(register) == int.from_bytes(value, "little"), hex(register)
    await bench.master.write(int(Register.CONTROL) + 1, b"\xff\xff\xff")
    await cycles(dut, 3)
    assert bench.starts == 0


@cocotb.test()
async def status_and_counters_read_what_the_core_shows(dut):
    bench = Bench(dut)
    await bench.start()
    values = {}
    for register, (name, width) in STATUS_INPUTS.items():
        values[register] = random.getrandbits(width)
        getattr(dut, name).value = values[register]
    for register, value in values.items():
        await bench.write(register, 0xFFFFFFFF)  # read-only
        assert await bench.read(register) == value, register.name


@cocotb.test()
async def runs_are_counted_when_they_finish(dut):
    bench = Bench(dut)
    await bench.start()
    assert await bench.read(Register.RUNS) == 0
    await bench.run()
    for runs in range(1, 5):
        await bench.write(Register.CONTROL, Control.START)  # waits behind the run that is on
        assert await bench.read(Register.RUNS) == runs - 1
        await bench.done()
        dut.idle_i.value = 0
        await bench.write(Register.RUNS, 0xFFFFFFFF)  # read-only
        assert await bench.read(Register.RUNS) == runs
    await bench.done()
    assert await bench.read(Register.RUNS) == 5


@cocotb.test()
async def runs_counts_a_run_in_the_cycle_in_which_the_next_one_begins(dut):
    """A host that sees a run counted finds the configuration ready for the run after the next."""
    bench = Bench(dut)
    await bench.start()
    await bench.run()
    await bench.write(Register.CONTROL, Control.START)
    dut.done_i.value = 1
    await RisingEdge(dut.clk_i)
    dut.done_i.value, dut.idle_i.value = 0, 1
    await ReadOnly()
    assert (int(dut.runs.value), int(dut.start_o.value)) == (1, 1)


@cocotb.test()
async def every_layer_counter_has_its_address(dut):
    bench = Bench(dut, pause=0.1)
    await bench.start()
    for address in [0, 1023, *(random.randrange(1024) for _ in range(40))]:
        assert await bench.read(Register.LAYER_COUNTERS + 4 * address) == counter_content(address)


@cocotb.test()
async def the_core_says_what_it_is(dut):
    bench = Bench(dut)
    await bench.start()
    assert await bench.read(Register.ID_MAGIC) == MAGIC
    assert await bench.read(Register.ID_VERSION) == VERSION
    assert await bench.read(Register.ID_ARRAY) == int(dut.KP.value) << 16 | int(dut.CP.value)
    assert await bench.read(Register.ID_MEMORY) == int(dut.TOTAL_WORDS.value)
    assert await bench.read(Register.ID_STREAM) == int(dut.ACC_DEPTH.value) << 16 | int(dut.STREAM_BYTES.value)


@cocotb.test()
async def unmapped_addresses_read_zero_and_ignore_writes(dut):
    bench = Bench(dut)
    await bench.start()
    mapped = {int(r) for r in Register if r < Register.LAYER_COUNTERS} | {int(r) for r in CONFIGURATION}
    holes = [a for a in range(0, int(Register.LAYER_COUNTERS), 4) if a not in mapped]
    for address in [*(h for h in holes if h < 0x100), *random.sample(holes, 10)]:
        await bench.write(address, 0xFFFFFFFF)
        assert await bench.read(address) == 0, hex(address)
    assert await bench.read(Register.CONTROL) == Control.IDLE


@cocotb.test()
async def reads_and_writes_at_once_do_not_disturb_each_other(dut):
    bench = Bench(dut, pause=0.5)
    await bench.start()

    async def writes(register):
        for _ in range(30):
            value = random.getrandbits(32)
            await bench.write(register, value)
            assert await bench.read(register) == value

    tasks = [cocotb.start_soon(writes(r)) for r in (Register.WATCHDOG, Register.PROGRAM_BEATS)]
    for task in tasks:
        await task


@cocotb.test()
async def a_response_that_is_not_taken_holds_up_only_its_own_direction(dut):
    bench = Bench(dut, pause=0.0)
    await bench.start()
    bench.master.read_if.r_channel.set_pause_generator(itertools.repeat(True))
    waiting = cocotb.start_soon(bench.read(Register.ID_MAGIC))
    await bench.write(Register.WATCHDOG, 12345)
    assert not waiting.done()
    bench.master.read_if.r_channel.set_pause_generator(itertools.repeat(False))
    assert await waiting == MAGIC
    bench.master.write_if.b_channel.set_pause_generator(itertools.repeat(True))
    waiting = cocotb.start_soon(bench.write(Register.WATCHDOG, 54321))
    assert await bench.read(Register.ID_MAGIC) == MAGIC
    assert not waiting.done()
    bench.master.write_if.b_channel.set_pause_generator(itertools.repeat(False))
    await waiting
    assert await bench.read(Register.WATCHDOG) == 54321


@cocotb.test()
async def no_input_of_the_bus_reaches_an_output_within_the_cycle(dut):
    inputs = {
        **dict.fromkeys(["awvalid", "wvalid", "bready", "arvalid", "rready"], 1),
        **{"awaddr": 13, "araddr": 13, "wdata": 32, "wstrb": 4, "awprot": 3, "arprot": 3},
    }
    outputs = ["awready", "wready", "bvalid", "bresp", "arready", "rvalid", "rdata", "rresp"]
    idle = {f"s_axi_{name}": 0 for name in inputs}
    shown = {name: 0 for name, _ in STATUS_INPUTS.values()}
    await start(dut, idle_i=1, done_i=0, layer_counter_data_i=0, **idle, **shown)
    for _ in range(500):
        seen = []
        for _ in range(4):
            for name, width in inputs.items():
                getattr(dut, f"s_axi_{name}").value = random.getrandbits(width)
            await Timer(1, "ns")
            seen.append([int(getattr(dut, f"s_axi_{name}").value) for name in outputs])
        assert seen.count(seen[0]) == len(seen), f"{outputs}: {seen}"
        await FallingEdge(dut.clk_i)
        await RisingEdge(dut.clk_i)


@pytest.mark.parametrize("array", [(16, 16, 131072, 512, 16), (64, 32, 32768, 512, 48)], ids=["sim-small", "kv260"])
def test_npu_regs(array):
    names = ("CP", "KP", "TOTAL_WORDS", "ACC_DEPTH", "STREAM_BYTES")
    run_bench("npu_regs", __name__, dict(zip(names, array, strict=True)))
