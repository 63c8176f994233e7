"""npu_regs: the ap_ctrl_hs handshake, interrupts, configuration and counters, through cocotbext-axi's AXI4-Lite master."""

import logging
import random

import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from hw.isa import MAGIC, VERSION, Control, Register
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

    async def output(self, register):
        await ReadOnly()
        name, low = CONFIGURATION[register]
        value = int(getattr(self.dut, name).value) >> low & 0xFFFFFFFF
        await RisingEdge(self.dut.clk_i)
        return value


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
async def a_run_starts_once_and_reads_busy_until_done(dut):
    bench = Bench(dut)
    await bench.start()
    for run in range(1, 4):
        await bench.run()
        assert bench.starts == run
        assert await bench.read(Register.CONTROL) == Control.START
        await bench.write(Register.CONTROL, Control.START)  # already running: no second start
        assert bench.starts == run
        await bench.done()
        assert await bench.read(Register.CONTROL) == Control.IDLE | Control.DONE | Control.READY


@cocotb.test()
async def done_and_ready_clear_when_read(dut):
    bench = Bench(dut)
    await bench.start()
    await bench.run()
    await bench.done()
    assert await bench.read(Register.CONTROL) & (Control.DONE | Control.READY)
    assert await bench.read(Register.CONTROL) == Control.IDLE


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
async def a_start_waits_for_the_core_to_be_idle(dut):
    bench = Bench(dut)
    await bench.start()
    dut.idle_i.value = 0
    await bench.write(Register.CONTROL, Control.START)
    await cycles(dut, 10)
    assert bench.starts == 0
    dut.idle_i.value = 1
    await cycles(dut, 3)
    assert bench.starts == 1


@cocotb.test()
async def an_interrupt_stands_until_its_status_is_toggled(dut):
    bench = Bench(dut)
    await bench.start()
    for source in (1, 2):
        await bench.write(Register.GLOBAL_INTERRUPT_ENABLE, 1)
        await bench.write(Register.INTERRUPT_ENABLE, source)
        await bench.run()
        assert not dut.interrupt_o.value
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
async def configuration_reaches_the_core_and_reads_back(dut):
    bench = Bench(dut)
    await bench.start()
    values = {register: random.getrandbits(32) for register in CONFIGURATION}
    for register, value in random.sample(list(values.items()), len(values)):
        await bench.write(register, value)
    for register, value in values.items():
        assert await bench.output(register) == value, hex(register)
        assert await bench.read(register) == value, hex(register)


@cocotb.test()
async def configuration_ignores_writes_during_a_run(dut):
    bench = Bench(dut)
    await bench.start()
    values = {register: random.getrandbits(32) for register in CONFIGURATION}
    for register, value in values.items():
        await bench.write(register, value)
    await bench.run()
    for register, value in values.items():
        await bench.write(register, ~value & 0xFFFFFFFF)
        assert await bench.output(register) == value, hex(register)
    await bench.done()
    for register, value in values.items():
        assert await bench.output(register) == value, hex(register)
        await bench.write(register, ~value & 0xFFFFFFFF)
        assert await bench.output(register) == ~value & 0xFFFFFFFF, hex(register)


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
        assert await bench.output(register) == int.from_bytes(value, "little"), hex(register)
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


@pytest.mark.parametrize("array", [(16, 16, 131072, 512, 16), (64, 32, 32768, 512, 48)], ids=["sim-small", "kv260"])
def test_npu_regs(array):
    names = ("CP", "KP", "TOTAL_WORDS", "ACC_DEPTH", "STREAM_BYTES")
    run_bench("npu_regs", __name__, dict(zip(names, array, strict=True)))
