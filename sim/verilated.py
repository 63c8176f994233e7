"""The Verilated NPU as a device: the RTL itself, clocked by a C++ memory model, behind the driver's device interface."""

from __future__ import annotations

import ctypes
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from driver.device import DeviceError, DeviceTimeoutError
from driver.memory import MirroredBuffer, SharedMemory
from hw.isa import ArrayConfig, Register, load_config
from sim.build import build_library

BASE = 0x1000_0000
"""Device address of the memory's first byte: address 0 is not memory, so a forgotten address register shows."""
SLICE = 20_000
"""Clock cycles between two looks at the wall clock."""


@cache
def _library(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, word, long = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "npu_open": (handle, [long, long, long]),
        "npu_open_beside": (handle, [handle, long]),
        "npu_close": (None, [handle]),
        "npu_memory": (ctypes.POINTER(ctypes.c_uint8), [handle]),
        "npu_cycles": (long, [handle]),
        "npu_timing": (None, [handle, word, word, ctypes.c_double]),
        "npu_faults": (None, [handle, long, ctypes.c_int]),
        "npu_wires": (None, [handle, ctypes.c_int, long, ctypes.c_int, ctypes.c_int]),
        "npu_write": (None, [handle, word, word]),
        "npu_read": (word, [handle, word]),
        "npu_run": (ctypes.c_int, [handle, long]),
        "npu_step": (None, [handle, long]),
    }
    for name, (result, arguments) in signatures.items():
        getattr(library, name).restype = result
        getattr(library, name).argtypes = arguments
    return library


class VerilatedDevice:
    """One NPU core in RTL with ``memory_bytes`` of memory.

    ``latency`` is the range of cycles from a read address to its first beat, ``bandwidth`` the share of cycles in which each port
    may move a beat; both are drawn at random from ``seed``. ``beside`` is another core, whose memory this one shares. Builds the
    simulation when it has not been built yet. Time stands still between calls.
    """

    kind = "rtl"

    def __init__(
        self,
        config: str | ArrayConfig = "sim-small",
        memory_bytes: int = 128 << 20,
        latency: tuple[int, int] = (100, 200),
        bandwidth: float = 1.0,
        seed: int = 1,
        beside: VerilatedDevice | None = None,
    ) -> None:
        self.config = load_config(config) if isinstance(config, str) else config
        if not 0 < latency[0] <= latency[1] or not 0.0 < bandwidth <= 1.0:
            raise ValueError(f"latency {latency} must be a positive range, bandwidth {bandwidth} within (0, 1]")
        self._sim = _library(build_library(self.config))
        self._npu: int | None
        if beside is None:
            self._npu = self._sim.npu_open(memory_bytes, BASE, seed)
            data = np.ctypeslib.as_array(self._sim.npu_memory(self._npu), (memory_bytes,))
            self.memory = SharedMemory(data, BASE)
        else:
            self._npu = self._sim.npu_open_beside(beside._handle(), seed)
            self.memory = beside.memory
        self._sim.npu_timing(self._npu, *latency, bandwidth)
        self.write_register(Register.INTERRUPT_ENABLE, 1)
        self.write_register(Register.GLOBAL_INTERRUPT_ENABLE, 1)

    @property
    def cycles(self) -> int:
        """Clock cycles since the device was opened, counted by the simulator, not by the RTL."""
        return int(self._sim.npu_cycles(self._handle()))

    def allocate(self, nbytes: int) -> MirroredBuffer:
        """Memory that host and NPU share; see driver.device.Device."""
        return self.memory.allocate(nbytes)

    def read_register(self, offset: int) -> int:
        """Read through the RTL's AXI4-Lite port."""
        return int(self._sim.npu_read(self._handle(), offset))

    def write_register(self, offset: int, value: int) -> None:
        """Write through the RTL's AXI4-Lite port."""
        self._sim.npu_write(self._handle(), offset, value & 0xFFFF_FFFF)

    def wait(self, timeout: float) -> None:
        """Clock the NPU until its interrupt; ``timeout`` is in seconds of wall time. Raises DeviceTimeoutError."""
        end = time.monotonic() + timeout
        while not self._sim.npu_run(self._handle(), SLICE):
            if time.monotonic() > end:
                raise DeviceTimeoutError(
                    f"the simulated NPU was not done after {timeout:g} s of wall time ({self.cycles} cycles in all): allow more time"
                )
        self.write_register(Register.INTERRUPT_STATUS, self.read_register(Register.INTERRUPT_STATUS))

    def step(self, cycles: int) -> bool:
        """Clock the NPU for ``cycles`` cycles, whatever its interrupt says; returns whether the interrupt is high then."""
        self._sim.npu_step(self._handle(), cycles)
        return bool(self._sim.npu_run(self._handle(), 0))

    def inject(self, error_address: int | None = None, frozen: bool = False) -> None:
        """Make the memory fail: SLVERR at one address, or no answer at all. Without arguments it is well again."""
        address = 0xFFFF_FFFF_FFFF_FFFF if error_address is None else error_address
        self._sim.npu_faults(self._handle(), address, int(frozen))

    def break_wires(self, port: str, address_low: int = 0, data_low: int | None = None, stalled: bool = False) -> None:
        """Break the wires between memory and the port "weights0", ..., "image" or "features"; without further arguments they are whole.

        ``address_low``: address bits that are stuck at 0; ``data_low``: number of a data line that is; ``stalled``: nothing is served.
        Raises ValueError for an unknown port.
        """
        ports = [*(f"weights{number}" for number in range(self.config.ports)), "image", "features"]
        if port not in ports:
            raise ValueError(f"no port {port!r}; there are {', '.join(ports)}")
        line = -1 if data_low is None else data_low
        self._sim.npu_wires(self._handle(), ports.index(port), address_low, line, int(stalled))

    def close(self) -> None:
        """End the simulation. Buffers must not be used afterwards."""
        if self._npu is not None:
            npu, self._npu = self._npu, None
            del self.memory
            self._sim.npu_close(npu)

    def _handle(self) -> int:
        if self._npu is None:
            raise DeviceError(f"the simulated NPU (process {os.getpid()}) is closed")
        return self._npu
