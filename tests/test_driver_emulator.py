"""The bit-exact emulator: the golden model's integers for every program, and the bounds that make its fast kernels exact."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import workload
from numpy.typing import NDArray
from random_networks import SIM_SMALL, featurizer, featurizer_layers, random_image

from driver.device import open_device
from driver.emulator import EmulatorDevice, Engine
from driver.golden import GoldenDevice
from driver.lanes import arrange, pairs_are_exact
from driver.onnx_runtime import Kernels, kernels_of_this_cpu
from driver.runtime import Npu, NpuError
from driver.tensors import UntraceableError, trace
from hls.npu.emit import compile_layers
from hw.isa import ErrorCode, Register, load_config
from hw.program import Program
from hw.stream import StreamLayer, encode
from sim.random_layers import random_program

IMAGES = 200
FEW = 3


def results(kind: str, program: Program, images: NDArray[np.uint8]) -> NDArray[np.int32]:
    with Npu(open_device(kind, program.config)) as npu:
        npu.load(program)
        return np.stack([npu.run(image).result for image in images])


def images_for(program: Program, count: int, seed: int) -> NDArray[np.uint8]:
    """Noise, then images of nothing but 0 and 255: they drive sums to their bounds."""
    rng = np.random.default_rng(seed)
    noise = [random_image(rng, program) for _ in range(count)]
    return np.stack([image if n % 2 == 0 else np.where(image > 127, 255, 0) for n, image in enumerate(noise)]).astype(
        np.uint8
    )


def recompiled(program: Program, layers: list[StreamLayer]) -> Program:
    return replace(program, stream=encode(program.header, layers, program.config))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The network that the demo tags jets with."""
    from hls.convert import convert
    from quantize import checkpoint

    folder = tmp_path_factory.mktemp("emulator")
    convert(checkpoint.load_quantised(), "NPU", output_dir=str(folder), name="demo", board="zcu104").write()
    return Program.load(folder / "demo.npu")


def test_the_demo_network_gives_the_golden_integers_on_200_images(demo: Program):
    images = images_for(demo, IMAGES, seed=1)
    assert np.array_equal(results("emulator", demo, images), results("golden", demo, images))


@pytest.mark.parametrize("version", workload.VERSIONS)
def test_resnet50_gives_the_golden_integers(version: str):
    program = workload.program("zcu104", version)
    images = np.concatenate([workload.jet_sample(1), images_for(program, 2, seed=2)[1:]])
    assert np.array_equal(results("emulator", program, images), results("golden", program, images))


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_give_the_golden_integers(seed: int):
    rng = np.random.default_rng(seed)
    program = random_program(rng, load_config(["sim-small", "zcu104", "u250"][seed % 3]), layers=5)
    images = images_for(program, FEW, seed)
    assert np.array_equal(results("emulator", program, images), results("golden", program, images)), f"seed {seed}"


def test_random_programs_use_every_way_to_compute_a_layer():
    methods = set()
    for seed in range(25):
        program = random_program(np.random.default_rng(seed), SIM_SMALL, layers=5)
        methods |= set(Engine.of(program, threads=1).methods.values())
    assert {m.split()[0] for m in methods} == {"QLinearConv", "MatMulIntegerToFloat", "ConvInteger"}
    assert {m.split()[1] for m in methods} == {"int8", "uint8"}


@pytest.mark.parametrize("kernels", [Kernels.PAIRS, Kernels.UNKNOWN])
def test_the_integers_do_not_depend_on_which_kernels_are_used(kernels: Kernels):
    program = featurizer(5)
    images = images_for(program, FEW, seed=5)
    engine = Engine.of(program, threads=1, kernels=kernels)
    assert np.array_equal(engine.run_images(program, images), results("golden", program, images))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_gives_the_integers_of_its_images(threads: int):
    program = featurizer(6, size=24, channels=40)
    images = images_for(program, 7, seed=6)
    assert np.array_equal(Engine.of(program, threads).run_images(program, images), results("golden", program, images))


def test_weights_that_would_saturate_16_bit_sums_are_exact():
    layers = featurizer_layers(7)
    layers = [replace(layer, weights=np.where(layer.weights < 0, -128, 127).astype(np.int8)) for layer in layers]
    program = compile_layers("extreme", layers, SIM_SMALL)
    images = np.concatenate([images_for(program, FEW, seed=7), np.full((1, 12, 12, 3), 255, np.uint8)])
    assert np.array_equal(results("emulator", program, images), results("golden", program, images))


@pytest.mark.parametrize(("number", "bias"), [(1, 2**24 + 2**16 + 1), (2, 2**24 + 2**16)], ids=["plain", "residual"])
def test_sums_that_float32_cannot_hold_are_rounded_right(number: int, bias: int):
    """Half a step and one more, times 2**17: in float32 the one is lost and the half goes to even."""
    layers = featurizer_layers(15)
    layers[0] = replace(layers[0], shift=np.full(24, 14, np.uint8))  # residuals of 0, 1 and little more
    big = replace(
        layers[number],
        weights=np.zeros_like(layers[number].weights),
        bias=np.full(24, bias, np.int32),
        shift=np.full(24, 17, np.uint8),
        res_shift=np.zeros(24, np.uint8) if layers[number].residual else None,
    )
    program = compile_layers("large", [*layers[:number], big, *layers[number + 1 :]], SIM_SMALL)
    images = images_for(program, FEW, seed=15)
    assert Engine.of(program).methods[f"layer{number}"].startswith("ConvInteger")
    assert np.array_equal(results("emulator", program, images), results("golden", program, images))


