"""stream_loader: every part of a program goes where it belongs, and no damaged record, payload or descriptor gets through."""

import random
from dataclasses import replace

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge

from hw.isa import DESCRIPTOR_BYTES, PARAMETER_BYTES, ArrayConfig, ErrorCode, LayerDescriptor, Pool, ProgramHeader
from hw.stream import payload_bytes
from sim.bench import run_bench
from sim.random_layers import random_program
from sim.streams import random_generator, reset, start, to_vector

CONFIGURATIONS = {
    "8x8": ArrayConfig("8x8", 8, 8, banks=8, bank_words=512, acc_depth=64, ports=1, port_bytes=8, pool_columns=16),
    "16x8": ArrayConfig("16x8", 16, 8, banks=5, bank_words=512, acc_depth=32, ports=3, port_bytes=4, pool_columns=16),
    "64x16": ArrayConfig(
        "64x16", 64, 16, banks=4, bank_words=512, acc_depth=64, ports=2, port_bytes=64, pool_columns=16
    ),
}


def parameters(config):
    names = ("cp", "kp", "stream_bytes", "acc_depth", "total_words", "pool_columns")
    return {**{name.upper(): getattr(config, name) for name in names}, "IMAGE_BEATS": config.cp // config.port_bytes}


class Bench:
    """Feeds a stream and takes the layers, parameters and weights with random pace."""

    def __init__(self, dut, idle=0.3, stall=0.3):
        self.dut = dut
        values = tuple(int(getattr(dut, name).value) for name in parameters(CONFIGURATIONS["8x8"]))
        self.config = next(c for c in CONFIGURATIONS.values() if tuple(parameters(c).values()) == values)
        self.idle, self.stall = idle, stall
        self.rng = random_generator()

    async def start(self):
        await start(self.dut, word_valid_i=0, layer_ready_i=0, params_ready_i=0, weights_ready_i=0)

    def program(self):
        return random_program(self.rng, self.config, layers=3, size=5, channels=20)

    def read_struct(self, vector):
        """The packed record as bytes."""
        return int(vector.value).to_bytes(DESCRIPTOR_BYTES, "little")

    async def run(self, stream, limit=60000):
        """Feed ``stream`` until it has passed or an error stops it. Returns (error, layer); what came out is kept."""
        d = self.dut
        d.word_valid_i.value = 0
        await reset(d)
        self.layers, self.params, self.weights = [], [], []
        size = self.config.stream_bytes
        at, waited = 0, 0
        while waited < limit:
            waited += 1
            offered = at < len(stream) and random.random() >= self.idle
            d.word_valid_i.value = offered
            if offered:
                d.word_i.value = to_vector(np.frombuffer(stream[at : at + size], np.uint8))
            for ready in (d.layer_ready_i, d.params_ready_i, d.weights_ready_i):
                ready.value = random.random() >= self.stall
            await RisingEdge(d.clk_i)
            if d.layer_valid_o.value and d.layer_ready_i.value:
                self.layers.append(self.read_struct(d.layer_o))
            if offered and d.word_ready_o.value:
                for valid, ready, into in (
                    (d.params_valid_o, d.params_ready_i, self.params),
                    (d.weights_valid_o, d.weights_ready_i, self.weights),
                ):
                    if valid.value:
                        assert ready.value, "a word was taken that nobody was ready for"
                        into.append(stream[at : at + size])
                at += size
            if d.finished_o.value or d.error_o.value != 0:
                break
        else:
            raise AssertionError(f"neither finished nor failed within {limit} cycles, {len(stream) - at} bytes left")
        return ErrorCode(int(d.error_o.value)), int(d.error_layer_o.value)

    def expected(self, program):
        """(descriptors, parameter words, weight words) as hw.stream lays them out."""
        c, stream = self.config, program.stream
        layers, params, weights, at = [], [], [], c.padded(DESCRIPTOR_BYTES)

        def words(count):
            nonlocal at
            found = [stream[i : i + c.stream_bytes] for i in range(at, at + count, c.stream_bytes)]
            at += count
            return found

        for d in program.descriptors():
            layers.append(stream[at : at + DESCRIPTOR_BYTES])
            at += c.padded(DESCRIPTOR_BYTES)
            for _ in range(d.out_blocks * d.tiles):
                params += words(c.padded(PARAMETER_BYTES * c.kp))
                weights += words(d.passes_per_tile * c.padded(c.macs))
        return layers, params, weights


@cocotb.test()
@cocotb.parametrize(idle=[0.0, 0.5], stall=[0.0, 0.5])
async def every_part_goes_where_it_belongs(dut, idle, stall):
    bench = Bench(dut, idle, stall)
    await bench.start()
    for _ in range(4):
        program = bench.program()
        assert await bench.run(program.stream) == (ErrorCode.NONE, len(program.layer_names))
        assert (bench.layers, bench.params, bench.weights) == bench.expected(program)
        assert bench.read_struct(dut.header_o) == program.stream[:DESCRIPTOR_BYTES]


@cocotb.test()
async def a_flipped_bit_in_a_header_stops_it(dut):
    bench = Bench(dut)
    await bench.start()
    program = bench.program()
    for _ in range(12):
        bit = random.randrange(8 * DESCRIPTOR_BYTES)
        damaged = flip(program.stream, bit)
        code = ErrorCode.BAD_MAGIC if bit < 32 else ErrorCode.BAD_VERSION if bit < 48 else ErrorCode.BAD_CRC
        assert await bench.run(damaged) == (code, 0), f"bit {bit}"
        assert not bench.layers


@cocotb.test()
async def a_flipped_bit_in_a_descriptor_stops_it(dut):
    bench = Bench(dut)
    await bench.start()
    program = bench.program()
    starts = descriptor_offsets(program)
    for _ in range(12):
        layer = random.randrange(len(starts))
        bit = 8 * starts[layer] + random.randrange(8 * DESCRIPTOR_BYTES)
        assert await bench.run(flip(program.stream, bit)) == (ErrorCode.BAD_CRC, layer)
        assert len(bench.layers) == layer


@cocotb.test()
async def a_flipped_bit_in_a_payload_is_found_at_the_layers_end(dut):
    bench = Bench(dut)
    await bench.start()
    program = bench.program()
    starts, c = descriptor_offsets(program), bench.config
    for _ in range(12):
        layer = random.randrange(len(starts))
        size = payload_bytes(program.descriptors()[layer], c)
        bit = 8 * (starts[layer] + c.padded(DESCRIPTOR_BYTES)) + random.randrange(8 * size)
        assert await bench.run(flip(program.stream, bit)) == (ErrorCode.BAD_PAYLOAD, layer)


@cocotb.test()
async def a_program_for_another_array_is_refused(dut):
    bench = Bench(dut)
    await bench.start()
    program = bench.program()
    for name, value in [
        ("cp", 4),
        ("kp", 2),
        ("stream_bytes", 6),
        ("acc_depth", 17),
        ("total_words", 1 << 20),
        ("image_beats", 0),
        ("image_beats", 255),
    ]:
        header = replace(program.header, **{name: value})
        stream = header.pack() + program.stream[DESCRIPTOR_BYTES:]
        assert await bench.run(stream) == (ErrorCode.WRONG_CONFIGURATION, 0), name
    fewer = replace(program.header, total_words=1)  # needs less than there is
    assert (await bench.run(fewer.pack() + program.stream[DESCRIPTOR_BYTES:]))[0] == ErrorCode.NONE


@cocotb.test()
async def a_descriptor_out_of_range_is_refused(dut):
    bench = Bench(dut)
    await bench.start()
    c = bench.config
    good = LayerDescriptor(
        in_width=4, in_height=4, in_plane=16, in_blocks=1, kernel_h=1, kernel_w=1, stride=1, row_step=4, tile_step=16,
        out_width=4, out_height=4, out_blocks=1, tile_rows=4, tiles=1, clip_high=255, pooled_width=4, pooled_height=4,
    )  # fmt: skip
    pooled = replace(good, pool_mode=Pool.MAX, pool_kernel=2, pool_stride=2, pooled_width=2, pooled_height=2)
    bad = [
        *(
            replace(good, **{name: 0})
            for name in ("kernel_h", "kernel_w", "stride", "in_blocks", "out_blocks", "tiles")
        ),
        *(replace(good, **{name: 0}) for name in ("tile_rows", "in_width", "in_height", "out_width", "out_height")),
        replace(good, out_width=c.acc_depth + 1),
        replace(good, tile_rows=c.acc_depth // 4 + 1, out_height=c.acc_depth // 4 + 1),
        replace(good, tile_rows=3),  # a row is left over
        replace(good, tiles=2),  # a tile is empty
        replace(good, clip_low=5, clip_high=4),
        replace(pooled, pool_pad=2),
        replace(pooled, pool_kernel=0),
        replace(pooled, pool_stride=1, pool_pad=1),
        replace(pooled, pooled_width=0),
        replace(pooled, pooled_height=0),
        replace(pooled, pooled_width=c.pool_columns + 1),
    ]
    header = ProgramHeader(
        layers=1,
        image_beats=1,
        cp=c.cp,
        kp=c.kp,
        stream_bytes=c.stream_bytes,
        acc_depth=c.acc_depth,
        total_words=c.total_words,
    )
    for descriptor in bad:
        stream = b"".join(record.pack().ljust(c.padded(DESCRIPTOR_BYTES), b"\0") for record in (header, descriptor))
        assert await bench.run(stream) == (ErrorCode.BAD_DESCRIPTOR, 0), str(descriptor)
        assert not bench.layers
    no_layers = replace(header, layers=0).pack().ljust(c.padded(DESCRIPTOR_BYTES), b"\0")
    assert await bench.run(no_layers) == (ErrorCode.BAD_DESCRIPTOR, 0)


def flip(stream, bit):
    damaged = bytearray(stream)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def descriptor_offsets(program):
    """Byte offset of each descriptor in the stream."""
    c, offsets, at = program.config, [], program.config.padded(DESCRIPTOR_BYTES)
    for d in program.descriptors():
        offsets.append(at)
        at += c.padded(DESCRIPTOR_BYTES) + payload_bytes(d, c)
    return offsets


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_stream_loader(name):
    run_bench("stream_loader", __name__, parameters(CONFIGURATIONS[name]))
