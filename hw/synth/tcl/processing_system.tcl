# The processing system of a Zynq: the one place where Zynq UltraScale+ and Zynq-7000 differ.
#
# Both answer with the same dictionary of pin names, so that zynq.tcl is the same for both:
#   clock, reset           what the programmable logic runs on
#   control, control_clock AXI master to the registers
#   interrupt              input for the NPU's interrupt
#   address_space, base    where the registers go
# and, for each memory port, memory_clock(port) with the name of its clock pin.

proc processing_system {family mhz bits ports} {
  switch -- $family {
    ultrascale+ { return [ultrascale_system $mhz $bits $ports] }
    7series { return [zynq7_system $mhz $bits $ports] }
    default { error "no Zynq is of family $family" }
  }
}

# Zynq UltraScale+ (PG201). S_AXI_HPn_FPD is called GP(n+2) in the block's configuration.
proc ultrascale_system {mhz bits ports} {
  set ps [create_bd_cell -type ip -vlnv xilinx.com:ip:zynq_ultra_ps_e ps]
  apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e -config {apply_board_preset 1} $ps
  set configuration [list \
    CONFIG.PSU__FPGA_PL0_ENABLE 1 \
    CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ $mhz \
    CONFIG.PSU__USE__M_AXI_GP0 1 \
    CONFIG.PSU__MAXIGP0__DATA_WIDTH 32 \
    CONFIG.PSU__USE__M_AXI_GP1 0 \
    CONFIG.PSU__USE__M_AXI_GP2 0 \
    CONFIG.PSU__USE__IRQ0 1]
  foreach port $ports {
    set number [expr {[memory_port_number $port {^S_AXI_HP([0-3])_FPD$}] + 2}]
    lappend configuration CONFIG.PSU__USE__S_AXI_GP$number 1 CONFIG.PSU__SAXIGP${number}__DATA_WIDTH $bits
  }
  set_property -dict $configuration $ps
  set answer [dict create clock ps/pl_clk0 reset ps/pl_resetn0 \
    control ps/M_AXI_HPM0_FPD control_clock ps/maxihpm0_fpd_aclk interrupt ps/pl_ps_irq0 \
    address_space ps/Data base 0xA0000000]
  foreach port $ports {
    set number [memory_port_number $port {^S_AXI_HP([0-3])_FPD$}]
    dict set answer memory_clock($port) ps/saxihp${number}_fpd_aclk
  }
  return $answer
}

# Zynq-7000 (PG082).
proc zynq7_system {mhz bits ports} {
  set ps [create_bd_cell -type ip -vlnv xilinx.com:ip:processing_system7 ps]
  apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 \
    -config {make_external "FIXED_IO, DDR" apply_board_preset 1 Master Disable Slave Disable} $ps
  set configuration [list \
    CONFIG.PCW_EN_CLK0_PORT 1 \
    CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ $mhz \
    CONFIG.PCW_USE_M_AXI_GP0 1 \
    CONFIG.PCW_USE_FABRIC_INTERRUPT 1 \
    CONFIG.PCW_IRQ_F2P_INTR 1]
  foreach port $ports {
    set number [memory_port_number $port {^S_AXI_HP([0-3])$}]
    lappend configuration CONFIG.PCW_USE_S_AXI_HP$number 1 CONFIG.PCW_S_AXI_HP${number}_DATA_WIDTH $bits
  }
  set_property -dict $configuration $ps
  set answer [dict create clock ps/FCLK_CLK0 reset ps/FCLK_RESET0_N \
    control ps/M_AXI_GP0 control_clock ps/M_AXI_GP0_ACLK interrupt ps/IRQ_F2P \
    address_space ps/Data base 0x43C00000]
  foreach port $ports {
    dict set answer memory_clock($port) ps/${port}_ACLK
  }
  return $answer
}

proc memory_port_number {port pattern} {
  if {![regexp $pattern $port match number]} {
    error "memory port $port: the processing system's ports look like $pattern"
  }
  return $number
}
