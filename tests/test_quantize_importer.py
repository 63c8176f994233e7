"""Networks that were trained elsewhere, against the libraries' own arithmetic."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from tensorflow import keras

from quantize import checkpoint, float_network
from quantize.__main__ import main
from quantize.importer import read_resnet

SEED = 71
SIZE, WIDTH, STAGES, CLASSES = 32, 4, (2, 1), 3


def norm(rng, prefix, channels):
    return {
        f"{prefix}.weight": rng.uniform(0.5, 1.5, channels),
        f"{prefix}.bias": rng.normal(0, 0.3, channels),
        f"{prefix}.running_mean": rng.normal(0, 0.3, channels),
        f"{prefix}.running_var": rng.uniform(0.5, 2, channels),
        f"{prefix}.num_batches_tracked": np.array(7),
    }


def torchvision_arrays():
    """A random ResNet in torchvision's layout, [filters, inputs, height, width]."""
    rng = np.random.default_rng(SEED)

    def conv(name, filters, inputs, kernel):
        return {f"{name}.weight": rng.normal(0, np.sqrt(2 / (inputs * kernel**2)), (filters, inputs, kernel, kernel))}

    arrays = conv("conv1", WIDTH, 3, 7) | norm(rng, "bn1", WIDTH)
    inputs = WIDTH
    for stage, blocks in enumerate(STAGES):
        middle = WIDTH * 2**stage
        for block in range(blocks):
            prefix = f"layer{stage + 1}.{block}"
            for k, (filters, source, kernel) in enumerate(
                ((middle, inputs, 1), (middle, middle, 3), (4 * middle, middle, 1)), 1
            ):
                arrays |= conv(f"{prefix}.conv{k}", filters, source, kernel) | norm(rng, f"{prefix}.bn{k}", filters)
            if not block:
                arrays |= conv(f"{prefix}.downsample.0", 4 * middle, inputs, 1) | norm(
                    rng, f"{prefix}.downsample.1", 4 * middle
                )
            inputs = 4 * middle
    arrays |= {"fc.weight": rng.normal(0, 1, (CLASSES, inputs)), "fc.bias": rng.normal(0, 1, CLASSES)}
    return {
        name: np.asarray(value, np.int64 if "num_batches" in name else np.float32) for name, value in arrays.items()
    }


