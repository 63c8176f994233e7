"""Bring a ResNet of bottleneck blocks that was trained elsewhere: torchvision's or keras.applications' layout.

safetensors, .npz and .h5 files need nothing more; .pt and .pth files need PyTorch (the extra `torch`). Depth and width
come from the file itself: ResNet-50, 101 and 152, and narrower ones of our own trainers.

Batch normalisation is folded into the convolutions, and so is what either library does to pixels, so that the network
sees image / 256. One thing cannot be folded: around the image those libraries pad with zeros after the mean was subtracted,
the NPU with black pixels. The outermost three rows and columns of pixels are therefore seen a little differently.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quantize.classifier import Classifier
from quantize.float_network import FloatNetwork
from quantize.fold import ConvWeights
from quantize.resnet import Conv, ResNetConfig

Arrays = dict[str, NDArray]


@dataclass(frozen=True)
class Pixels:
    """What a network was trained on: scale x pixel + offset by channel, pixel 0..255, channels in the network's order."""

    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    bgr: bool = False


PIXELS = {
    # image / 256, as our own trainers do
    "unit": Pixels((1 / 256,) * 3, (0.0,) * 3),
    # torchvision.transforms.Normalize with ImageNet's means and deviations, of image / 255
    "torchvision": Pixels(
        (1 / 255 / 0.229, 1 / 255 / 0.224, 1 / 255 / 0.225), (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)
    ),
    # keras.applications.resnet.preprocess_input: blue, green, red, each less ImageNet's mean
    "caffe": Pixels((1.0,) * 3, (-103.939, -116.779, -123.68), bgr=True),
}


@dataclass(frozen=True)
class _Layout:
    """How a library names its arrays. names: from our convolution's name to (convolution, batch normalisation)."""

    library: str
    stem: str
    names: Callable[[str], tuple[str, str]]
    kernel: str
    norm: tuple[str, str, str, str]  # gamma, beta, mean, variance
    epsilon: float
    dense: tuple[str, str]
    pixels: str
    version: Literal["v1", "v1.5"]

    def to_ours(self, kernel: NDArray) -> NDArray:
        """A kernel as [height, width, inputs, filters], a dense layer's as [inputs, outputs]."""
        return kernel if self.library == "Keras" else kernel.transpose((2, 3, 1, 0) if kernel.ndim == 4 else (1, 0))


def _torchvision_names(conv: str) -> tuple[str, str]:
    if conv == "stem":
        return "conv1", "bn1"
    stage, block, which = _parts(conv)
    prefix = f"layer{stage - 1}.{block}"
    if which == "proj":
        return f"{prefix}.downsample.0", f"{prefix}.downsample.1"
    return f"{prefix}.conv{which[1]}", f"{prefix}.bn{which[1]}"


def _keras_names(conv: str) -> tuple[str, str]:
    if conv == "stem":
        return "conv1_conv", "conv1_bn"
    stage, block, which = _parts(conv)
    prefix = f"conv{stage}_block{block + 1}_{0 if which == 'proj' else which[1]}"
    return f"{prefix}_conv", f"{prefix}_bn"


def _parts(conv: str) -> tuple[int, int, str]:
    """Stage, block and place of a convolution's name: s2b0c1 or s2b0proj."""
    found = re.fullmatch(r"s(\d+)b(\d+)(c\d|proj)", conv)
    assert found, conv
    return int(found[1]), int(found[2]), found[3]


_LAYOUTS = (
    _Layout(
        "torchvision",
        "conv1.weight",
        _torchvision_names,
        ".weight",
        (".weight", ".bias", ".running_mean", ".running_var"),
        1e-5,
        ("fc.weight", "fc.bias"),
        "torchvision",
        "v1.5",
    ),
    _Layout(
        "Keras",
        "conv1_conv/kernel",
        _keras_names,
        "/kernel",
        ("/gamma", "/beta", "/moving_mean", "/moving_variance"),
        1.001e-5,
        ("predictions/kernel", "predictions/bias"),
        "caffe",
        "v1",
    ),
)


def read_resnet(path: Path, size: int = 224, pixels: str | None = None, version: str | None = None) -> FloatNetwork:
    """Read a checkpoint as a folded float network for images of `size` pixels a side.

    pixels: a key of PIXELS, what the network was trained on; the library's own habit when None. version: where a stage's first block
    strides (see ResNetConfig); v1.5 in torchvision, v1 in Keras when None. A dense layer on the features becomes the classifier.
    Raises FileNotFoundError, or ValueError that says in a sentence what is wrong.
    """
    arrays = _read_arrays(path)
    try:
        return _network(arrays, path, size, pixels, version)
    except _OtherArchitectureError as error:
        raise ValueError(
            f"{path} is no ResNet of bottleneck blocks in torchvision's or Keras's layout: {error}; "
            "ResNet-50, 101 and 152 can be imported"
        ) from None


class _OtherArchitectureError(Exception):
    """Why a checkpoint is not a network that can be imported."""


def _network(arrays: Arrays, path: Path, size: int, pixels: str | None, version: str | None) -> FloatNetwork:
    layout = next((layout for layout in _LAYOUTS if layout.stem in arrays), None)
    if layout is None:
        raise _OtherArchitectureError(f"it has neither {' nor '.join(one.stem for one in _LAYOUTS)}")
    stages = _stages(arrays, layout)
    width = layout.to_ours(arrays[layout.stem]).shape[-1]
    config = ResNetConfig(stages, width, size, version or layout.version)  # type: ignore[arg-type]  # it checks
    used = set(layout.dense)
    weights = {}
    for conv in config.convs:
        weights[conv.name], names = _folded(arrays, layout, conv)
        used |= names
    others = sorted(name for name in set(arrays) - used if not name.endswith("num_batches_tracked"))
    if others:
        raise _OtherArchitectureError(f"it also has {', '.join(others[:3])}" + (" and more" if len(others) > 3 else ""))
    seen = pixels or layout.pixels
    weights["stem"] = _see_pixels(weights["stem"], PIXELS[seen])
    provenance = {"imported_from": path.name, "layout": layout.library, "pixels": seen}
    return FloatNetwork(config, weights, _classifier(arrays, layout, config), provenance)


