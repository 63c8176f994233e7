"""Tensor placement: nothing alive is overwritten, read ports do not clash, and what does not fit is refused with numbers."""

from typing import Any

import numpy as np
import pytest

from hls.npu.layer import CompileError, FusedLayer, Pooling, Tensor
from hls.npu.place import Placement, PlacementError, banks, place
from hw.isa import ArrayConfig, Pool, load_config
from sim.random_layers import random_layers

SMALL = ArrayConfig("small", cp=16, kp=16, banks=4, bank_words=64, acc_depth=64, ports=1, port_bytes=16)


def conv(name: str, source: Tensor, channels: int, kernel: int = 1, stride: int = 1, **more: Any) -> FusedLayer:
    """A convolution with zero weights: only its shape matters here."""
    rows, columns = ((n + 2 * (kernel // 2) - kernel) // stride + 1 for n in (source.height, source.width))
    zeros = np.zeros(channels, np.int64)
    if more.get("residual"):
        more["res_shift"] = zeros
    output = more.pop("output", Tensor(name, rows, columns, channels))
    pads = {"pad_top": kernel // 2, "pad_left": kernel // 2}
    weights = np.zeros((channels, source.channels, kernel, kernel), np.int8)
    return FusedLayer(name, source, output, weights, zeros, zeros, rows, columns, stride, **pads, **more)


def resnet50(version: str, size: int = 224, width: int = 64) -> list[FusedLayer]:
    """The 53 layers' shapes, stem as the compiler rewrites it."""
    half, quarter = size // 2, size // 4
    image = Tensor("image", half + 3, half, 48)
    zeros = np.zeros(width, np.int64)
    pool = Pooling(Pool.MAX, 3, 2, 1)
    x = Tensor("stem", quarter, quarter, width)
    layers = [FusedLayer("stem", image, x, np.zeros((width, 48, 4, 1), np.int8), zeros, zeros, half, half, pool=pool)]
    for stage, count in enumerate((3, 4, 6, 3)):
        for block in range(count):
            name, middle = f"s{stage + 2}b{block}", width << stage
            stride = 2 if stage and not block else 1
            strides = (stride, 1) if version == "v1" else (1, stride)
            layers.append(conv(f"{name}c1", x, middle, 1, strides[0]))
            layers.append(conv(f"{name}c2", layers[-1].output, middle, 3, strides[1]))
            inner, residual = layers[-1].output, x
            if not block:
                layers.append(conv(f"{name}proj", x, 4 * middle, 1, stride))
                residual = layers[-1].output
            layers.append(conv(f"{name}c3", inner, 4 * middle, residual=residual))
            x = layers[-1].output
    return layers


def check_by_ownership(layers: list[FusedLayer], placement: Placement, config: ArrayConfig) -> None:
    """Play the layers through a memory that knows whose word each one is."""
    owner = np.full(config.total_words, "", dtype=object)

    def span(tensor: Tensor) -> slice:
        base = placement.base[tensor.name]
        assert base >= 0 and base + tensor.words(config) <= config.total_words
        return slice(base, base + tensor.words(config))

    owner[span(layers[0].source)] = layers[0].source.name
    for layer in layers:
        for tensor in filter(None, (layer.source, layer.residual)):
            assert (owner[span(tensor)] == tensor.name).all(), f"{layer.name}: {tensor.name} was overwritten"
        out = span(layer.output)
        assert layer.source.name not in owner[out], f"{layer.name} writes over its input"
        if layer.residual and layer.residual.name in owner[out]:
            assert out == span(layer.residual) and layer.pool.mode == Pool.NONE
        owner[out] = layer.output.name
        if layer.residual:
            shared = set(banks(layer.source, placement.base[layer.source.name], config)) & set(
                banks(layer.residual, placement.base[layer.residual.name], config)
            )
            assert bool(shared) == (layer.name in placement.exclusive), layer.name


@pytest.mark.parametrize("seed", range(60))
def test_no_live_tensor_is_overwritten_in_random_networks(seed: int):
    rng = np.random.default_rng(seed)
    config = ArrayConfig("drawn", 16, 16, int(rng.integers(3, 9)), 512, acc_depth=64, ports=1, port_bytes=16)
    layers = random_layers(rng, layers=8, size=12, channels=60)
    check_by_ownership(layers, place(layers, config), config)


@pytest.mark.parametrize("board", ["zcu104", "kv260", "u250", "sim-small"])
@pytest.mark.parametrize("version", ["v1", "v1.5"])
def test_resnet50_stays_on_chip_and_never_waits_for_a_port(version: str, board: str):
    config, layers = load_config(board), resnet50(version)
    placement = place(layers, config)
    check_by_ownership(layers, placement, config)
    assert len(layers) == 53 and not placement.exclusive


def test_an_output_takes_the_place_of_a_residual_that_dies():
    image = Tensor("image", 4, 4, 16)
    trunk = conv("trunk", image, 16)
    inner = conv("inner", trunk.output, 16)
    last = conv("last", inner.output, 16, residual=trunk.output)
    base = place([trunk, inner, last], SMALL).base
    assert base["last"] == base["trunk"]


def test_an_output_leaves_a_residual_that_is_read_again():
    image = Tensor("image", 4, 4, 16)
    trunk = conv("trunk", image, 16)
    inner = conv("inner", trunk.output, 16)
    added = conv("added", inner.output, 16, residual=trunk.output)
    layers = [trunk, inner, added, conv("again", added.output, 16, residual=trunk.output)]
    check_by_ownership(layers, place(layers, SMALL), SMALL)


def test_a_layer_that_adds_its_own_input_drains_in_turn_and_writes_elsewhere():
    image = Tensor("image", 4, 4, 16)
    trunk = conv("trunk", image, 16)
    doubled = conv("doubled", trunk.output, 16, residual=trunk.output)
    placement = place([trunk, doubled], SMALL)
    check_by_ownership([trunk, doubled], placement, SMALL)
    assert placement.exclusive == {"doubled"}


def test_an_image_whose_end_nobody_reads_may_still_arrive_and_is_not_overwritten():
    image = Tensor("image", 8, 8, 16)
    layers = [conv("half", image, 16, stride=2)]  # 1x1 with stride 2 leaves out the last row
    for number in range(5):
        layers.append(conv(f"next{number}", layers[-1].output, 32))
    config = ArrayConfig("tight", 16, 16, 2, 64, acc_depth=64, ports=1, port_bytes=16)
    base = place(layers, config).base
    for layer in layers:
        assert (
            base[layer.output.name] >= base["image"] + 64
            or base[layer.output.name] + layer.output.words(config) <= base["image"]
        )


def test_adding_an_image_that_may_still_arrive_is_refused():
    image = Tensor("image", 4, 4, 16)
    with pytest.raises(CompileError, match="adds the image, which may still be loading"):
        place([conv("first", image, 16, residual=image)], SMALL)


def test_adding_the_image_after_all_of_it_was_read_is_allowed():
    image = Tensor("image", 4, 4, 16)
    first = conv("first", image, 16)
    layers = [first, conv("second", first.output, 16, residual=image)]
    check_by_ownership(layers, place(layers, SMALL), SMALL)


def test_a_network_that_is_too_large_is_refused_with_what_is_short():
    image = Tensor("image", 10, 10, 16)  # 100 words, and 200 of output: 44 more than 4 banks of 64 hold
    with pytest.raises(
        PlacementError, match=r"layer 'wide': needs 300 activation words at once, small has 256: 44 short"
    ):
        place([conv("wide", image, 32)], SMALL)


def test_resnet50_at_twice_the_size_is_refused_on_kv260():
    with pytest.raises(PlacementError, match=r"kv260 has 32768: \d+ short; use a smaller image"):
        place(resnet50("v1.5", size=448), load_config("kv260"))


def test_placement_is_the_same_every_time():
    layers = resnet50("v1.5", size=64, width=16)
    assert place(layers, SMALL_RESNET) == place(layers, SMALL_RESNET)


SMALL_RESNET = ArrayConfig("small-resnet", 16, 16, 8, 512, acc_depth=512, ports=1, port_bytes=16)
