"""The NPU as hls4ml's users meet it: convert, write, compile, predict."""

from pathlib import Path
from typing import Any

import hls4ml
import numpy as np
import pytest
from qkeras_nets import act, build, conv, eager, image
from tensorflow import keras
from tensorflow.keras import layers

from driver.device import DeviceError
from hls.convert import convert, exact_config
from hw.isa import ConfigurationError
from hw.program import Program

BATCH = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    i = image()
    x = act("stem_relu")(conv(5, 3, "stem", 2)(i))
    x = act("last_relu")(conv(7, 3, "last")(x))
    return build(i, layers.GlobalAveragePooling2D(name="features")(x))


@pytest.fixture(scope="module")
def graph(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Any:
    graph = convert(model, "NPU", str(tmp_path_factory.mktemp("npu")), "tiny")
    graph.compile()
    return graph


def test_hls4mls_own_call_finds_the_backend_and_write_writes_a_program(model: keras.Model, tmp_path: Path):
    graph = hls4ml.converters.convert_from_keras_model(
        model,
        hls_config=exact_config(model),
        backend="NPU",
        output_dir=str(tmp_path / "out"),
        project_name="tiny",
        board="zcu104",
        metadata={"origin": "a test"},
    )
    graph.write()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tiny.npu"]
    program = Program.load(tmp_path / "out" / "tiny.npu")
    assert (program.name, program.config.name, program.layer_names) == ("tiny", "zcu104", ("stem", "last"))
    assert program.metadata["origin"] == "a test"


def test_predict_gives_qkeras_features(graph: Any, model: keras.Model):
    assert (graph.predict(BATCH) == eager(model, BATCH).astype(np.float32)).all()


def test_predict_takes_floats_on_the_grid_and_single_images(graph: Any):
    features = graph.predict(BATCH)
    assert features.shape == (3, 7) and features.dtype == np.float32
    assert (graph.predict(BATCH.astype(np.float32) / 256) == features).all()
    assert (graph.predict(BATCH[1]) == features[1]).all()
    assert (graph.predict(BATCH[1:2]) == features[1]).all()  # as hls4ml shapes a batch of one


@pytest.mark.parametrize("value", [0.3, -1 / 256, 1.0, np.nan])
def test_predict_refuses_values_between_and_beyond_the_integers(graph: Any, value: float):
    images = np.zeros((12, 12, 3), np.float32)
    images[3, 4, 1] = value
    with pytest.raises(ValueError, match="which is not uint8 / 256: give uint8 images, or divide them by 256"):
        graph.predict(images)


def test_predict_refuses_another_shape(graph: Any):
    with pytest.raises(ValueError, match=r"the images are \(2, 8, 8, 3\), the network takes \(12, 12, 3\) or a batch"):
        graph.predict(np.zeros((2, 8, 8, 3), np.uint8))


def test_predict_before_compile_says_what_to_do(model: keras.Model, tmp_path: Path):
    with pytest.raises(RuntimeError, match=r"call compile\(\) before predict\(\)"):
        convert(model, "NPU", str(tmp_path)).predict(BATCH)


def test_an_unknown_board_is_refused_with_those_there_are(model: keras.Model, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"no board named 'spartan'.*sim-small"):
        convert(model, "NPU", str(tmp_path), board="spartan")


def test_an_unknown_device_is_refused_with_those_there_are(model: keras.Model, tmp_path: Path):
    with pytest.raises(DeviceError, match=r"no device named 'cloud'.*golden"):
        convert(model, "NPU", str(tmp_path), device="cloud").compile()


def test_the_rtl_runs_behind_the_same_two_calls(graph: Any, model: keras.Model, tmp_path: Path):
    rtl = convert(model, "NPU", str(tmp_path), device="rtl")
    rtl.compile()
    assert (rtl.predict(BATCH[:1]) == graph.predict(BATCH[:1])).all()