def _stages(arrays: Arrays, layout: _Layout) -> tuple[int, ...]:
    """Count the blocks of each stage."""
    stages: list[int] = []
    while True:
        stage, blocks = 2 + len(stages), 0
        while layout.names(f"s{stage}b{blocks}c1")[0] + layout.kernel in arrays:
            blocks += 1
        if not blocks:
            break
        stages.append(blocks)
    if not stages:
        raise _OtherArchitectureError("it has no residual blocks")
    if layout.names("s2b0c3")[0] + layout.kernel not in arrays:
        raise _OtherArchitectureError("its blocks have two convolutions, as those of ResNet-18 and 34 have")
    return tuple(stages)


def _folded(arrays: Arrays, layout: _Layout, conv: Conv) -> tuple[ConvWeights, set[str]]:
    """One convolution with its batch normalisation folded in, and the names that it was read from."""
    conv_name, norm_name = layout.names(conv.name)
    names = [conv_name + layout.kernel, *(norm_name + part for part in layout.norm)]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise _OtherArchitectureError(f"it has no {missing[0]}")
    kernel = layout.to_ours(arrays[names[0]]).astype(np.float64)
    if kernel.shape != conv.weights_shape:
        raise _OtherArchitectureError(
            f"{names[0]} is {list(kernel.shape)} (height, width, inputs, filters), where a ResNet has {list(conv.weights_shape)}"
        )
    gamma, beta, mean, variance = (arrays[name].astype(np.float64) for name in names[1:])
    if any(one.shape != (conv.filters,) for one in (gamma, beta, mean, variance)):
        raise _OtherArchitectureError(f"the arrays of {norm_name} do not have {conv.filters} channels")
    own_bias = f"{conv_name}/bias"  # keras.applications gives every convolution one
    bias = arrays[own_bias].astype(np.float64) if own_bias in arrays else np.zeros(conv.filters)
    scale = gamma / np.sqrt(variance + layout.epsilon)
    folded = ConvWeights((kernel * scale).astype(np.float32), (beta + (bias - mean) * scale).astype(np.float32))
    if not (np.isfinite(folded.kernel).all() and np.isfinite(folded.bias).all()):
        raise ValueError(f"the weights of {conv_name} hold a NaN or an infinity: fetch or train the checkpoint again")
    return folded, {*names, own_bias}


def _see_pixels(stem: ConvWeights, pixels: Pixels) -> ConvWeights:
    """The stem for image / 256 in red, green, blue, of a stem for `pixels`."""
    kernel = stem.kernel.astype(np.float64)
    bias = stem.bias + np.einsum("hwio,i->o", kernel, pixels.offset)
    kernel = kernel * (256 * np.array(pixels.scale))[:, None]
    return ConvWeights((kernel[:, :, ::-1] if pixels.bgr else kernel).astype(np.float32), bias.astype(np.float32))


def _classifier(arrays: Arrays, layout: _Layout, config: ResNetConfig) -> Classifier | None:
    """The dense layer as a classifier: features are never negative, so that an identity with ReLU passes them on."""
    if layout.dense[0] not in arrays:
        return None
    kernel, bias = layout.to_ours(arrays[layout.dense[0]]), arrays[layout.dense[1]]
    if kernel.shape != (config.features, len(bias)):
        raise _OtherArchitectureError(f"{layout.dense[0]} is {list(kernel.shape)} for {config.features} features")
    eye, zeros = np.eye(config.features, dtype=np.float32), np.zeros(config.features, np.float32)
    return Classifier(eye, zeros, kernel.astype(np.float32), bias.astype(np.float32))


def _read_arrays(path: Path) -> Arrays:
    """All arrays of a checkpoint file by name. Raises FileNotFoundError or ValueError."""
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz, ".h5": _read_h5, ".hdf5": _read_h5}
    readers |= {".pt": _read_torch, ".pth": _read_torch}
    if path.suffix not in readers:
        raise ValueError(f"{path}: a checkpoint's name ends in one of {', '.join(readers)}")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        return readers[path.suffix](path)
    except ModuleNotFoundError as error:
        raise ValueError(f"{path} needs PyTorch: pip install 'quarkwave[torch]', or save it as safetensors") from error
    except Exception as error:  # whatever is in the file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ValueError(f"{path} is not a whole {path.suffix} file of weights ({reason}): fetch it again") from error


def _read_safetensors(path: Path) -> Arrays:
    from safetensors.numpy import load_file

    return load_file(path)


def _read_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _read_h5(path: Path) -> Arrays:
    """Keras's files: <layer>/<layer>/<weight>:0, below model_weights where the whole model was saved."""
    import h5py

    found: Arrays = {}

    def visit(name: str, item: object) -> None:
        parts = name.split("/")
        if isinstance(item, h5py.Dataset) and len(parts) > 1 and parts[0] not in ("optimizer_weights", "_metadata"):
            found[f"{parts[-2]}/{parts[-1].partition(':')[0]}"] = np.asarray(item)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def _read_torch(path: Path) -> Arrays:
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state.get("model", state))
    return {name.removeprefix("module."): tensor.float().numpy() for name, tensor in state.items()}
