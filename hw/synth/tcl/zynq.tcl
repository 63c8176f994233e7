# Bitstream of a Zynq board: IP, block design, synthesis, implementation, reports.
#
#   vivado -mode batch -source zynq.tcl -tclargs parameters.tcl
#
# One script for every board. parameters.tcl, written by hw/synth/vivado.py from hw/boards/<board>.toml, sets the dictionary p. The working
# folder receives npu.bit, utilisation.rpt, timing.rpt and the block design's hardware handoff.

set here [file dirname [file normalize [info script]]]
source $here/package_ip.tcl
source $here/processing_system.tcl
source [lindex $argv 0]

# What the progress bar shows; the names stand in hw/synth/vivado.py too.
proc step {name} {
  puts "quarkwave step: $name"
}

# Wire all pins of $pins to the net that starts at $source.
proc fan_out {source pins} {
  foreach pin $pins {
    connect_bd_net [get_bd_pins $source] [get_bd_pins $pin]
  }
}

step "package"
set ip [package_npu $p [pwd]/package]

step "block design"
set mhz [dict get $p clock_mhz]
set board [get_board_parts -quiet -latest_file_version [dict get $p board_part]:*]
if {[llength $board] == 0} {
  error "Vivado has no board files for [dict get $p board_part]: install them (Tools > Vivado Store > Boards, or xhub::install)"
}
create_project -force npu [pwd]/npu -part [dict get $p part]
set_property board_part [lindex $board end] [current_project]
set_property ip_repo_paths [list $ip] [current_project]
update_ip_catalog

create_bd_design npu_system
set masters [dict get $p masters]
set memory_ports [dict get $p memory_ports]
set distinct_ports [lsort -unique $memory_ports]
set ps [processing_system [dict get $p family] $mhz [dict get $p data_bits] $distinct_ports]
set npus [dict get $p npus]
set several [expr {[llength $npus] > 1}]
foreach npu $npus {
  create_bd_cell -type ip -vlnv [dict get $p vlnv] $npu
}
create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset reset

# Registers: processing system -> SmartConnect -> each NPU, and the interrupt controller where there are several.
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect control
set_property -dict [list CONFIG.NUM_SI 1 CONFIG.NUM_MI [expr {[llength $npus] + $several}] CONFIG.NUM_CLKS 1] [get_bd_cells control]
connect_bd_intf_net [get_bd_intf_pins [dict get $ps control]] [get_bd_intf_pins control/S00_AXI]
set clocks [list reset/slowest_sync_clk control/aclk [dict get $ps control_clock]]
set resets [list control/aresetn]
set npu_resets {}
set number 0
foreach npu $npus {
  connect_bd_intf_net [get_bd_intf_pins control/[format M%02d_AXI $number]] [get_bd_intf_pins $npu/[dict get $p register_interface]]
  lappend clocks $npu/[dict get $p clock]
  lappend npu_resets $npu/[dict get $p reset]
  incr number
}

# Memory: one SmartConnect for each port of the processing system, with the masters that the board file gives it, of every NPU.
foreach port $distinct_ports {
  set members {}
  foreach npu $npus {
    foreach master $masters memory_port $memory_ports {
      if {$memory_port eq $port} {
        lappend members $npu/$master
      }
    }
  }
  set connect memory_$port
  create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect $connect
  set_property -dict [list CONFIG.NUM_SI [llength $members] CONFIG.NUM_MI 1 CONFIG.NUM_CLKS 1] [get_bd_cells $connect]
  set number 0
  foreach member $members {
    connect_bd_intf_net [get_bd_intf_pins $member] [get_bd_intf_pins $connect/[format S%02d_AXI $number]]
    incr number
  }
  connect_bd_intf_net [get_bd_intf_pins $connect/M00_AXI] [get_bd_intf_pins ps/$port]
  lappend clocks $connect/aclk [dict get $ps memory_clock($port)]
  lappend resets $connect/aresetn
}

# PYNQ wants a single interrupt on the first line: that of the NPU, or of a controller where there are several.
if {$several} {
  set lines [dict get $p interrupt_lines]
  set controller [dict get $p controller]
  create_bd_cell -type ip -vlnv xilinx.com:ip:xlconcat $lines
  set_property -dict [list CONFIG.NUM_PORTS [llength $npus]] [get_bd_cells $lines]
  create_bd_cell -type ip -vlnv xilinx.com:ip:axi_intc $controller
  set_property -dict [list CONFIG.C_IRQ_CONNECTION 1] [get_bd_cells $controller]
  connect_bd_intf_net [get_bd_intf_pins control/[format M%02d_AXI [llength $npus]]] [get_bd_intf_pins $controller/s_axi]
  set number 0
  foreach npu $npus {
    fan_out $npu/[dict get $p interrupt] $lines/In$number
    incr number
  }
  fan_out $lines/dout $controller/intr
  fan_out $controller/irq [dict get $ps interrupt]
  lappend clocks $controller/s_axi_aclk
  lappend resets $controller/s_axi_aresetn
} else {
  fan_out [lindex $npus 0]/[dict get $p interrupt] [dict get $ps interrupt]
}

# One clock for everything, and its reset.
fan_out [dict get $ps clock] $clocks
fan_out [dict get $ps reset] reset/ext_reset_in
fan_out reset/interconnect_aresetn $resets
fan_out reset/peripheral_aresetn $npu_resets

set space [get_bd_addr_spaces [dict get $ps address_space]]
set base [dict get $ps base]
foreach npu $npus {
  assign_bd_address -offset [format 0x%X $base] -range [dict get $p register_range] -target_address_space $space \
    [get_bd_addr_segs $npu/[dict get $p register_interface]/reg0]
  incr base [dict get $p register_stride]
}
if {$several} {
  assign_bd_address -offset [format 0x%X $base] -range [dict get $p register_stride] -target_address_space $space \
    [get_bd_addr_segs $controller/s_axi/Reg]
}
assign_bd_address
validate_bd_design
save_bd_design

set design [get_files npu_system.bd]
# Without checkpoints of its own, the block design is synthesised together with the NPU, in this process.
set_property synth_checkpoint_mode None $design
generate_target all $design
add_files -norecurse -fileset sources_1 [make_wrapper -files $design -top]
set_property top npu_system_wrapper [get_filesets sources_1]
add_files -norecurse -fileset constrs_1 [dict get $p constraints]
update_compile_order -fileset sources_1

step "synthesis"
synth_design -top npu_system_wrapper -part [dict get $p part]
write_checkpoint -force synthesised.dcp
step "logic optimisation"
opt_design -directive Explore
step "placement"
place_design -directive Explore
step "physical optimisation"
phys_opt_design -directive AggressiveExplore
step "routing"
route_design -directive AggressiveExplore
step "routed optimisation"
phys_opt_design -directive AggressiveExplore
write_checkpoint -force routed.dcp

step "reports"
report_utilization -file utilisation.rpt
report_utilization -hierarchical -file hierarchy.rpt
report_timing_summary -max_paths 10 -report_unconstrained -file timing.rpt
report_drc -file drc.rpt

step "bitstream"
write_bitstream -force npu.bit
