"""npu_control: starts, counters, the image loaded ahead, and how each error ends, with the core and its DMAs played at random pace."""

import random
from collections import Counter

import cocotb
from cocotb.triggers import RisingEdge

from hw.isa import ErrorCode
from sim.bench import run_bench
from sim.streams import start

CAUSES = ["conv_i", "drain_i", "weight_wait_i", "image_wait_i"]
"""What a cycle may be spent on; of several, the first counts."""
TOTALS = ["mac_busy_o", "drain_o", "weight_stall_o", "image_stall_o", "overhead_o"]
STREAM_ERRORS = [
    ErrorCode.BAD_MAGIC, ErrorCode.BAD_VERSION, ErrorCode.BAD_CRC, ErrorCode.WRONG_CONFIGURATION, ErrorCode.BAD_DESCRIPTOR,
    ErrorCode.BAD_PAYLOAD,
]  # fmt: skip
INPUTS = {
    ErrorCode.WEIGHT_READ: "weight_read_error_i",
    ErrorCode.IMAGE_READ: "image_read_error_i",
    ErrorCode.FEATURE_WRITE: "feature_write_error_i",
    ErrorCode.BAD_ADDRESS: "address_fault_i",
}
WATCHDOG = 150


class Dma:
    """Busy for a while after its start, or until soon after an abort. Its error flag stays until the next start."""

    def __init__(self, longest):
        self.longest = longest
        self.left = 0
        self.stuck = False
        """The memory does not answer."""
        self.error = False

    @property
    def busy(self):
        return self.left > 0 or self.stuck

    def clock(self, begins, aborted):
        if begins:
            assert not self.busy, "started while it was busy"
            self.left, self.error = random.randint(1, self.longest), False
        elif aborted:
            self.left = min(self.left, random.randint(0, 8))
        elif self.left:
            self.left -= 1


class Run:
    """One run: what the core will do in it, and what was seen of it so far."""

    def __init__(self, layers, ahead):
        self.layers = layers
        self.header_in = random.randint(2, 20)
        self.lengths = [random.randint(8, 40) for _ in range(layers)]
        self.stream_in = random.randint(0, 30 * layers)
        """Cycles from the header to the end of the stream."""
        self.free_from = random.randint(0, layers)
        self.began = self.computed = self.stored = self.all_done = self.closing = self.failed = self.ahead = False
        self.image_begun = ahead
        self.layers_done = self.cycles_after_layer = 0
        self.causes = Counter()
        self.layer_counters = []
        self.layer = [0, 0, 0, 0]
        """Of the layer that runs: cycles, busy, weight stall, drain."""
        self.image_starts = 0

    def inputs(self):
        """What the core shows in this cycle while it is not held in reset."""
        header = self.header_in == 0
        running = header and self.layers_done < self.layers
        return {
            "header_valid_i": header,
            "layers_i": self.layers if header else 0,
            "layer_done_i": running and self.lengths[self.layers_done] == 1,
            "image_free_i": header and self.layers_done >= self.free_from,
            "stream_finished_i": header and self.stream_in == 0,
        }

    def clock(self, inputs):
        """A cycle of the core has passed."""
        if not inputs["header_valid_i"]:
            self.header_in = max(0, self.header_in - 1)
            return
        self.stream_in = max(0, self.stream_in - 1)
        if self.layers_done < self.layers:
            self.lengths[self.layers_done] -= 1

    def count(self, inputs):
        """A cycle between start and done has passed."""
        self.causes[next((name for name in CAUSES if inputs[name]), "other")] += 1
        self.layer = [
            n + inputs.get(name, 1)
            for n, name in zip(self.layer, ["cycles", "conv_i", "weight_wait_i", "drain_i"], strict=True)
        ]
        self.cycles_after_layer += 1
        if inputs["layer_done_i"]:
            self.cycles_after_layer = 0
            self.layers_done += 1
            self.layer_counters.append(self.layer)
            self.layer = [0, 0, 0, 0]


