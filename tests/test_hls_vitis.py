"""hls4ml's C simulation as a witness: it computes the golden model's integers."""

from pathlib import Path

import pytest

from hls.compare import run
from hls.vitis.patches import ASSERTION, POOLING, PatchError, allow_overlapping_pools
from quantize import checkpoint
from quantize.resnet import ResNetConfig

HEADER = f"""void compute_pool_buffer_2d() {{
    {ASSERTION}
}}

void pooling2d_cl(int x) {{
    {ASSERTION}
    work();
}}

void global_pooling2d_cl(int x) {{
    {ASSERTION}
}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    header = tmp_path / POOLING
    header.parent.mkdir(parents=True)
    header.write_text(HEADER)
    return tmp_path


def test_an_average_over_9_pixels_which_hls4ml_truncates_still_gives_the_exact_sums(tmp_path: Path):
    model = checkpoint.to_keras(checkpoint.random_quantised(ResNetConfig((1,), 4, 12), seed=3))
    assert run(model, tmp_path, images=4).equal


def test_the_patch_lifts_the_assertion_of_the_plain_pool_only(project: Path):
    allow_overlapping_pools(project)
    text = (project / POOLING).read_text()
    assert text.count(ASSERTION) == 2 and "work();" in text
    pool = text[text.index("void pooling2d_cl") : text.index("void global_pooling2d_cl")]
    assert ASSERTION not in pool


def test_patching_twice_changes_nothing(project: Path):
    allow_overlapping_pools(project)
    once = (project / POOLING).read_text()
    allow_overlapping_pools(project)
    assert (project / POOLING).read_text() == once


def test_another_version_of_hls4ml_is_noticed(project: Path):
    (project / POOLING).write_text(
        HEADER.replace("assert(CONFIG_T::pool_height", "assert(true || CONFIG_T::pool_height")
    )
    with pytest.raises(PatchError, match=r"does not hold the assertion.*hls4ml 1\.3\.0"):
        allow_overlapping_pools(project)
