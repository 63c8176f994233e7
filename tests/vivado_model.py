"""A stand-in for Vivado's Tcl commands, so that the scripts in hw/synth/tcl run to their end without Vivado.

The scripts run in a real Tcl interpreter (tclsh). Each Vivado command is checked against the options and arguments that the
vendor's references give it (UG835 Tcl commands, UG994 block designs, UG1118 IP packaging, UG1702 package_xo), recorded, and played on a
small model of a block design that knows the pins of the blocks in it (PG201, PG082, PG247, PG164). The NPU's interfaces are read from
the annotations of the Verilog file that the script hands over. What the model does not know, it refuses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vivado_blocks import PARAMETERS, BlockError, Cell
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
        if shutil.which("tclsh") is None:
            raise FileNotFoundError("tclsh is not installed; on Debian 12: apt-get install tcl")
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
        vendor, library, kind, *_ = vlnv.split(":")
        if call.options.get("-type") != "ip" or kind not in PARAMETERS or call.arguments[0] in self.cells:
            raise VivadoError(f"cannot create {call.arguments[0]} as {vlnv}")
        if (vendor, library) != (("xilinx.com", "ip") if kind != "npu" else ("quarkwave", "npu")):
            raise VivadoError(f"no IP {vlnv} in the catalog")
        self.cells[call.arguments[0]] = Cell(vlnv, self.bus_interfaces)
        return f"/{call.arguments[0]}"

    def _configure(self, cell: str, key: str, value: str) -> None:
        if cell not in self.cells:
            raise VivadoError(f"no cell {cell}")
        try:
            self.cells[cell].set(key, value)
        except BlockError as error:
            raise VivadoError(str(error)) from error

    def _find(self, path: str, interface: bool) -> str:
        cell, _, pin = path.removeprefix("/").partition("/")
        if cell not in self.cells:
            raise VivadoError(f"no cell {cell!r}, wanted by {path}")
        pins = self.cells[cell].pins()
        if pin not in (pins.interfaces if interface else pins.inputs | pins.outputs):
            raise VivadoError(f"{self.cells[cell].kind} has no {'interface' if interface else 'pin'} {pin}")
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
        if pin not in self.cells[cell].pins().outputs:
            raise VivadoError(f"{source} drives nothing")
        for sink in sinks:
            cell, pin = sink.split("/")
            if pin not in self.cells[cell].pins().inputs or sink in self.driver:
                raise VivadoError(f"{sink} is an output or driven already")
            self.driver[sink] = source
        return ""

    def _connect_bd_intf_net(self, call: Call) -> str:
        def is_master(path: str) -> bool:
            cell, pin = path.split("/")
            return self.cells[cell].pins().interfaces[pin]

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
        if block != ("Reg" if self.cells[interface.split("/")[0]].kind == "axi_intc" else "reg0"):
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
            pins = self.cells[name].pins()
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
        return self.partner[f"{cell}/M00_AXI"] if self.cells[cell].kind == "smartconnect" else slave
