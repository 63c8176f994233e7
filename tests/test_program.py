"""The program file and the weight stream: what is written reads back, and damage anywhere is noticed."""

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_networks import featurizer, random_image

from hw import program as program_module
from hw.isa import ArrayConfig, LayerDescriptor, ProgramHeader, RecordError, load_config
from hw.program import FILE_MAGIC, Output, Program, ProgramError
from hw.stream import decode, encode, payload_bytes, stripe, unstripe

NARROW = ArrayConfig(
    "narrow", cp=16, kp=8, banks=5, bank_words=512, acc_depth=32, ports=3, port_bytes=4, pool_columns=16
)
CONFIGS = {"sim-small": load_config("sim-small"), "zcu104": load_config("zcu104"), "narrow": NARROW}
PROGRAM = featurizer(1)


@pytest.fixture(params=CONFIGS)
def program(request: pytest.FixtureRequest) -> Program:
    return featurizer(2, CONFIGS[request.param])


def test_a_file_reads_back_equal(program: Program, tmp_path: Path):
    program.save(tmp_path / "folder" / "net.npu")
    assert Program.load(tmp_path / "folder" / "net.npu") == program


def test_the_stream_decodes_to_what_was_encoded(program: Program):
    header, layers = decode(program.stream, program.config)
    assert encode(header, layers, program.config) == program.stream
    assert [layer.descriptor for layer in layers] == program.descriptors()


def test_every_record_starts_on_a_stream_word(program: Program):
    config = program.config
    sizes = [config.padded(64) + payload_bytes(d, config) for d in program.descriptors()]
    assert all(size % config.stream_bytes == 0 for size in sizes)
    assert len(program.stream) == config.padded(64) + sum(sizes) == program.beats * config.stream_bytes


def test_ports_read_beats_in_turn_and_together_the_whole_stream(program: Program):
    parts = stripe(program.stream, program.config)
    size, ports = program.config.port_bytes, program.config.ports
    assert len(parts) == ports
    assert parts[-1][:size].tobytes() == program.stream[(ports - 1) * size : ports * size]
    assert unstripe(parts, program.config) == program.stream


@pytest.mark.parametrize("seed", range(10))
def test_one_flipped_bit_in_a_file_is_refused(seed: int):
    data = bytearray(PROGRAM.to_bytes())
    bit = int(np.random.default_rng(seed).integers(8 * len(data)))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProgramError, match=r"damaged or cut short|is not an NPU program|has file version"):
        Program.from_bytes(bytes(data))


@pytest.mark.parametrize("seed", range(10))
def test_one_flipped_bit_in_the_weights_fails_the_payload_check(seed: int):
    config = PROGRAM.config
    first = 2 * config.padded(64)
    size = payload_bytes(PROGRAM.descriptors()[0], config)
    data = bytearray(PROGRAM.stream)
    bit = int(np.random.default_rng(seed).integers(8 * size))
    data[first + bit // 8] ^= 1 << bit % 8
    with pytest.raises(RecordError, match="layer 0: its weights are damaged"):
        decode(bytes(data), config)


@pytest.mark.parametrize("record", [0, 1], ids=["header", "descriptor"])
def test_a_damaged_record_fails_its_crc(record: int):
    data = bytearray(PROGRAM.stream)
    data[record * PROGRAM.config.padded(64) + 9] ^= 0x10
    with pytest.raises(RecordError, match="the CRC does not match"):
        decode(bytes(data), PROGRAM.config)


def test_a_stream_that_was_cut_is_refused():
    with pytest.raises(RecordError, match="layer 2: its weights are damaged or cut short"):
        decode(PROGRAM.stream[:-16], PROGRAM.config)


@pytest.mark.parametrize("length", [0, 7, 15, 200, -1])
def test_a_file_that_was_cut_is_refused(length: int):
    with pytest.raises(ProgramError):
        Program.from_bytes(PROGRAM.to_bytes()[:length])


def test_another_kind_of_file_is_refused_by_name(tmp_path: Path):
    (tmp_path / "cat.png").write_bytes(b"\x89PNG" + bytes(100))
    with pytest.raises(ProgramError, match=r"cat\.png is not an NPU program"):
        Program.load(tmp_path / "cat.png")


def test_a_file_whose_parts_disagree_is_refused():
    names = replace(PROGRAM, layer_names=PROGRAM.layer_names[:-1])
    with pytest.raises(ProgramError, match="names 2 layers but its stream has 3"):
        Program.from_bytes(names.to_bytes())


def test_a_file_without_a_field_is_refused():
    data = PROGRAM.to_bytes()
    (length,) = struct.unpack_from("<I", data, len(FILE_MAGIC) + 4)
    start = len(FILE_MAGIC) + 8
    info = json.loads(data[start : start + length])
    del info["output"]
    text = json.dumps(info).encode()
    body = FILE_MAGIC + struct.pack("<II", 1, len(text)) + text + PROGRAM.stream
    with pytest.raises(ProgramError, match="output"):
        Program.from_bytes(body + struct.pack("<I", zlib.crc32(body)))


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "net.npu"
    PROGRAM.save(path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(program_module.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        featurizer(9).save(path)
    assert Program.load(path) == PROGRAM
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_does_not_fit_its_field_is_refused():
    with pytest.raises(RecordError, match=r"LayerDescriptor\.kernel_h = 16 does not fit 0\.\.15"):
        LayerDescriptor(kernel_h=16).pack()


def test_the_header_describes_the_configuration(program: Program):
    config, header = program.config, program.header
    assert (header.cp, header.kp, header.stream_bytes) == (config.cp, config.kp, config.stream_bytes)
    assert (header.acc_depth, header.total_words) == (config.acc_depth, config.total_words)
    assert ProgramHeader.unpack(header.pack()) == header


def test_an_image_of_another_type_is_refused():
    image = random_image(np.random.default_rng(0), PROGRAM)
    with pytest.raises(ValueError, match="the image is float32, the program expects uint8"):
        PROGRAM.pack_image(image.astype(np.float32))


def test_global_sums_are_read_in_channel_order_and_divided_once():
    out = replace(PROGRAM, output=Output(1, 1, 3, "int32", fraction_bits=4, divisor=49))
    words = np.array([1, -2, 49 * 160, 77], "<i4").view(np.uint8)
    sums = out.read_result(words)
    assert sums.tolist() == [1, -2, 49 * 160]
    assert out.features(sums).tolist() == [np.float32(1 / 784), np.float32(-2 / 784), 10.0]


def test_an_activation_tensor_is_read_without_its_padding_channels():
    tensor = replace(PROGRAM, output=Output(2, 3, 20, "int8", fraction_bits=1))
    words = np.arange(2 * 6 * 16, dtype=np.uint8).reshape(2, 2, 3, 16)
    result = tensor.read_result(words)
    assert result.shape == (2, 3, 20) and result.dtype == np.int8
    assert (result[..., :16] == words[0].view(np.int8)).all() and (
        result[..., 16:] == words[1, ..., :4].view(np.int8)
    ).all()