def torchvision_features(a, x):
    """torchvision's Bottleneck network on x [channels, rows, columns], in float64: stride on the 3x3, epsilon 1e-5."""

    def conv(x, name, stride=1):
        w = a[f"{name}.weight"].astype(np.float64)
        x = np.pad(x, ((0, 0), *((w.shape[2] // 2,) * 2,) * 2))
        windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
        return np.einsum("irckl,oikl->orc", windows, w)

    def bn(x, name):
        g, b, m, v = (
            a[f"{name}.{part}"].astype(np.float64)[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - m) / np.sqrt(v + 1e-5) * g + b

    def relu(x):
        return np.maximum(x, 0)

    x = relu(bn(conv(x, "conv1", 2), "bn1"))
    x = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), axis=(1, 2))[
        :, ::2, ::2
    ].max(axis=(3, 4))
    for stage, blocks in enumerate(STAGES):
        for block in range(blocks):
            p, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            y = relu(bn(conv(x, f"{p}.conv1"), f"{p}.bn1"))
            y = relu(bn(conv(y, f"{p}.conv2", stride), f"{p}.bn2"))
            y = bn(conv(y, f"{p}.conv3"), f"{p}.bn3")
            x = relu(y + (x if block else bn(conv(x, f"{p}.downsample.0", stride), f"{p}.downsample.1")))
    return x.mean(axis=(1, 2))


@pytest.fixture(scope="module")
def arrays():
    return torchvision_arrays()


def write(arrays, path):
    """Write a checkpoint the way its suffix is usual; .pth as data-parallel training saves it."""
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    {
        ".safetensors": lambda: save_file(arrays, path),
        ".npz": lambda: np.savez(path, **arrays),
        ".pt": lambda: torch.save(tensors, path),
        ".pth": lambda: torch.save(
            {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tensors.items()}}, path
        ),
    }[path.suffix]()


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pt", "pth"])
def test_a_torchvision_network_computes_the_same_features_and_classes(arrays, tmp_path, suffix):
    path = tmp_path / f"net.{suffix}"
    write(arrays, path)
    assert (
        main(["import", "--weights", f"{path}", "--out", f"{tmp_path}/float.npz", "--size", "32", "--pixels", "unit"])
        == 0
    )
    network = float_network.load(tmp_path / "float.npz")
    assert (network.config.stages, network.config.width, network.config.version) == (STAGES, WIDTH, "v1.5")
    images = np.random.default_rng(SEED).random((2, SIZE, SIZE, 3)).astype(np.float32)
    features = network.to_keras()(images).numpy()
    expected = np.stack([torchvision_features(arrays, image.transpose(2, 0, 1).astype(np.float64)) for image in images])
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5, err_msg=f"seed {SEED}")
    logits = expected @ arrays["fc.weight"].T + arrays["fc.bias"]
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(network.classifier.probabilities(features), softmax, rtol=1e-3, atol=1e-6)


def test_a_keras_network_computes_the_same_features_and_classes(tmp_path):
    # keras.applications' own code, with fewer blocks, and its own file of weights.
    from keras.src.applications.resnet import ResNet, stack1

    def stages(x):
        return stack1(stack1(x, 64, 2, stride1=1, name="conv2"), 128, 1, name="conv3")

    model = ResNet(stages, False, True, weights=None, input_shape=(SIZE, SIZE, 3), classes=CLASSES)
    rng = np.random.default_rng(SEED)
    for layer in model.layers:
        # He-normal kernels; biases and statistics that matter
        layer.set_weights(
            [
                rng.normal(0, np.sqrt(2 / np.prod(w.shape[:-1])), w.shape)
                if w.ndim == 4
                else w + 0.2 * rng.random(w.shape)
                for w in layer.get_weights()
            ]
        )
    model.save_weights(tmp_path / "resnet.h5")
    network = read_resnet(tmp_path / "resnet.h5", SIZE, "unit")
    assert (network.config.stages, network.config.width, network.config.version) == ((2, 1), 64, "v1")
    images = rng.random((2, SIZE, SIZE, 3)).astype(np.float32)
    features = network.to_keras()(images).numpy()
    expected = keras.Model(model.input, model.get_layer("avg_pool").output)(images, training=False).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4, err_msg=f"seed {SEED}")
    probabilities = model(images, training=False).numpy()
    np.testing.assert_allclose(network.classifier.probabilities(features), probabilities, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize(("pixels", "scale"), [("torchvision", 1e-5), ("caffe", 1e-3)])
def test_what_the_library_does_to_pixels_is_folded_away_from_the_border(arrays, tmp_path, pixels, scale):
    np.savez(tmp_path / "net.npz", **arrays)
    plain, seen = (read_resnet(tmp_path / "net.npz", SIZE, kind).weights["stem"] for kind in ("unit", pixels))
    patch = np.random.default_rng(SEED).integers(0, 256, (7, 7, 3))
    if pixels == "caffe":
        prepared = keras.applications.resnet.preprocess_input(patch[None].astype(np.float32))[0]
    else:
        prepared = (patch / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = np.einsum("hwi,hwio->o", prepared, plain.kernel) + plain.bias
    got = np.einsum("hwi,hwio->o", patch / 256, seen.kernel) + seen.bias
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=scale)


def without(arrays, *fragments):
    return {name: value for name, value in arrays.items() if not any(f in name for f in fragments)}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda a: without(a, "conv1.weight"), "neither conv1.weight nor conv1_conv/kernel"),
        (lambda a: without(a, "conv3", "bn3", "downsample"), "two convolutions, as those of ResNet-18"),
        (lambda a: without(a, "layer"), "no residual blocks"),
        (lambda a: without(a, "layer1.0.bn2.running_var"), "it has no layer1.0.bn2.running_var"),
        (lambda a: a | {"layer1.0.conv2.weight": a["layer1.0.conv2.weight"][:, :1]}, r"\[3, 3, 1, 4\].*\[3, 3, 4, 4\]"),
        (lambda a: a | {"layer1.0.se.fc1.weight": np.ones(3)}, "it also has layer1.0.se.fc1.weight"),
        (lambda a: a | {"fc.weight": a["fc.weight"][:, :5]}, "for 32 features"),
        (lambda a: a | {"bn1.bias": a["bn1.bias"] * np.nan}, "the weights of conv1 hold a NaN"),
    ],
)
def test_other_architectures_are_refused_in_one_sentence(arrays, tmp_path, capfd, change, complaint):
    np.savez(tmp_path / "net.npz", **change(arrays))
    with pytest.raises(ValueError, match=complaint) as caught:
        read_resnet(tmp_path / "net.npz", SIZE)
    assert "\n" not in str(caught.value)
    assert main(["import", "--weights", f"{tmp_path}/net.npz", "--out", f"{tmp_path}/float.npz", "--size", "32"]) == 1
    assert capfd.readouterr().err.count("error: ") == 1 and not (tmp_path / "float.npz").exists()


