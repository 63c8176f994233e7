"""What hls4ml 1.3.0's headers need (hls/vitis/patches.py): without each patch the C simulation is wrong, with all of them it is right."""

import subprocess
import warnings
from pathlib import Path

import hls4ml
import numpy as np
import pytest
from qkeras_nets import act, build, conv, eager, image
from tensorflow.keras import layers

from hls.vitis import patches
from hls.vitis.csim import CSimulation, SimulationError
from hls.vitis.dataflow import DeadlockError
from hls.vitis.patches import ONE_ROW_STRIDES, OVERLAPPING_POOLS, PATCHES, POINTWISE_WEIGHTS, Patch, PatchError
from hls.vitis.project import convert_sized, write_project
from hls.vitis.sizing import LayerSizing, Sizing

SIZING = Sizing("xcu250-figd2104-2L-e", 5, {"a": LayerSizing("a", "Latency", 1), "b": LayerSizing("b", "Resource", 6)})


@pytest.fixture(scope="module")
def model():
    """Rows skipped by kernels of one row, of either strategy, and a pool with overlapping windows."""
    x = i = image(10, 13)
    x = act("a_relu")(conv(4, (1, 3), "a", 2)(x))
    x = layers.MaxPooling2D((3, 2), (1, 1), name="max")(x)
    return build(i, act("b_relu")(conv(5, (1, 3), "b", 2)(x)), seed=5)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(6).integers(0, 256, (3, 10, 13, 3), dtype=np.uint8)


def simulated(model, images, folder: Path, used: tuple[Patch, ...]):
    project = write_project(convert_sized(model, folder, sizing=SIZING), used)
    return CSimulation(project, optimise=0).predict(images)


def test_with_all_patches_every_value_is_right(model, images, tmp_path: Path):
    assert (simulated(model, images, tmp_path, PATCHES) == eager(model, images).reshape(3, -1)).all()


SYMPTOMS = {
    OVERLAPPING_POOLS: "Assertion.*pool_height == .*stride_height",
    ONE_ROW_STRIDES: "deadlock:\n  a cannot write layer2_out, which is full",
}


@pytest.mark.parametrize("left_out", SYMPTOMS, ids=lambda patch: patch.name)
def test_without_a_patch_the_c_simulation_fails(model, images, tmp_path: Path, left_out: Patch):
    used = tuple(patch for patch in PATCHES if patch is not left_out)
    with pytest.raises((SimulationError, DeadlockError), match=SYMPTOMS[left_out]):
        simulated(model, images, tmp_path, used)


def test_weights_of_pointwise_layers_are_split_into_registers_for_the_latency_strategy_only():
    text = (templates() / POINTWISE_WEIGHTS.header).read_text()
    for patched, of_all in ((text, 1), (POINTWISE_WEIGHTS.apply(text), 0)):
        body = patched[patched.index("void pointwise_conv_2d_cl(") : patched.index("void depthwise_conv_2d_cl(")]
        before, _, rest = body.partition("CONFIG_T::strategy == nnet::latency")
        split = "ARRAY_PARTITION variable=weights complete"
        assert before.count(split) == of_all and body.count(split) == 1
        assert (split in rest[: rest.index("} else {")]) == (not of_all)


def test_patching_twice_changes_nothing():
    for patch in PATCHES:
        once = patch.apply((templates() / patch.header).read_text())
        assert patch.apply(once) == once != (templates() / patch.header).read_text()


def test_upstream_is_a_diff_of_hls4mls_tree_that_git_applies(tmp_path: Path):
    for patch in PATCHES:
        header = tmp_path / patches.TEMPLATES / patch.header
        header.parent.mkdir(parents=True, exist_ok=True)
        header.write_text((templates() / patch.header).read_text())
    expected: dict[str, str] = {}
    for patch in PATCHES:
        expected[patch.header] = patch.apply(expected.get(patch.header) or (templates() / patch.header).read_text())
    git = ["git", "-c", "core.autocrlf=false", "apply", "--unsafe-paths", "-"]
    done = subprocess.run(git, cwd=tmp_path, input=patches.upstream(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {name: (tmp_path / patches.TEMPLATES / name).read_text() for name in expected} == expected


def test_a_header_that_hls4ml_changed_is_named_with_the_reason_of_its_patch():
    text = (
        (templates() / OVERLAPPING_POOLS.header)
        .read_text()
        .replace("assert(CONFIG_T::pool_height", "check(CONFIG_T::pool_height")
    )
    with pytest.raises(
        PatchError, match=r"'overlapping pools' .*pooling2d_cl of nnet_pooling_stream.h.*does it right, remove"
    ):
        OVERLAPPING_POOLS.apply(text)


def test_another_version_of_hls4ml_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / patches.HEADERS
    folder.mkdir(parents=True)
    for patch in PATCHES:
        (folder / patch.header).write_text((templates() / patch.header).read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patches.apply(tmp_path)
    monkeypatch.setattr(patches.importlib.metadata, "version", lambda name: "1.4.0")
    with pytest.warns(UserWarning, match=r"made for hls4ml 1\.3\.0 and this is 1\.4\.0"):
        patches.apply(tmp_path)


def templates() -> Path:
    return Path(hls4ml.__file__).parents[1] / patches.TEMPLATES
