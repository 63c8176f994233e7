"""Reports in Vivado's format, written for the tests after UG906: figures are made up, layout and wording are the vendor's."""

UTILISATION_ULTRASCALE = """\
Copyright 1986-2023 Xilinx, Inc. All Rights Reserved.
-----------------------------------------------------------------------------------------------------
| Tool Version : Vivado v.2023.2 (lin64)
| Device       : xczu7ev-ffvc1156-2-e
| Design State : Routed
-----------------------------------------------------------------------------------------------------

1. CLB Logic
------------

+----------------------------+-------+-------+------------+-----------+-------+
|          Site Type         |  Used | Fixed | Prohibited | Available | Util% |
+----------------------------+-------+-------+------------+-----------+-------+
| CLB LUTs                   | 61234 |     0 |          0 |    230400 | 26.58 |
|   LUT as Logic             | 57122 |     0 |          0 |    230400 | 24.79 |
|   LUT as Memory            |  4112 |     0 |          0 |    101760 |  4.04 |
|     LUT as Distributed RAM |  3000 |     0 |            |           |       |
| CLB Registers              | 98765 |     0 |          0 |    460800 | 21.43 |
+----------------------------+-------+-------+------------+-----------+-------+

3. BLOCKRAM
-----------

+-------------------+------+-------+------------+-----------+-------+
|     Site Type     | Used | Fixed | Prohibited | Available | Util% |
+-------------------+------+-------+------------+-----------+-------+
| Block RAM Tile    | 37.5 |     0 |          0 |       312 | 12.02 |
|   RAMB36/FIFO*    |   37 |     0 |          0 |       312 | 11.86 |
|   RAMB18          |    1 |     0 |          0 |       624 |  0.16 |
| URAM              |   64 |     0 |          0 |        96 | 66.67 |
+-------------------+------+-------+------------+-----------+-------+

4. ARITHMETIC
-------------

+----------------+------+-------+------------+-----------+-------+
|    Site Type   | Used | Fixed | Prohibited | Available | Util% |
+----------------+------+-------+------------+-----------+-------+
| DSPs           | 1024 |     0 |          0 |      1728 | 59.26 |
|   DSP48E2 only | 1024 |       |            |           |       |
+----------------+------+-------+------------+-----------+-------+
"""

UTILISATION_7SERIES = """\
1. Slice Logic
--------------

+----------------------------+-------+-------+-----------+-------+
|          Site Type         |  Used | Fixed | Available | Util% |
+----------------------------+-------+-------+-----------+-------+
| Slice LUTs*                | 20100 |     0 |     53200 | 37.78 |
|   LUT as Logic             | 19000 |     0 |     53200 | 35.71 |
|   LUT as Memory            |  1100 |     0 |     17400 |  6.32 |
| Slice Registers            | 31000 |     0 |    106400 | 29.14 |
+----------------------------+-------+-------+-----------+-------+

2. Memory
---------

+-------------------+------+-------+-----------+-------+
|     Site Type     | Used | Fixed | Available | Util% |
+-------------------+------+-------+-----------+-------+
| Block RAM Tile    |  124 |     0 |       140 | 88.57 |
+-------------------+------+-------+-----------+-------+

3. DSP
------

+----------------+------+-------+-----------+-------+
|    Site Type   | Used | Fixed | Available | Util% |
+----------------+------+-------+-----------+-------+
| DSPs           |  128 |     0 |       220 | 58.18 |
|   DSP48E1 only |  128 |       |           |       |
+----------------+------+-------+-----------+-------+
"""


def timing_summary(setup: str = "0.123", failing: int = 0, hold: str = "0.011", pulse_width: str = "0.500") -> str:
    """``report_timing_summary`` with these slacks in ns; the slowest path has the setup slack."""
    verdict = "VIOLATED" if setup.startswith("-") else "MET"
    return f"""\
| Design       : npu_system_wrapper
| Device       : xczu7ev-ffvc1156

------------------------------------------------------------------------------------------------
| Design Timing Summary
| ---------------------
------------------------------------------------------------------------------------------------

    WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints      WHS(ns)      THS(ns)  THS Failing Endpoints  THS Total Endpoints     WPWS(ns)     TPWS(ns)  TPWS Failing Endpoints  TPWS Total Endpoints  
    -------      -------  ---------------------  -------------------      -------      -------  ---------------------  -------------------     --------     --------  ----------------------  --------------------  
     {setup:>6}        0.000                 {failing:>6}               250000       {hold:>6}        0.000                      0               250000       {pulse_width:>6}        0.000                       0                 99000  


Max Delay Paths
--------------------------------------------------------------------------------------
Slack (MET) :             1.500ns  (required time - arrival time)
  Source:                 npu_system_i/npu/inst/u_npu/u_regs/fast_reg/C
                            (rising edge-triggered cell FDRE clocked by clk_pl_0  {{rise@0.000ns fall@1.667ns period=3.333ns}})
  Destination:            npu_system_i/npu/inst/u_npu/u_regs/other_reg/D
  Path Group:             clk_pl_0
  Path Type:              Setup (Max at Slow Process Corner)
  Requirement:            3.333ns  (clk_pl_0 rise@3.333ns - clk_pl_0 rise@0.000ns)
  Data Path Delay:        1.700ns  (logic 0.700ns (41.2%)  route 1.000ns (58.8%))
  Logic Levels:           2  (LUT3=1 LUT6=1)

Slack ({verdict}) :             {setup}ns  (required time - arrival time)
  Source:                 npu_system_i/npu/inst/u_npu/u_loader/state_reg/C
                            (rising edge-triggered cell FDRE clocked by clk_pl_0  {{rise@0.000ns fall@1.667ns period=3.333ns}})
  Destination:            npu_system_i/npu/inst/u_npu/u_datapath/busy_reg/D
  Path Group:             clk_pl_0
  Path Type:              Setup (Max at Slow Process Corner)
  Requirement:            3.333ns  (clk_pl_0 rise@3.333ns - clk_pl_0 rise@0.000ns)
  Data Path Delay:        3.200ns  (logic 1.200ns (37.5%)  route 2.000ns (62.5%))
  Logic Levels:           7  (CARRY8=3 LUT6=4)


Min Delay Paths
--------------------------------------------------------------------------------------
Slack (MET) :             -9.000ns  (arrival time - required time)
  Source:                 hold/C
  Path Type:              Hold (Min at Fast Process Corner)
"""  # noqa: E501