class Bench:
    """Plays everything around npu_control, and checks in every cycle what it starts, aborts and ends."""

    def __init__(self, dut):
        self.dut = dut
        self.weights, self.image, self.store = Dma(60), Dma(60), Dma(20)
        self.run: Run | None = None
        self.ahead = False
        """The next run's image is in place or on its way."""
        self.core_on = self.done_next = False
        self.aborts = False, False  # of weights and features, of the image
        self.failing = False  # there was an error in the cycle before
        self.progress, self.watchdog, self.quiet = 0.5, WATCHDOG, 0
        self.next_image = False
        self.table, self.counter = [], None
        self.settling = 0  # cycles in which the last layer's counters may still be on their way to the memory
        """Layer counters of the last finished run, and the one that was asked for in the last cycle."""

    async def start(self):
        await start(self.dut, **dict.fromkeys(self._inputs(), 0))

    @property
    def bites(self):
        """Nothing has moved for the watchdog's time, and the comparison has passed its register."""
        return 0 < self.watchdog < self.quiet

    def _inputs(self):
        core = self.run.inputs() if self.run and self.core_on else dict.fromkeys(Run(1, False).inputs(), 0)
        # The sequencer is past its last step when a layer is done.
        causes = {name: not core["layer_done_i"] and random.random() < 0.3 for name in CAUSES}
        return core | causes | {
            "start_i": 0,
            "next_image_i": self.next_image,
            "watchdog_i": self.watchdog,
            "progress_i": random.random() < self.progress,
            "dma_busy_i": self.weights.busy or self.store.busy,
            "image_busy_i": self.image.busy,
            "store_busy_i": self.store.busy,
            "weight_read_error_i": self.weights.error,
            "image_read_error_i": self.image.error,
            "feature_write_error_i": self.store.error,
            "address_fault_i": 0,
            "stream_error_i": 0,
            "stream_error_layer_i": random.getrandbits(16),
            "layer_counter_addr_i": random.randrange(max(1, 4 * len(self.table))),
        }  # fmt: skip

    async def cycle(self, error=False, **inputs):
        """One cycle, with some ``inputs`` of the caller's; ``error``: it must bring a run to its end."""
        d, run = self.dut, self.run
        i = self._inputs() | inputs
        for name, value in i.items():
            getattr(d, name).value = int(value)
        await RisingEdge(d.clk_i)
        done, abort = bool(d.done_o.value), bool(d.abort_o.value)
        assert bool(d.idle_o.value) == (run is None)
        assert done == self.done_next
        image_abort = bool(d.image_abort_o.value)
        assert (abort, image_abort) == self.aborts, (
            "an abort without an error or an end in the cycle before, or none with it"
        )
        failing, self.failing = self.failing, error
        self.aborts = bool(failing or done), bool(failing or (done and not self.ahead))
        if self.counter is not None:
            assert int(d.layer_counter_data_o.value) == self.counter
        address = i["layer_counter_addr_i"]
        self.counter = self.table[address // 4][address % 4] if self.table and not self.settling else None
        self.settling = max(0, self.settling - 1)

        # What is started, from what was driven. Nothing may start in the cycle after an error.
        alive = run is not None and not run.failed and not failing and not done
        at_rest = not i["dma_busy_i"] and not i["image_busy_i"]
        program = alive and not run.began and not i["dma_busy_i"] and (run.image_begun or not i["image_busy_i"])
        image = alive and i["header_valid_i"] and not run.image_begun
        ahead = alive and run.began and not run.computed and run.image_begun and not self.ahead and not image
        ahead = ahead and i["image_free_i"] and i["next_image_i"] and not i["image_busy_i"]
        store = alive and run.computed and not run.stored
        assert bool(d.program_start_o.value) == program
        assert bool(d.image_start_o.value) == (image or ahead)
        assert bool(d.image_ahead_o.value) == ahead
        assert bool(d.store_start_o.value) == store
        core_on = run is not None and run.began and not run.failed and not done
        assert bool(d.core_rst_no.value) == core_on

        self.done_next = run is not None and not done and (
            (alive and run.closing) or (run.failed and (at_rest or self.bites))
        )  # fmt: skip
        if run is not None and not done:
            run.computed = run.computed or bool(
                alive and i["header_valid_i"] and i["stream_finished_i"] and run.all_done
            )
            run.all_done = i["header_valid_i"] and run.layers_done == run.layers  # the comparison has a register
            run.closing = run.closing or (alive and run.stored and not i["store_busy_i"])
            run.stored, run.began = run.stored or store, run.began or program
            run.image_begun, run.image_starts = run.image_begun or image, run.image_starts + image
            run.ahead = run.ahead or ahead
            run.failed = run.failed or failing
            run.count(i)
        if core_on and run is not None:
            run.clock(i)
        self.ahead = (self.ahead or bool(ahead)) and not failing
        self.core_on = core_on
        self.weights.clock(program, abort)
        self.image.clock(image or ahead, image_abort)
        self.store.clock(store, abort)
        self.quiet = 0 if run is None or i["progress_i"] or failing else self.quiet + 1
        if done:
            # It takes four cycles to write a layer's counters, and a run may fail sooner.
            self.settling = max(0, 4 - run.cycles_after_layer) if run.layer_counters else 0
            self.table, self.run = run.layer_counters, None

    async def begin(self, layers=None):
        """Start a run."""
        run = Run(random.randint(1, 6) if layers is None else layers, self.ahead)
        await self.cycle(start_i=1)
        self.run, self.ahead = run, False
        return run

    async def reach(self, condition):
        """Go on until ``condition`` holds."""
        while not condition():
            await self.cycle()

    async def end(self, run, code=ErrorCode.NONE, layer=0):
        """Go on to the end of the run, and compare what its registers say."""
        await self.reach(lambda: self.run is None)
        await self.cycle()
        d = self.dut
        assert (ErrorCode(int(d.error_code_o.value)), int(d.error_layer_o.value)) == (code, layer)
        totals = {name: int(getattr(d, name).value) for name in TOTALS}
        assert totals == {n: run.causes[cause] for n, cause in zip(TOTALS, [*CAUSES, "other"], strict=True)}
        assert int(d.cycles_o.value) == sum(totals.values()) == run.causes.total()
        assert int(d.layers_done_o.value) == run.layers_done

    async def good_run(self):
        run = await self.begin()
        await self.end(run)
        assert run.layers_done == run.layers
        return run

    async def idle(self):
        for _ in range(random.randrange(6)):
            await self.cycle()


@cocotb.test()
async def every_cycle_of_a_run_is_counted_once(dut):
    bench = Bench(dut)
    await bench.start()
    causes = Counter()
    for _ in range(20):
        causes += (await bench.good_run()).causes
        await bench.idle()
    assert causes.keys() == {*CAUSES, "other"}


@cocotb.test()
async def layer_counters_of_the_last_run_can_be_read_while_the_next_one_counts(dut):
    bench = Bench(dut)
    await bench.start()
    before = await bench.good_run()
    for _ in range(10):
        run = await bench.begin()
        await bench.reach(lambda run=run: run.layers_done == run.layers)
        assert bench.table == before.layer_counters  # Bench.cycle compares one of them in every cycle
        await bench.end(run)
        assert bench.table == run.layer_counters
        for address in range(4 * run.layers):
            await bench.cycle(layer_counter_addr_i=address)
        before = run


@cocotb.test()
async def the_next_image_is_loaded_once_when_asked_for_and_free_and_not_again(dut):
    bench = Bench(dut)
    await bench.start()
    loaded_ahead = 0
    for _ in range(40):
        # Bench.cycle knows in which cycle it has to start; here: that the next run finds it.
        expected = bench.ahead
        bench.next_image = False
        run = await bench.begin()
        assert run.image_begun == expected
        asked_at = random.randrange(250)
        while bench.run is not None:
            bench.next_image = run.causes.total() >= asked_at
            await bench.cycle()
        assert run.image_starts == (0 if expected else 1)
        assert bench.ahead == run.ahead
        loaded_ahead += run.ahead
    assert 5 < loaded_ahead < 35, f"{loaded_ahead} of 40 images loaded ahead: the bench misses its point"


@cocotb.test()
async def an_image_loaded_ahead_is_dropped_with_a_failed_run_and_loaded_again(dut):
    bench = Bench(dut)
    await bench.start()
    for _ in range(8):
        bench.next_image = True
        run = await bench.begin(layers=5)
        run.free_from = 0
        await bench.reach(lambda run=run: run.ahead)
        layer = run.layers_done
        await bench.cycle(error=True, address_fault_i=1)
        await bench.end(run, ErrorCode.BAD_ADDRESS, layer)
        bench.next_image = False
        assert (await bench.good_run()).image_starts == 1


@cocotb.test()
async def a_read_error_of_an_image_loaded_ahead_belongs_to_the_next_run(dut):
    bench = Bench(dut)
    await bench.start()
    for _ in range(8):
        bench.next_image = True
        run = await bench.begin(layers=5)
        run.free_from = 0
        await bench.reach(lambda run=run: run.ahead)
        bench.image.error = True
        await bench.end(run)
        bench.next_image = False
        run = await bench.begin()
        await bench.reach(lambda run=run: run.began)
        await bench.cycle(error=True)
        await bench.end(run, ErrorCode.IMAGE_READ, 0)
        await bench.good_run()


@cocotb.test()
@cocotb.parametrize(code=[*INPUTS, *STREAM_ERRORS])
async def an_error_ends_the_run_with_its_own_code_and_layer(dut, code):
    bench = Bench(dut)
    await bench.start()
    for _ in range(6):
        run = await bench.begin()
        wait = random.randrange(100)
        earliest = {ErrorCode.IMAGE_READ: "image_begun", ErrorCode.FEATURE_WRITE: "stored"}.get(code, "began")
        await bench.reach(lambda run=run, earliest=earliest: getattr(run, earliest))
        while wait and not bench.done_next and not run.stored:
            await bench.cycle()
            wait -= 1
        if bench.done_next:  # nothing is left that could fail
            await bench.end(run)
            continue
        layer = run.layers_done
        if code in INPUTS:
            await bench.cycle(error=True, **{INPUTS[code]: 1})
        else:
            layer = random.getrandbits(16)
            await bench.cycle(error=True, stream_error_i=code, stream_error_layer_i=layer)
        await bench.end(run, code, layer)
        await bench.idle()
        await bench.good_run()


@cocotb.test()
async def of_errors_that_meet_the_first_in_line_is_reported(dut):
    bench = Bench(dut)
    await bench.start()
    for _ in range(40):
        run = await bench.begin(layers=2)
        await bench.reach(lambda run=run: run.stored)
        bench.store.left = 2 * WATCHDOG
        stream = random.choice(STREAM_ERRORS)
        line = [
            ErrorCode.WATCHDOG, ErrorCode.WEIGHT_READ, ErrorCode.IMAGE_READ, ErrorCode.FEATURE_WRITE, stream,
            ErrorCode.BAD_ADDRESS,
        ]  # fmt: skip
        errors = [code for code in line if random.random() < 0.4] or [ErrorCode.BAD_ADDRESS]
        if ErrorCode.WATCHDOG in errors:
            bench.progress = 0
            await bench.reach(lambda: bench.bites)
        stream_layer = random.randrange(3, 1 << 16)
        inputs = {INPUTS[code]: 1 for code in errors if code in INPUTS}
        if stream in errors:
            inputs |= {"stream_error_i": stream, "stream_error_layer_i": stream_layer}
        await bench.cycle(error=True, **inputs)
        bench.progress = 0.5
        await bench.end(run, errors[0], stream_layer if errors[0] == stream else 2)


@cocotb.test()
async def error_flags_of_the_run_before_do_not_stop_a_run(dut):
    bench = Bench(dut)
    await bench.start()
    for _ in range(8):
        for dma in (bench.weights, bench.image, bench.store):
            dma.error = True
        await bench.good_run()  # Bench.cycle finds no abort before done
        assert not (bench.weights.error or bench.image.error or bench.store.error)


@cocotb.test()
@cocotb.parametrize(stage=["settling", "running", "storing"])
async def the_watchdog_bites_after_its_time_without_progress(dut, stage):
    bench = Bench(dut)
    await bench.start()
    for _ in range(4):
        bench.weights.stuck = stage == "settling"
        run = await bench.begin()
        if stage == "running":
            run.stream_in = 1 << 30  # a stream that never ends
            await bench.reach(lambda run=run: run.layers_done == min(2, run.layers))
        elif stage == "storing":
            await bench.reach(lambda run=run: run.stored)
            bench.store.stuck = True
        # As long as something moves now and then, nothing happens ...
        bench.progress = 0
        for _ in range(5):
            while bench.quiet < WATCHDOG:
                await bench.cycle()
            await bench.cycle(progress_i=1)
        assert bench.run is run
        # ... and then, to the cycle.
        for _ in range(WATCHDOG + 1):
            await bench.cycle()
        layer = run.layers_done
        await bench.cycle(error=True)
        bench.weights.stuck = bench.store.stuck = False
        await bench.end(run, ErrorCode.WATCHDOG, layer)
        bench.progress = 0.5
        await bench.good_run()


@cocotb.test()
@cocotb.parametrize(which=["weights", "image", "store"])
async def done_waits_one_watchdog_time_for_a_dma_and_the_next_run_for_its_end(dut, which):
    bench = Bench(dut)
    await bench.start()
    for _ in range(3):
        run = await bench.begin()
        await bench.reach(lambda run=run: run.stored)
        bench.progress = 0
        dma = getattr(bench, which)
        dma.stuck = True
        await bench.cycle(error=True, address_fault_i=1)
        for _ in range(WATCHDOG + 3):
            assert bench.run is run
            await bench.cycle()
        assert bench.done_next  # Bench.cycle compares done_o with it
        await bench.end(run, ErrorCode.BAD_ADDRESS, run.layers)
        bench.progress = 0.5
        run = await bench.begin()
        for _ in range(3 * WATCHDOG):
            await bench.cycle()
        assert not run.began, "a program was started while a DMA was busy"
        dma.stuck = False
        await bench.end(run)


@cocotb.test()
async def a_watchdog_of_zero_never_bites(dut):
    bench = Bench(dut)
    await bench.start()
    bench.watchdog, bench.progress = 0, 0
    run = await bench.begin()
    run.stream_in = 3000
    await bench.end(run)
    run = await bench.begin()
    await bench.reach(lambda: run.stored)
    bench.store.stuck = True
    await bench.cycle(error=True, feature_write_error_i=1)
    for _ in range(3000):
        await bench.cycle()
    assert bench.run is run, "done before the DMA came to rest"
    bench.store.stuck = False
    await bench.end(run, ErrorCode.FEATURE_WRITE, run.layers)


def test_npu_control():
    run_bench("npu_control", __name__)
