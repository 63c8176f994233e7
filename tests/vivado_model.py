"""A stand-in for Vivado's Tcl commands, so that the scripts in hw/synth/tcl run to their end without Vivado.

The scripts run in a real Tcl interpreter (tclsh). Each Vivado command is checked against the options and arguments that the
vendor's references give it (UG835 Tcl commands, UG994 block designs, UG1118 IP packaging, UG1702 package_xo), recorded, and played on a
small model of a block design that knows the pins of the blocks in it (PG201, PG082, PG247, PG164). The NPU's interfaces are read from
the annotations of the Verilog file that the script hands over. What the model does not know, it refuses.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vivado_commands import COMMANDS, DIRECTIVES, EVERYWHERE

BRIDGE = Path(__file__).with_name("vivado_bridge.tcl")


class VivadoError(Exception):
    """Vivado would have refused this."""


@dataclass(frozen=True)
class Call:
    """One command as the script gave it."""

    name: str
    options: dict[str, str]
    flags: frozenset[str]
    arguments: tuple[str, ...]


@dataclass
class Cell:
    """A block of the design: its type and configuration, from which its pins follow."""

    vlnv: str
    config: dict[str, str] = field(default_factory=dict)

    def on(self, name: str) -> bool:
        return self.config.get(f"CONFIG.{name}") == "1"


@dataclass(frozen=True)
class Pins:
    """What a cell shows to the outside. Interfaces: True for a master."""

    inputs: frozenset[str]
    outputs: frozenset[str]
    interfaces: dict[str, bool]


class Vivado:
    """The recorded calls and the block design that they made."""

    def __init__(self, board_parts: tuple[str, ...]) -> None:
        self.board_parts = board_parts
        self.calls: list[Call] = []
        self.printed: list[str] = []
        self.properties: dict[tuple[str, str], str] = {}
        self.files: list[str] = []
        self.bus_interfaces: dict[str, str] = {}
        """Of the packaged IP: name and type ("clock", "reset", "interrupt", "slave", "master")."""
        self.clock_of: dict[str, str] = {}
        self.registers: list[str] = []
        self.cells: dict[str, Cell] = {}
        self.driver: dict[str, str] = {}
        """Pin -> the output pin that drives it."""
        self.partner: dict[str, str] = {}
        """Master interface pin -> slave interface pin."""
        self.addresses: dict[str, tuple[int, int]] = {}
        self.auto_assigned = False

    def run(self, script: Path, parameters: Path, folder: Path) -> None:
        """Run a script as Vivado would in ``folder``. Raises VivadoError with the Tcl error."""
        process = subprocess.Popen(
            ["tclsh", str(BRIDGE), str(script), str(parameters)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        assert process.stdin and process.stdout and process.stderr
        with process:
            for line in process.stdout:
                if not line.startswith("call:"):
                    self.printed.append(line.rstrip("\n"))
                    continue
                words = [bytes.fromhex(word).decode() for word in line.strip().removeprefix("call:").split(",")]
                try:
                    verdict, answer = "ok", self.call(words)
                except VivadoError as error:
                    verdict, answer = "error", str(error)
                process.stdin.write(f"{verdict}:{answer.encode().hex()}\n")
                process.stdin.flush()
            complaint = process.stderr.read()
        if process.returncode:
            raise VivadoError(complaint)

    def call(self, words: list[str]) -> str:
        """Check, record and play one command; what it returns."""
        name = words[0].removeprefix("::")
        signature = COMMANDS.get(name)
        if signature is None:
            raise VivadoError(f"invalid command name {name!r}")
        options: dict[str, str] = {}
        flags, arguments = set(), []
        rest = iter(words[1:])
        for word in rest:
            if word in signature.options:
                value = next(rest, None)
                if value is None:
                    raise VivadoError(f"{name}: option {word} needs a value")
                options[word] = value
            elif word in (*signature.flags, *EVERYWHERE):
                flags.add(word)
            elif re.match(r"-[A-Za-z]", word):
                raise VivadoError(f"{name}: unknown option {word}")
            else:
                arguments.append(word)
        if not signature.least <= len(arguments) <= signature.most:
            raise VivadoError(
                f"{name}: {len(arguments)} arguments, {signature.least} to {signature.most} are taken: {arguments}"
            )
        call = Call(name, options, frozenset(flags), tuple(arguments))
        self.calls.append(call)
        directive = options.get("-directive")
        if directive is not None and directive not in DIRECTIVES.get(name, ()):
            raise VivadoError(f"{name}: no directive {directive}")
        play: Callable[[Call], str] = getattr(self, f"_{name.replace('::', '_')}", lambda call: "")
        return play(call)

    def named(self, name: str) -> list[Call]:
        """Every call of one command."""
        return [call for call in self.calls if call.name == name]

    # --- project -------------------------------------------------------------------------------------------------------

    def _current_project(self, call: Call) -> str:
        return "project"

    def _get_filesets(self, call: Call) -> str:
        known = {"sources_1", "constrs_1", "sim_1"}
        if not set(call.arguments) <= known:
            raise VivadoError(f"no fileset {call.arguments}")
        return " ".join(call.arguments)

    def _add_files(self, call: Call) -> str:
        for path in " ".join(call.arguments).replace("{", "").replace("}", "").split():
            if not Path(path).is_file() and not path.endswith("_wrapper.v"):
                raise VivadoError(f"add_files: {path} does not exist")
            self.files.append(path)
        return ""

    def _get_files(self, call: Call) -> str:
        return " ".join(call.arguments)

    def _get_board_parts(self, call: Call) -> str:
        pattern = call.arguments[0].removesuffix("*")
        return " ".join(part for part in self.board_parts if part.startswith(pattern))

    def _set_property(self, call: Call) -> str:
        if "-dict" in call.options:
            words = call.options["-dict"].split()
            if len(words) % 2 or len(call.arguments) != 1:
                raise VivadoError(f"set_property -dict: {words} for {call.arguments}")
            pairs = list(zip(words[::2], words[1::2], strict=True))
        elif len(call.arguments) == 3:
            pairs = [(call.arguments[0], call.arguments[1])]
        else:
            raise VivadoError(f"set_property takes a name, a value and objects, not {call.arguments}")
        target = call.arguments[-1]
        if not target:
            raise VivadoError("set_property: no objects")
        for key, value in pairs:
            self.properties[target, key] = value
            if key.startswith("CONFIG."):
                self._configure(target.removeprefix("/"), key, value)
        return ""

    # --- IP packager ---------------------------------------------------------------------------------------------------

    def _ipx_package_project(self, call: Call) -> str:
        """Infer the interfaces from the annotations of the top module's file, as the packager does."""
        top = self.properties["sources_1", "top"]
        [source] = [Path(path) for path in self.files if Path(path).stem == top]
        text = source.read_text()
        for kind, name in re.findall(r'X_INTERFACE_INFO = "xilinx\.com:\w+:(\w+):1\.0 (\w+) \w+"', text):
            self.bus_interfaces[name] = kind
        for name, kind in self.bus_interfaces.items():
            if kind == "aximm":
                port = re.search(rf"(input|output) wire[^;,]*? {name}_\w+valid\b", text)
                assert port
                self.bus_interfaces[name] = "slave" if port[1] == "input" else "master"
        return "core"

    def _ipx_current_core(self, call: Call) -> str:
        return "core"

    def _ipx_get_bus_interfaces(self, call: Call) -> str:
        return call.arguments[0] if call.arguments[0] in self.bus_interfaces else ""

    def _ipx_get_memory_maps(self, call: Call) -> str:
        return call.arguments[0] if self.bus_interfaces.get(call.arguments[0]) == "slave" else ""

    def _ipx_get_address_blocks(self, call: Call) -> str:
        return "reg0" if call.options["-of_objects"] and call.arguments == ("reg0",) else ""

    def _ipx_associate_bus_interfaces(self, call: Call) -> str:
        interface, clock = call.options["-busif"], call.options["-clock"]
        if interface not in self.bus_interfaces or self.bus_interfaces.get(clock) != "clock":
            raise VivadoError(f"cannot associate {interface} with {clock}")
        self.clock_of[interface] = clock
        return ""

    def _ipx_add_register(self, call: Call) -> str:
        if call.arguments[0] in self.registers:
            raise VivadoError(f"register {call.arguments[0]} exists already")
        self.registers.append(call.arguments[0])
        return f"register:{call.arguments[0]}"

    def _ipx_add_register_parameter(self, call: Call) -> str:
        return f"{call.arguments[1]}:{call.arguments[0]}"

    # --- block design --------------------------------------------------------------------------------------------------

    def _create_bd_cell(self, call: Call) -> str:
        vlnv = call.options["-vlnv"]
        known = {"zynq_ultra_ps_e", "processing_system7", "smartconnect", "proc_sys_reset", "npu"}
        if call.options.get("-type") != "ip" or vlnv.split(":")[2] not in known or call.arguments[0] in self.cells:
            raise VivadoError(f"cannot create {call.arguments[0]} as {vlnv}")
        if vlnv.startswith("xilinx.com:ip:") != (vlnv.split(":")[2] != "npu"):
            raise VivadoError(f"no IP {vlnv} in the catalog")
        self.cells[call.arguments[0]] = Cell(vlnv)
        return f"/{call.arguments[0]}"

    def _configure(self, cell: str, key: str, value: str) -> None:
        allowed = {
            "zynq_ultra_ps_e": (
                r"PSU__(FPGA_PL0_ENABLE|USE__(M_AXI_GP[0-2]|S_AXI_GP[0-6]|IRQ[01])|[MS]AXIGP[0-6]__DATA_WIDTH"
                r"|CRL_APB__PL0_REF_CTRL__FREQMHZ)"
            ),
            "processing_system7": (
                r"PCW_(EN_CLK0_PORT|FPGA0_PERIPHERAL_FREQMHZ|USE_M_AXI_GP[01]|USE_S_AXI_HP[0-3]|S_AXI_HP[0-3]_DATA_WIDTH"
                r"|USE_FABRIC_INTERRUPT|IRQ_F2P_INTR)"
            ),
            "smartconnect": r"NUM_(SI|MI|CLKS)",
        }
        if cell not in self.cells:
            raise VivadoError(f"no cell {cell}")
        if not re.fullmatch(allowed.get(self.kind(cell), "(?!)"), key.removeprefix("CONFIG.")):
            raise VivadoError(f"{self.kind(cell)} has no parameter {key}")
        widths = {"zynq_ultra_ps_e": {"32", "64", "128"}, "processing_system7": {"32", "64"}}
        if key.endswith("DATA_WIDTH") and value not in widths[self.kind(cell)]:
            raise VivadoError(f"{key} cannot be {value}")
        self.cells[cell].config[key] = value

    def kind(self, cell: str) -> str:
        """The IP's name."""
        return self.cells[cell].vlnv.split(":")[2]

    def pins(self, name: str) -> Pins:
        """The pins of a cell in its present configuration."""
        cell = self.cells[name]
        match self.kind(name):
            case "zynq_ultra_ps_e":
                ports = [n for n in range(4) if cell.on(f"PSU__USE__S_AXI_GP{n + 2}")]
                inputs = {f"saxihp{n}_fpd_aclk" for n in ports}
                inputs |= {"maxihpm0_fpd_aclk"} if cell.on("PSU__USE__M_AXI_GP0") else set()
                inputs |= {"pl_ps_irq0"} if cell.on("PSU__USE__IRQ0") else set()
                interfaces = {f"S_AXI_HP{n}_FPD": False for n in ports}
                interfaces |= {"M_AXI_HPM0_FPD": True} if cell.on("PSU__USE__M_AXI_GP0") else {}
                outputs = {"pl_clk0", "pl_resetn0"} if cell.on("PSU__FPGA_PL0_ENABLE") else set()
                return Pins(frozenset(inputs), frozenset(outputs), interfaces)
            case "processing_system7":
                ports = [n for n in range(4) if cell.on(f"PCW_USE_S_AXI_HP{n}")]
                inputs = {f"S_AXI_HP{n}_ACLK" for n in ports}
                inputs |= {"M_AXI_GP0_ACLK"} if cell.on("PCW_USE_M_AXI_GP0") else set()
                inputs |= {"IRQ_F2P"} if cell.on("PCW_USE_FABRIC_INTERRUPT") and cell.on("PCW_IRQ_F2P_INTR") else set()
                interfaces = {f"S_AXI_HP{n}": False for n in ports}
                interfaces |= {"M_AXI_GP0": True} if cell.on("PCW_USE_M_AXI_GP0") else {}
                outputs = {"FCLK_CLK0", "FCLK_RESET0_N"} if cell.on("PCW_EN_CLK0_PORT") else set()
                return Pins(frozenset(inputs), frozenset(outputs), interfaces)
            case "smartconnect":
                count = {key: int(cell.config.get(f"CONFIG.NUM_{key}", "1")) for key in ("SI", "MI")}
                slaves = {f"S{n:02d}_AXI": False for n in range(count["SI"])}
                masters = {f"M{n:02d}_AXI": True for n in range(count["MI"])}
                return Pins(frozenset({"aclk", "aresetn"}), frozenset(), slaves | masters)
            case "proc_sys_reset":
                outputs = {
                    "mb_reset",
                    "bus_struct_reset",
                    "peripheral_reset",
                    "interconnect_aresetn",
                    "peripheral_aresetn",
                }
                return Pins(frozenset({"slowest_sync_clk", "ext_reset_in"}), frozenset(outputs), {})
        inputs = {n for n, kind in self.bus_interfaces.items() if kind in ("clock", "reset")}
        outputs = {n for n, kind in self.bus_interfaces.items() if kind == "interrupt"}
        axi = {n: kind == "master" for n, kind in self.bus_interfaces.items() if kind in ("master", "slave")}
        return Pins(frozenset(inputs), frozenset(outputs), axi)

    def _find(self, path: str, interface: bool) -> str:
        cell, _, pin = path.removeprefix("/").partition("/")
        if cell not in self.cells:
            raise VivadoError(f"no cell {cell!r}, wanted by {path}")
        pins = self.pins(cell)
        if pin not in (pins.interfaces if interface else pins.inputs | pins.outputs):
            raise VivadoError(f"{self.kind(cell)} has no {'interface' if interface else 'pin'} {pin}")
        return f"{cell}/{pin}"

    def _get_bd_cells(self, call: Call) -> str:
        name = call.arguments[0].removeprefix("/")
        if name not in self.cells:
            raise VivadoError(f"no cell {name}")
        return f"/{name}"

    def _get_bd_pins(self, call: Call) -> str:
        return self._find(call.arguments[0], interface=False)

    def _get_bd_intf_pins(self, call: Call) -> str:
        return self._find(call.arguments[0], interface=True)

    def _connect_bd_net(self, call: Call) -> str:
        source, *sinks = call.arguments
        cell, pin = source.split("/")
        if pin not in self.pins(cell).outputs:
            raise VivadoError(f"{source} drives nothing")
        for sink in sinks:
            cell, pin = sink.split("/")
            if pin not in self.pins(cell).inputs or sink in self.driver:
                raise VivadoError(f"{sink} is an output or driven already")
            self.driver[sink] = source
        return ""

    def _connect_bd_intf_net(self, call: Call) -> str:
        def is_master(path: str) -> bool:
            cell, pin = path.split("/")
            return self.pins(cell).interfaces[pin]

        master, slave = sorted(call.arguments, key=is_master, reverse=True)
        if is_master(slave) or not is_master(master):
            raise VivadoError(f"{master} and {slave} are of the same kind")
        if master in self.partner or slave in self.partner.values():
            raise VivadoError(f"{master} or {slave} is connected already")
        self.partner[master] = slave
        return ""

    def _get_bd_addr_spaces(self, call: Call) -> str:
        if call.arguments[0] != "ps/Data":
            raise VivadoError(f"no address space {call.arguments[0]}")
        return call.arguments[0]

    def _get_bd_addr_segs(self, call: Call) -> str:
        interface, block = call.arguments[0].rsplit("/", 1)
        self._find(interface, interface=True)
        if block != "reg0":
            raise VivadoError(f"no segment {call.arguments[0]}")
        return call.arguments[0]

    def _assign_bd_address(self, call: Call) -> str:
        if call.arguments:
            offset, size = int(call.options["-offset"], 0), int(call.options["-range"], 0)
            if size < 4096 or size & (size - 1) or offset % size:
                raise VivadoError(f"cannot assign {size} bytes at {offset:#x}")
            self.addresses[call.arguments[0]] = (offset, size)
        self.auto_assigned = self.auto_assigned or not call.arguments
        return ""

    def _validate_bd_design(self, call: Call) -> str:
        """Every input driven, every interface connected, every clock the same, every master with addresses."""
        for name in self.cells:
            pins = self.pins(name)
            loose = [pin for pin in pins.inputs if f"{name}/{pin}" not in self.driver]
            ends = {*self.partner, *self.partner.values()}
            loose += [pin for pin in pins.interfaces if f"{name}/{pin}" not in ends]
            if loose:
                raise VivadoError(f"validation: {name} has loose pins {', '.join(sorted(loose))}")
        clocks = {source for sink, source in self.driver.items() if re.search(r"clk|CLK", sink)}
        if len(clocks) != 1:
            raise VivadoError(f"validation: clocks of several sources: {sorted(clocks)}")
        if not self.auto_assigned or not self.addresses:
            raise VivadoError("validation: masters without addresses")
        return ""

    def _make_wrapper(self, call: Call) -> str:
        return f"{Path(call.options['-files']).stem}_wrapper.v"

    # --- reports and results -------------------------------------------------------------------------------------------

    def slave_behind(self, master: str) -> str:
        """Follow a master through its SmartConnect to the interface that answers."""
        slave = self.partner[master]
        cell, _ = slave.split("/")
        return self.partner[f"{cell}/M00_AXI"] if self.kind(cell) == "smartconnect" else slave
