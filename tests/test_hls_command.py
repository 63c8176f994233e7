"""python -m hls: show and compile."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from random_networks import featurizer

from hls.npu.listing import ideal_cycles, listing
from hw.isa import LayerDescriptor, load_config
from hw.program import Program, ProgramError
from quantize import checkpoint
from quantize.resnet import ResNetConfig

SIM_SMALL = load_config("sim-small")


def hls(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "hls", *map(str, arguments)], capture_output=True, text=True)


def test_show_lists_every_layer_and_the_totals(tmp_path: Path):
    program = featurizer(1)
    program.save(tmp_path / "net.npu")
    done = hls("show", tmp_path / "net.npu")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "random-1: 3 layers for sim-small (16 x 16 = 256 MACs)"
    table = lines[lines.index("") + 1 :]
    assert table[0].split()[:4] == ["layer", "kernel", "input", "output"]
    assert [line.split()[0] for line in table[1:4]] == list(program.layer_names)
    assert re.search(r"last +1x1/1 +6x6x24 +1x1x24 +sum +stem ", done.stdout)
    assert f"{program.macs:,} MAC" in done.stdout and f"stream  {len(program.stream):,} bytes" in done.stdout


def test_show_needs_neither_tensorflow_nor_hls4ml(tmp_path: Path):
    featurizer(1).save(tmp_path / "net.npu")
    code = (
        f"import sys; sys.argv = ['hls', 'show', {str(tmp_path / 'net.npu')!r}]; from hls.__main__ import main; main(); "
        "assert not {'tensorflow', 'hls4ml', 'qkeras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_compile_turns_a_checkpoint_into_a_program(tmp_path: Path):
    network = checkpoint.random_quantised(ResNetConfig((1,), 4, 16), seed=1)
    checkpoint.save(tmp_path / "net.npz", checkpoint.Checkpoint(network, None, {"seed": 1}))
    done = hls(
        "compile", "--checkpoint", tmp_path / "net.npz", "--board", "zcu104", "--out", tmp_path / "deep" / "net.npu"
    )
    assert done.returncode == 0, done.stderr
    program = Program.load(tmp_path / "deep" / "net.npu")
    assert (program.name, program.config.name, len(program.layer_names)) == ("net", "zcu104", 5)
    assert program.metadata["provenance"] == {"seed": 1}
    assert "written to" in done.stdout


def test_patches_are_printed_as_a_diff():
    done = hls("patches")
    assert done.returncode == 0, done.stderr
    assert "--- a/hls4ml/templates/vitis/nnet_utils/nnet_pooling_stream.h\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "missing.npu"], "missing.npu"),
        (["show", "pyproject.toml"], "pyproject.toml is not an NPU program"),
        (["compile", "--checkpoint", "missing.npz", "--out", "x.npu"], "no trained network at missing.npz"),
        (["compile", "--checkpoint", "missing.npz", "--out", "x.bin"], "x.bin should end in .npu"),
        (
            ["compile", "--checkpoint", "missing.npz", "--board", "spartan", "--out", "x.npu"],
            "no board named 'spartan'",
        ),
        (["csim", "--checkpoint", "missing.npz", "--projects", "tests"], "no HLS projects in tests"),
    ],
    ids=["no file", "no program", "no checkpoint", "wrong ending", "no board", "no projects"],
)
def test_bad_input_ends_in_one_clear_line(arguments: list[str], message: str):
    done = hls(*arguments)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [[], ["show"], ["compile"], ["vitis"], ["synth"], ["csim"], ["patches"]], ids=str)
def test_every_command_has_help(command: list[str]):
    done = hls(*command, "--help")
    assert done.returncode == 0 and "usage: python -m hls" in done.stdout


def test_ideal_cycles_are_pixels_times_passes_where_weights_keep_up():
    d = LayerDescriptor(
        kernel_h=3, kernel_w=3, in_blocks=2, out_blocks=4, out_width=10, out_height=25, tile_rows=13, tiles=2
    )
    assert ideal_cycles(d, SIM_SMALL) == 4 * 18 * 250  # 130 and 120 pixels a pass, 16 stream words


def test_ideal_cycles_are_stream_words_where_weights_are_the_bottleneck():
    d = LayerDescriptor(
        kernel_h=1, kernel_w=1, in_blocks=8, out_blocks=3, out_width=2, out_height=2, tile_rows=2, tiles=1
    )
    assert ideal_cycles(d, SIM_SMALL) == 3 * (8 * 16 + 8)  # 16 words a weight tile, 8 of parameters a block


def test_an_exclusive_drain_costs_its_pixels_again():
    d = LayerDescriptor(
        kernel_h=3, kernel_w=3, in_blocks=1, out_blocks=1, out_width=20, out_height=20, tile_rows=20, tiles=1
    )
    assert ideal_cycles(replace(d, exclusive_drain=1), SIM_SMALL) == ideal_cycles(d, SIM_SMALL) + 400


def test_a_program_without_a_report_cannot_be_listed():
    with pytest.raises(ProgramError, match="has no placement report for its 3 layers: compile it again"):
        listing(replace(featurizer(1), metadata={}))
