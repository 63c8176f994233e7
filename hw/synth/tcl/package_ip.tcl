# The RTL and its generated wrapper as an IP for block designs and Vitis.
#
# Sourced by zynq.tcl and alveo.tcl. It knows nothing of a board: all figures come in the dictionary $p, which hw/synth/vivado.py writes.

# Package into $folder/ip and return that folder.
proc package_npu {p folder} {
  create_project -force package_npu $folder/project -part [dict get $p part]
  add_files -norecurse -fileset sources_1 [dict get $p sources]
  set_property top [dict get $p top] [get_filesets sources_1]
  update_compile_order -fileset sources_1

  ipx::package_project -root_dir $folder/ip -vendor [dict get $p vendor] -library [dict get $p library] \
    -taxonomy /UserIP -import_files -force
  set core [ipx::current_core]
  set_property name [dict get $p ip_name] $core
  set_property version [dict get $p ip_version] $core
  set_property display_name {Quarkwave neural processing unit} $core
  set_property description {Runs quantised convolutional networks from memory, driven by AXI4-Lite registers} $core

  # The interfaces come from the wrapper's annotations. One that was not recognised would silently be left as loose wires.
  foreach name [dict get $p interfaces] {
    if {[llength [ipx::get_bus_interfaces $name -of_objects $core]] != 1} {
      error "the IP packager did not recognise interface $name of [dict get $p top]"
    }
    ipx::associate_bus_interfaces -busif $name -clock [dict get $p clock] $core
  }

  # Names and offsets of the registers, so that PYNQ's register_map and the Vitis tools see them.
  set register_interface [dict get $p register_interface]
  set map [ipx::get_memory_maps $register_interface -of_objects $core]
  if {[llength $map] != 1} {
    error "the IP packager made no memory map for $register_interface"
  }
  set block [ipx::get_address_blocks reg0 -of_objects $map]
  set_property range [dict get $p register_range] $block
  foreach row [dict get $p registers] {
    lassign $row name offset bits master
    set register [ipx::add_register $name $block]
    set_property address_offset $offset $register
    set_property size $bits $register
    if {$master ne ""} {
      # The master that follows this address.
      set_property value $master [ipx::add_register_parameter ASSOCIATED_BUSIF $register]
    }
  }

  # What makes an IP a Vitis kernel too (UG1700, packaging RTL kernels); block designs do not mind.
  set_property sdx_kernel true $core
  set_property sdx_kernel_type rtl $core
  set_property ipi_drc {ignore_freq_hz true} $core
  set_property vitis_drc [list ctrl_protocol [dict get $p control_protocol]] $core

  set_property core_revision 1 $core
  ipx::create_xgui_files $core
  ipx::update_checksums $core
  ipx::check_integrity $core
  ipx::save_core $core
  close_project
  return $folder/ip
}