def test_files_that_are_no_checkpoints_are_named(arrays, tmp_path):
    save_file(arrays, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    write(arrays, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:1000])
    (tmp_path / "pickled.pt").write_bytes(pickle.dumps(Path(tmp_path)))  # weights only: nothing in a file is executed
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    for name in ("cut.safetensors", "cut.h5", "cut.pt", "pickled.pt", "list.pt"):
        with pytest.raises(ValueError, match=f"{name} is not a whole"):
            read_resnet(tmp_path / name)
    with pytest.raises(ValueError, match=r"ends in one of \.safetensors"):
        read_resnet(tmp_path / "net.bin")
    with pytest.raises(FileNotFoundError):
        read_resnet(tmp_path / "none.h5")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(SEED)
    for label in "abc":
        (folder / label).mkdir()
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (40 + 9 * i, 50, 3), dtype=np.uint8)).save(folder / label / f"{i}.png")
    return folder


def test_imagenet_weights_are_imported_quantised_and_evaluated(arrays, pictures, tmp_path, capfd):
    save_file(arrays, tmp_path / "net.safetensors")
    command = ["imagenet", "--weights", f"{tmp_path}/net.safetensors", "--size", "32", "--out", f"{tmp_path}/net.npz"]
    command += ["--calibration", f"{pictures}", "--evaluation", f"{pictures}"]
    assert main(command) == 0, capfd.readouterr().err
    printed = capfd.readouterr().out
    assert "float: top-1" in printed and "quantised: top-1" in printed and "top-5 1.0000" in printed  # of three classes
    made = checkpoint.load(tmp_path / "net.npz")
    assert made.classifier.w2.shape == (32, CLASSES) and made.network.kernels["stem"].dtype == np.int8

    (tmp_path / "names.txt").write_text("a\nb\n")
    assert main([*command, "--classes", f"{tmp_path}/names.txt", "--out", f"{tmp_path}/other.npz"]) == 1
    assert "2 class names do not fit 3 outputs" in capfd.readouterr().err
    (tmp_path / "few" / "a").mkdir(parents=True)
    (tmp_path / "few" / "a" / "x.png").write_text("no picture")
    assert main([*command[:-1], f"{tmp_path}/few", "--out", f"{tmp_path}/other.npz"]) == 1
    assert "give the names of all classes" in capfd.readouterr().err
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    assert (
        main([*command[:-1], f"{tmp_path}/few", "--classes", f"{tmp_path}/names.txt", "--out", f"{tmp_path}/o.npz"])
        == 1
    )
    assert "x.png is not a whole picture" in capfd.readouterr().err and not (tmp_path / "o.npz").exists()