# The bound behind the int8 kernels ------------------------------------------------------------------------------------


def multiplied_in_pairs(x: NDArray[np.int64], weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """What VPMADDUBSW and VPMADDWD make of [n, lanes] and [rows, lanes]: pairs saturate at 16 bits, then add up exactly."""
    products = x[:, None] * weights
    return np.clip(products[..., 0::2] + products[..., 1::2], -32768, 32767).sum(axis=-1)


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_on_pairs_tells_exactly_when_saturation_can_happen(seed: int):
    rng = np.random.default_rng(seed)
    high = int(rng.choice([127, 200, 255]))
    corners = np.array([[a, b] for a in (0, high) for b in (0, high)])
    for weights in rng.integers(-128, 128, (500, 1, 2)):
        exact = np.array_equal(multiplied_in_pairs(corners, weights), corners @ weights.T)
        assert pairs_are_exact(weights.astype(np.int16), high) == exact, f"seed {seed}: {weights} with {high}"


def test_this_cpu_adds_as_the_bound_assumes():
    assert kernels_of_this_cpu() in (Kernels.EXACT, Kernels.PAIRS)


def test_channels_are_ordered_so_that_no_pair_saturates():
    rng = np.random.default_rng(8)
    layers = featurizer_layers(8, channels=32)
    few_large = np.where(rng.random((32, 32, 3, 3)) < 0.004, 120, rng.integers(-30, 30, (32, 32, 3, 3))).astype(np.int8)
    program = compile_layers("paired", [layers[0], replace(layers[1], weights=few_large), *layers[2:]], SIM_SMALL)
    found = trace(program.header, program.layers(), program.config)
    step = found.steps[1]

    def exact(pairing: bool) -> bool:
        lanes = arrange(found, pairing)[step.source]
        assert sorted(set(lanes)) == list(range(32))
        flat = step.layer.weights[:, lanes].transpose(0, 2, 3, 1).reshape(-1, len(lanes)).astype(np.int16)
        return pairs_are_exact(flat, 255)

    assert not exact(pairing=False)
    assert exact(pairing=True)


# Programs that are no graph -------------------------------------------------------------------------------------------


def test_a_program_that_reads_words_nobody_wrote_runs_on_the_golden_model(caplog: pytest.LogCaptureFixture):
    program = featurizer(9)
    *others, last = program.layers()
    elsewhere = replace(last.descriptor, res_base=last.descriptor.res_base + 1)
    odd = recompiled(program, [*others, replace(last, descriptor=elsewhere)])
    with pytest.raises(UntraceableError, match="layer 2 reads word"):
        Engine.of(odd)
    images = images_for(odd, FEW, seed=9)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(results("emulator", odd, images), results("golden", odd, images))
    assert "golden model" in caplog.text


def test_bytes_read_with_the_other_signedness_run_on_the_golden_model():
    program = featurizer(10)
    first, second, *rest = program.layers()
    odd = recompiled(program, [first, replace(second, descriptor=replace(second.descriptor, in_signed=1)), *rest])
    with pytest.raises(UntraceableError, match="signedness"):
        Engine.of(odd)
    images = images_for(odd, FEW, seed=10)
    assert np.array_equal(results("emulator", odd, images), results("golden", odd, images))


# As a device ----------------------------------------------------------------------------------------------------------


def test_it_opens_by_name():
    device = open_device("emulator", "sim-small", threads=1)
    assert isinstance(device, EmulatorDevice)
    assert (device.kind, device.config) == ("emulator", SIM_SMALL)


def test_a_program_changed_in_memory_is_seen():
    first, second = featurizer(11), featurizer(12)
    image = images_for(first, 1, seed=11)
    with Npu(EmulatorDevice(SIM_SMALL)) as npu:
        for program in (first, second, first):
            npu.load(program)
            assert np.array_equal(npu.run(image[0]).result, results("golden", program, image)[0])


def test_a_damaged_layer_stops_with_the_golden_error_and_layers_done():
    program = featurizer(13)
    image = images_for(program, 1, seed=13)[0]
    seen = []
    for device in (GoldenDevice(SIM_SMALL), EmulatorDevice(SIM_SMALL)):
        with Npu(device) as npu:
            npu.load(program)
            npu.run(image)
            memory = device.memory.at(device.read_register(Register.PROGRAM_ADDRESS), len(program.stream))
            memory[-1] ^= 1
            with pytest.raises(NpuError) as caught:
                npu.run(image)
            seen.append((caught.value.code, caught.value.layer, device.read_register(Register.LAYERS_DONE)))
    assert seen[0] == seen[1] == (ErrorCode.BAD_PAYLOAD, 2, 2)


def test_the_command_line_checks_it_against_the_golden_model(tmp_path: Path):
    from driver.__main__ import main

    program = featurizer(14)
    program.save(tmp_path / "net.npu")
    np.save(tmp_path / "images.npy", images_for(program, FEW, seed=14))
    command = ["run", "--device", "emulator", "--program", f"{tmp_path}/net.npu", "--images", f"{tmp_path}/images.npy"]
    assert main([*command, "--check"]) == 0
