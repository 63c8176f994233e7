"""Logic depth: counted right on netlists made by hand, within the limit on the NPU, and the page shows today's figures."""

import pytest

from hw.synth import pipeline
from hw.synth.depth import Depth, depths, measure
from hw.synth.process import SynthesisError

DIRECTIONS = {"O": "output", "CO": "output", "Q": "output"}


def cell(kind, **pins):
    """A cell of yosys's JSON; pins are nets."""
    return {
        "type": kind,
        "port_directions": {name: DIRECTIONS.get(name, "input") for name in pins},
        "connections": {name: list(nets) if isinstance(nets, tuple) else [nets] for name, nets in pins.items()},
    }


def module(names, **cells):
    return {"cells": cells, "netnames": {name: {"bits": [net]} for name, net in names.items()}}


def flip_flop(d, q):
    return cell("FDRE", C=1, D=d, Q=q)


def test_look_up_tables_count_and_multiplexers_in_a_slice_do_not():
    found = depths(
        module(
            {"a_q": 10, "b_q": 20},
            start=flip_flop(99, 10),
            first=cell("LUT2", I0=10, I1=10, O=11),
            second=cell("LUT2", I0=11, I1=10, O=12),
            mux=cell("MUXF7", I0=12, I1=11, S=10, O=13),
            end=flip_flop(13, 20),
        )
    )
    assert found[0] == Depth(2, "a_q", "b_q")


def test_a_carry_chain_is_one_level_however_long():
    found = depths(
        module(
            {"a_q": 10, "sum_q": 20},
            start=flip_flop(99, 10),
            propagate=cell("LUT2", I0=10, I1=10, O=11),
            low=cell("CARRY4", CI="0", S=11, DI=10, CO=30),
            middle=cell("CARRY4", CI=30, S=11, DI=10, CO=31),
            high=cell("CARRY4", CI=31, S=11, DI=10, O=32),
            end=flip_flop(32, 20),
        )
    )
    assert found[0] == Depth(2, "a_q", "sum_q")


def test_the_bits_of_a_register_are_one():
    found = depths(
        module(
            {"a_q": 10, "b_q[0]": 20, "b_q[1]": 21},
            start=flip_flop(99, 10),
            table=cell("LUT1", I0=10, O=11),
            low=flip_flop(10, 20),
            high=flip_flop(11, 21),
        )
    )
    assert [d for d in found if d.end == "b_q[]"] == [Depth(1, "a_q", "b_q[]")]


def test_a_combinational_loop_is_an_error():
    with pytest.raises(SynthesisError, match="loop"):
        depths(
            module(
                {"around": 11},
                one=cell("LUT1", I0=11, O=12),
                two=cell("LUT1", I0=12, O=11),
                end=flip_flop(11, 20),
            )
        )


@pytest.fixture(scope="module")
def npu():
    """Slow (a minute and a half): yosys maps the whole NPU."""
    return measure()


def test_no_register_of_the_npu_has_too_much_logic_before_it(npu):
    assert not pipeline.too_deep(npu), pipeline.summary(npu)


def test_the_page_shows_todays_depths(npu):
    text = pipeline.PAGE.read_text()
    assert pipeline.page_with(pipeline.section(npu)) == text, "docs/pipeline.md is stale: make pipeline"


def test_a_register_with_too_much_logic_before_it_is_named():
    depths = [
        Depth(8, "a_q", "u_regs.u_csr.readback_data_rt"),
        Depth(8, "a_q", "u_control.state_q"),
        Depth(7, "a_q", "b_q"),
    ]
    assert pipeline.too_deep(depths) == [depths[1]]
