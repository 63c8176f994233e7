"""A report of Vitis HLS, and the Tcl interpreter in which its scripts are tried."""

from __future__ import annotations

import shutil

TCLSH = shutil.which("tclsh") or "tclsh"

# In the format of Vitis HLS 2024.2 (tsopeter/753-FPGA on GitHub); figures of a test.
REPORT = """<profile>

<ReportVersion>
<Version>2024.2</Version>
</ReportVersion>

<UserAssignments>
<unit>ns</unit>
<ProductFamily>virtexuplus</ProductFamily>
<Part>xcu250-figd2104-2L-e</Part>
<TopModelName>{name}</TopModelName>
<TargetClockPeriod>5.00</TargetClockPeriod>
<ClockUncertainty>1.35</ClockUncertainty>
<FlowTarget>vivado</FlowTarget>
</UserAssignments>

<PerformanceEstimates>
<PipelineType>no</PipelineType>
<SummaryOfTimingAnalysis>
<unit>ns</unit>
<EstimatedClockPeriod>{clock}</EstimatedClockPeriod>
</SummaryOfTimingAnalysis>
<SummaryOfOverallLatency>
<unit>clock cycles</unit>
<Best-caseLatency>{least}</Best-caseLatency>
<Average-caseLatency>{least}</Average-caseLatency>
<Worst-caseLatency>{cycles}</Worst-caseLatency>
<Best-caseRealTimeLatency>0.108 ms</Best-caseRealTimeLatency>
<Average-caseRealTimeLatency>0.567 ms</Average-caseRealTimeLatency>
<Worst-caseRealTimeLatency>1.485 ms</Worst-caseRealTimeLatency>
<Interval-min>{least}</Interval-min>
<Interval-max>{cycles}</Interval-max>
</SummaryOfOverallLatency>
</PerformanceEstimates>

<AreaEstimates>
<Resources>
<BRAM_18K>3</BRAM_18K>
<DSP>{dsp}</DSP>
<FF>1738</FF>
<LUT>2496</LUT>
<URAM>0</URAM>
</Resources>
<AvailableResources>
<BRAM_18K>5376</BRAM_18K>
<DSP>12288</DSP>
<FF>3456000</FF>
<LUT>1728000</LUT>
<URAM>1280</URAM>
</AvailableResources>
</AreaEstimates>

</profile>
"""


def report(name: str, cycles: int, dsp: int, clock: str = "3.608") -> str:
    """csynth.xml of a function."""
    return REPORT.format(name=name, cycles=cycles, least=cycles // 4, dsp=dsp, clock=clock)
