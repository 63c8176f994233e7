"""Reading Vivado's utilisation and timing reports (samples in the vendor's format: vendor_reports)."""

import pytest
from vendor_reports import UTILISATION_7SERIES, UTILISATION_ULTRASCALE, timing_summary

from hw.synth.report import Utilisation
from hw.synth.vendor_report import ReportError, parse_timing, parse_utilisation


def test_the_utilisation_of_an_ultrascale_device():
    used, part = parse_utilisation(UTILISATION_ULTRASCALE)
    assert used == Utilisation(lut=61234, ff=98765, dsp=1024, block_ram=37.5, ultra_ram=64, lut_ram=4112)
    assert part == Utilisation(lut=230400, ff=460800, dsp=1728, block_ram=312, ultra_ram=96, lut_ram=101760)


def test_the_utilisation_of_a_7_series_device_which_has_no_ultra_ram():
    used, part = parse_utilisation(UTILISATION_7SERIES)
    assert used == Utilisation(lut=20100, ff=31000, dsp=128, block_ram=124, ultra_ram=0, lut_ram=1100)
    assert part == Utilisation(lut=53200, ff=106400, dsp=220, block_ram=140, ultra_ram=0, lut_ram=17400)


@pytest.mark.parametrize("site", ["CLB LUTs", "CLB Registers", "DSPs  ", "Block RAM Tile", "LUT as Memory"])
def test_a_report_that_lacks_a_line_is_refused(site: str):
    with pytest.raises(ReportError, match=site.strip()):
        parse_utilisation(
            UTILISATION_ULTRASCALE.replace(f"| {site}", "| something").replace(f"  {site}", "  something")
        )


def test_the_timing_summary_and_its_slowest_setup_path():
    timing = parse_timing(timing_summary("0.123"))
    assert (timing.setup_slack, timing.failing, timing.hold_slack, timing.pulse_width_slack) == (0.123, 0, 0.011, 0.5)
    assert timing.slowest_path[0] == "Source: npu_system_i/npu/inst/u_npu/u_loader/state_reg/C"
    assert timing.slowest_path[-1] == "Logic Levels: 7  (CARRY8=3 LUT6=4)"


@pytest.mark.parametrize(
    ("slack", "megahertz"), [("0.000", 300.0), ("-0.333333333333", 272.727), ("0.833333333333", 400.0)]
)
def test_the_slack_says_which_clock_would_do(slack: str, megahertz: float):
    assert parse_timing(timing_summary(slack)).fmax(300.0) == pytest.approx(megahertz, rel=1e-5)


def test_no_slack_at_all_is_enough():
    assert parse_timing(timing_summary("0.000")).fmax(300.0) >= 300.0


def test_a_report_without_a_clock_is_refused():
    with pytest.raises(ReportError, match="no clock reaches the design"):
        parse_timing(timing_summary("NA"))


def test_a_report_without_a_summary_is_refused():
    with pytest.raises(ReportError, match="no design timing summary"):
        parse_timing("Command: report_timing_summary\n")


def test_a_summary_cut_short_is_refused():
    text = timing_summary()
    with pytest.raises(ReportError, match="no design timing summary"):
        parse_timing(text[: text.index("    -------")])
    with pytest.raises(ReportError, match="11 figures instead of 12"):
        parse_timing(text.replace("99000", ""))
