"""Where Zynq boards and Alveo cards differ: which memory the NPU's buffers come from, who sets its clock, who knows the power."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pynq
from pynq.buffer import PynqBuffer

from driver.board import sensors
from driver.device import DeviceError


class Platform(Protocol):
    """What the driver wants to know of the machine around the NPU."""

    interrupts: bool
    """Whether interrupts reach the driver here; else it polls."""

    def allocate(self, nbytes: int) -> PynqBuffer:
        """Memory that host and NPU share, uint8 [nbytes]; contents are arbitrary. Raises RuntimeError when there is none left."""

    @property
    def clock_mhz(self) -> float:
        """The NPU's clock at this moment."""

    @clock_mhz.setter
    def clock_mhz(self, megahertz: float) -> None: ...

    def rails(self) -> Mapping[str, Any]:
        """Power rails by name, as ``pynq.get_rails()`` gives them; empty where nothing measures them."""


class Zynq:
    """Zynq-7000 and Zynq UltraScale+: host and NPU share the DRAM, through the host's caches; the host sets the clock."""

    interrupts = True

    def __init__(self, device: pynq.Device) -> None:
        self._device = device

    def allocate(self, nbytes: int) -> PynqBuffer:
        """From the DRAM's contiguous memory (CMA)."""
        # Cached, since the host reads results and packs images byte by byte; flush and invalidate keep both sides equal.
        return pynq.allocate((nbytes,), np.uint8, target=self._device, cacheable=1)

    @property
    def clock_mhz(self) -> float:
        """The first clock from the processing system; set, it takes the nearest that can be divided."""
        return float(pynq.Clocks.fclk0_mhz)

    @clock_mhz.setter
    def clock_mhz(self, megahertz: float) -> None:
        pynq.Clocks.fclk0_mhz = megahertz

    def rails(self) -> Mapping[str, Any]:
        """Those of libsensors."""
        return sensors.zynq_rails()


class Alveo:
    """An Alveo card behind XRT: memory on the card, in the bank that the kernel was linked to; the shell holds the clock."""

    interrupts = False

    def __init__(self, device: pynq.Device, description: Mapping[str, Any]) -> None:
        self._device = device
        self._bank = description["registers"]["image"]["memory"]

    def allocate(self, nbytes: int) -> PynqBuffer:
        """From the kernel's memory bank."""
        return pynq.allocate((nbytes,), np.uint8, target=self._device.get_memory_by_name(self._bank))

    @property
    def clock_mhz(self) -> float:
        """What XRT says of the first clock. Setting it raises DeviceError."""
        return float(self._device.clocks["clock0"]["frequency"])

    @clock_mhz.setter
    def clock_mhz(self, megahertz: float) -> None:
        raise DeviceError("a card's clock is set when its bitstream is linked, and by XRT: it cannot be set here")

    def rails(self) -> Mapping[str, Any]:
        """Those of the card's satellite controller, through XRT."""
        rails: Mapping[str, Any] = self._device.sensors
        return rails


def platform_of(device: pynq.Device, description: Mapping[str, Any]) -> Platform:
    """The platform of an IP, from PYNQ's description of it: compute units of an .xclbin have a name in XRT."""
    return Alveo(device, description) if "cu_name" in description else Zynq(device)
