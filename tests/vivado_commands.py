"""The Vivado Tcl commands that the scripts in hw/synth/tcl use, with their options: typed from UG835, UG1118 (ipx) and UG1702 (package_xo).

Commands and options that no script uses are left out, or are here so that a wrong neighbour of theirs is not taken for one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERYWHERE = ("-quiet", "-verbose")
"""Options of every command."""


@dataclass(frozen=True)
class Signature:
    """What a command takes: flags, options with a value, and from ``least`` to ``most`` further arguments."""

    flags: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    least: int = 0
    most: int = 0


MANY = 10**6
_BD_QUERY = Signature(("-regexp", "-hierarchical"), ("-filter", "-of_objects"), 0, 1)
_IPX_QUERY = Signature(("-regexp",), ("-filter", "-of_objects"), 0, 1)
_IPX_ACTION = Signature(most=1)
COMMANDS = {
    "create_project": Signature(("-force", "-in_memory", "-ip", "-rtl_kernel"), ("-part",), 0, 2),
    "close_project": Signature(("-delete",)),
    "current_project": Signature(most=1),
    "add_files": Signature(
        ("-norecurse", "-force", "-scan_for_includes"), ("-fileset", "-copy_to", "-of_objects"), 1, MANY
    ),
    "get_files": Signature(("-regexp", "-nocase", "-all"), ("-filter", "-of_objects"), 0, MANY),
    "get_filesets": Signature(("-regexp", "-nocase"), ("-filter", "-of_objects"), 0, MANY),
    "set_property": Signature((), ("-dict",), 1, 3),
    "update_compile_order": Signature(("-force_gui",), ("-fileset",)),
    "update_ip_catalog": Signature(("-rebuild",), ("-add_ip", "-delete_ip", "-disable_ip", "-repo_path")),
    "get_board_parts": Signature(
        ("-regexp", "-nocase", "-latest_file_version", "-latest_hw_revision"), ("-filter", "-of_objects"), 0, MANY
    ),
    "create_bd_design": Signature((), ("-dir", "-cell", "-mode"), 1, 1),
    "create_bd_cell": Signature((), ("-vlnv", "-type", "-reference", "-revision"), 1, 1),
    "apply_bd_automation": Signature((), ("-rule", "-config"), 1, MANY),
    "get_bd_cells": _BD_QUERY,
    "get_bd_pins": _BD_QUERY,
    "get_bd_intf_pins": _BD_QUERY,
    "get_bd_addr_spaces": _BD_QUERY,
    "get_bd_addr_segs": Signature(
        ("-regexp", "-hierarchical", "-addressed", "-addressing"), ("-filter", "-of_objects"), 0, 1
    ),
    "connect_bd_net": Signature(("-hierarchical",), ("-net", "-boundary_type"), 1, MANY),
    "connect_bd_intf_net": Signature(("-auto_copy",), ("-intf_net", "-boundary_type"), 2, 2),
    "assign_bd_address": Signature(
        ("-boundary", "-master_boundary", "-external", "-force"),
        ("-target_address_space", "-dict", "-import_from_file", "-export_to_file", "-offset", "-range", "-base_high"),
        0,
        MANY,
    ),
    "validate_bd_design": Signature(("-force",), ("-design",)),
    "save_bd_design": Signature(most=1),
    "make_wrapper": Signature(("-top", "-testbench", "-inst_template", "-import", "-force"), ("-files", "-fileset")),
    "generate_target": Signature(("-force",), (), 2, MANY),
    "synth_design": Signature(
        ("-rtl", "-assert", "-no_timing_driven"),
        (
            "-name",
            "-part",
            "-constrset",
            "-top",
            "-include_dirs",
            "-generic",
            "-verilog_define",
            "-flatten_hierarchy",
            "-mode",
            "-directive",
        ),
    ),
    "opt_design": Signature(("-retarget", "-propconst", "-sweep", "-remap", "-hier_fanout_limit"), ("-directive",)),
    "place_design": Signature(("-no_timing_driven", "-timing_summary", "-unplace", "-post_place_opt"), ("-directive",)),
    "phys_opt_design": Signature(
        ("-fanout_opt", "-placement_opt", "-routing_opt", "-rewire", "-retime"), ("-directive",)
    ),
    "route_design": Signature(
        ("-unroute", "-preserve", "-delay", "-tns_cleanup", "-finalize"), ("-directive", "-nets")
    ),
    "write_checkpoint": Signature(("-force", "-incremental_synth"), ("-cell",), 1, 1),
    "report_utilization": Signature(
        ("-append", "-return_string", "-hierarchical", "-slr"),
        ("-file", "-name", "-cells", "-pblocks", "-hierarchical_depth"),
    ),
    "report_timing_summary": Signature(
        (
            "-setup",
            "-hold",
            "-no_detailed_paths",
            "-report_unconstrained",
            "-warn_on_violation",
            "-no_header",
            "-append",
        ),
        (
            "-delay_type",
            "-max_paths",
            "-nworst",
            "-path_type",
            "-slack_lesser_than",
            "-significant_digits",
            "-file",
            "-name",
            "-cells",
        ),
    ),
    "report_drc": Signature(("-append", "-return_string"), ("-file", "-name", "-ruledecks", "-checks")),
    "write_bitstream": Signature(
        ("-force", "-raw_bitfile", "-no_binary_bitfile", "-mask_file", "-bin_file"), ("-cell",), 1, 1
    ),
    "package_xo": Signature(
        ("-force",),
        (
            *(
                "-kernel_name",
                "-kernel_xml",
                "-output_kernel_xml",
                "-design_xml",
                "-ip_directory",
                "-parent_ip_directory",
            ),
            *("-kernel_files", "-kernel_xml_args", "-ctrl_protocol", "-xo_path"),
        ),
    ),
    "ipx::package_project": Signature(
        ("-import_files", "-force", "-force_update_compile_order", "-generated_files", "-archive_source_project"),
        ("-root_dir", "-vendor", "-library", "-taxonomy", "-module", "-set_current", "-name", "-version"),
    ),
    "ipx::current_core": Signature(most=1),
    "ipx::get_bus_interfaces": _IPX_QUERY,
    "ipx::get_memory_maps": _IPX_QUERY,
    "ipx::get_address_blocks": _IPX_QUERY,
    "ipx::associate_bus_interfaces": Signature(("-remove", "-clear"), ("-busif", "-clock", "-reset"), 0, 1),
    "ipx::add_register": Signature((), (), 1, 2),
    "ipx::add_register_parameter": Signature((), (), 1, 2),
    "ipx::create_xgui_files": _IPX_ACTION,
    "ipx::update_checksums": _IPX_ACTION,
    "ipx::check_integrity": Signature(("-kernel", "-xrt"), (), 0, 1),
    "ipx::save_core": _IPX_ACTION,
}
DIRECTIVES = {
    "opt_design": {
        "Explore",
        "ExploreArea",
        "ExploreWithRemap",
        "ExploreSequentialArea",
        "RuntimeOptimized",
        "Default",
    },
    "place_design": {
        "Explore",
        "WLDrivenBlockPlacement",
        "ExtraNetDelay_high",
        "ExtraTimingOpt",
        "SSI_SpreadLogic_high",
        "Default",
    },
    "phys_opt_design": {"Explore", "ExploreWithHoldFix", "AggressiveExplore", "AggressiveFanoutOpt", "Default"},
    "route_design": {
        "Explore",
        "AggressiveExplore",
        "NoTimingRelaxation",
        "MoreGlobalIterations",
        "HigherDelayCost",
        "Default",
    },
}
"""UG904, a selection."""
