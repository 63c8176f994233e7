# Block design of a network whose parts Vitis HLS has packaged: parts in a chain, AXI DMA at both ends, processing system; bitstream.
#
#   vivado -mode batch -source stitch.tcl -tclargs parameters.tcl
#
# parameters.tcl, written by hls/vitis/stitch.py, sets the dictionary p. The working folder receives network.bit, utilisation.rpt, timing.rpt and
# the hardware handoff, under the names that PYNQ's Overlay wants. Not run with the real Vivado here; tested as hw/synth/tcl is.

source [lindex $argv 0]
source [dict get $p processing_system]

# What the progress bar shows; the names stand in hls/vitis/stitch.py too.
proc step {name} {
  puts "quarkwave step: $name"
}

# Wire all pins of $pins to the net that starts at $source.
proc fan_out {source pins} {
  foreach pin $pins {
    connect_bd_net [get_bd_pins $source] [get_bd_pins $pin]
  }
}

# Connect two stream or memory interfaces.
proc join_interfaces {from to} {
  connect_bd_intf_net [get_bd_intf_pins $from] [get_bd_intf_pins $to]
}

step "block design"
set board [get_board_parts -quiet -latest_file_version [dict get $p board_part]:*]
if {[llength $board] == 0} {
  error "Vivado has no board files for [dict get $p board_part]: install them (Tools > Vivado Store > Boards, or xhub::install)"
}
create_project -force network [pwd]/network -part [dict get $p part]
set_property board_part [lindex $board end] [current_project]
set_property ip_repo_paths [dict get $p repositories] [current_project]
update_ip_catalog

create_bd_design network_system
set port [dict get $p memory_port]
set ps [processing_system [dict get $p family] [dict get $p clock_mhz] [dict get $p data_bits] [list $port]]
create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset reset
set clocks [list reset/slowest_sync_clk [dict get $ps control_clock] [dict get $ps memory_clock($port)]]
set interconnect_resets {}
set resets {}

# The DMA: simple mode, 32 bits, both directions.
create_bd_cell -type ip -vlnv xilinx.com:ip:axi_dma dma
set_property -dict [list CONFIG.c_include_sg 0 CONFIG.c_sg_include_stscntrl_strm 0 CONFIG.c_sg_length_width 26 \
  CONFIG.c_m_axi_mm2s_data_width 32 CONFIG.c_m_axis_mm2s_tdata_width 32 \
  CONFIG.c_m_axi_s2mm_data_width 32 CONFIG.c_s_axis_s2mm_tdata_width 32] [get_bd_cells dma]
lappend clocks dma/s_axi_lite_aclk dma/m_axi_mm2s_aclk dma/m_axi_s2mm_aclk
lappend resets dma/axi_resetn

create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect control
set_property -dict [list CONFIG.NUM_SI 1 CONFIG.NUM_MI 1 CONFIG.NUM_CLKS 1] [get_bd_cells control]
join_interfaces [dict get $ps control] control/S00_AXI
join_interfaces control/M00_AXI dma/S_AXI_LITE
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect memory
set_property -dict [list CONFIG.NUM_SI 2 CONFIG.NUM_MI 1 CONFIG.NUM_CLKS 1] [get_bd_cells memory]
join_interfaces dma/M_AXI_MM2S memory/S00_AXI
join_interfaces dma/M_AXI_S2MM memory/S01_AXI
join_interfaces memory/M00_AXI ps/$port
lappend clocks control/aclk memory/aclk
lappend interconnect_resets control/aresetn memory/aresetn

# The network between the DMA's streams: its parts have no control signals, each starts its next image when it has done one.
set before dma/M_AXIS_MM2S
foreach part [dict get $p parts] {
  lassign $part name input output
  create_bd_cell -type ip -vlnv xilinx.com:hls:$name:1.0 $name
  lappend clocks $name/ap_clk
  lappend resets $name/ap_rst_n
  join_interfaces $before $name/$input
  set before $name/$output
}
join_interfaces $before dma/S_AXIS_S2MM

# Both interrupts of the DMA.
create_bd_cell -type ip -vlnv xilinx.com:ip:xlconcat interrupts
set_property -dict [list CONFIG.NUM_PORTS 2] [get_bd_cells interrupts]
fan_out dma/mm2s_introut interrupts/In0
fan_out dma/s2mm_introut interrupts/In1
fan_out interrupts/dout [dict get $ps interrupt]

# One clock for everything, and its reset.
fan_out [dict get $ps clock] $clocks
fan_out [dict get $ps reset] reset/ext_reset_in
fan_out reset/interconnect_aresetn $interconnect_resets
fan_out reset/peripheral_aresetn $resets

assign_bd_address -offset [format 0x%X [dict get $ps base]] -range 0x10000 \
  -target_address_space [get_bd_addr_spaces [dict get $ps address_space]] [get_bd_addr_segs dma/S_AXI_LITE/Reg]
assign_bd_address
validate_bd_design
save_bd_design

set design [get_files network_system.bd]
generate_target all $design
add_files -norecurse -fileset sources_1 [make_wrapper -files $design -top]
set_property top network_system_wrapper [get_filesets sources_1]
update_compile_order -fileset sources_1

step "synthesis"
synth_design -top network_system_wrapper -part [dict get $p part]
step "logic optimisation"
opt_design -directive Explore
step "placement"
place_design -directive Explore
step "physical optimisation"
phys_opt_design -directive AggressiveExplore
step "routing"
route_design -directive AggressiveExplore

step "reports"
report_utilization -file utilisation.rpt
report_timing_summary -max_paths 10 -report_unconstrained -file timing.rpt

step "bitstream"
write_bitstream -force network.bit
