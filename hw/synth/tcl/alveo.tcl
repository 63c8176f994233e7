# The NPU as a Vitis kernel object: npu.xo in the working folder. v++ links it to the card's platform afterwards.
#
#   vivado -mode batch -source alveo.tcl -tclargs parameters.tcl
#
# parameters.tcl is written by hw/synth/vitis.py and sets the dictionary p.

set here [file dirname [file normalize [info script]]]
source $here/package_ip.tcl
source [lindex $argv 0]

puts "quarkwave step: package"
set ip [package_npu $p [pwd]/package]

puts "quarkwave step: kernel object"
package_xo -force -xo_path [pwd]/npu.xo -kernel_name [dict get $p ip_name] -ip_directory $ip -kernel_xml [dict get $p kernel_xml]
