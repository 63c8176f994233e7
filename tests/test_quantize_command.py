"""The command line of quantize."""

import subprocess
import sys

import numpy as np

from quantize import dataset
from quantize.__main__ import main


def learnable_jets(count, seed):
    """Wide jets called top and narrow ones called QCD, as constituents."""
    rng = np.random.default_rng(seed)
    is_top = np.arange(count) % 2
    spread = np.where(is_top, 0.4, 0.1)[:, None]
    pt = np.sort(rng.exponential(10, (count, 40)), axis=1)[:, ::-1]
    eta, phi = spread * rng.standard_normal((2, count, 40))
    momenta = np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=-1)
    constituents = np.pad(momenta, ((0, 0), (0, 160), (0, 0))).astype(np.float32)
    return dataset.Jets(constituents, is_top, np.zeros((count, 4), np.float32))


def test_the_chain_runs_from_jets_to_a_tagger_and_does_not_repeat_itself(tmp_path, capfd):
    for seed, (split, count) in enumerate({"train": 256, "val": 64, "test": 128}.items()):
        dataset.write(tmp_path / "jets" / f"{split}.h5", learnable_jets(count, seed), split)
    network = ["--stages", "1", "1", "--width", "4", "--size", "16", "--hidden", "8", "--batch", "16"]
    command = ["demo-net", "--out", str(tmp_path), *network, "--float-epochs", "3", "--float-rate", "5e-3"]
    assert main(command) == 0
    printed = capfd.readouterr().out
    assert "finetuned: accuracy" in printed
    artefact = tmp_path / "network.npz"
    made = artefact.stat().st_mtime_ns
    assert main(command) == 0 and artefact.stat().st_mtime_ns == made

    pictures = tmp_path / "pictures"
    capfd.readouterr()
    evaluation = ["evaluate", "--network", str(artefact), "--jets", str(tmp_path / "jets" / "test.h5")]
    assert main([*evaluation, "--plots", str(pictures)]) == 0
    reached = capfd.readouterr().out.splitlines()[0]
    assert f"refit: {reached}" in printed
    assert float(reached.split("AUC ")[1].split()[0]) > 0.9
    assert {path.name for path in pictures.iterdir()} == {"roc.png", "mean_images.png"}

    assert main([*command, "--seed", "9"]) == 1
    assert "another plan" in capfd.readouterr().err


def test_errors_are_one_line_without_a_traceback(tmp_path, capfd):
    assert main(["evaluate", "--jets", str(tmp_path / "none.h5")]) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "python -m quantize jets" in lines[0]


COMMANDS = (
    "jets",
    "validate",
    "train",
    "calibrate",
    "finetune",
    "refit",
    "evaluate",
    "demo-net",
    "head",
    "import",
    "imagenet",
)


def test_every_command_explains_itself_without_loading_tensorflow():
    check = f"""
import sys
from quantize.__main__ import main
for arguments in (["--help"], *([name, "--help"] for name in {COMMANDS})):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 0
assert "tensorflow" not in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert all(f"python -m quantize {name}" in ran.stdout for name in COMMANDS)
