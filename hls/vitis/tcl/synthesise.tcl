# C synthesis of one kernel by Vitis HLS, and the result packaged: an IP for Vivado, or a kernel object for v++.
#
#   vitis_hls -f synthesise.tcl        or        vitis-run --mode hls --tcl synthesise.tcl
#
# In a working folder with target.tcl, written by hls/vitis/synth.py. It sets project_name, part, clock_period, clock_uncertainty, version and
# maximum_size (as hls4ml's project.tcl does), and top, sources, flags and flow (vivado or vitis). Leaves the project's folder
# ${project_name}_prj, with impl/ip in it, or ${top}.xo beside it. Settings are those of hls4ml's build_prj.tcl. Not run with the real tool here.

source target.tcl

puts "quarkwave step: C synthesis"
open_project -reset ${project_name}_prj
set_top $top
foreach file $sources {
  add_files $file -cflags $flags
}
open_solution -reset -flow_target $flow solution1
catch {config_array_partition -maximum_size $maximum_size}
config_compile -name_max_length 80
set_part $part
config_schedule -enable_dsp_full_reg=false
create_clock -period $clock_period -name default
set_clock_uncertainty $clock_uncertainty default
csynth_design

puts "quarkwave step: packaging"
if {$flow eq "vitis"} {
  export_design -format xo -output [pwd]/$top.xo
} else {
  export_design -format ip_catalog -version $version
}
exit
