"""The small interface that every device offers: registers, buffers, and waiting. Boards, simulations and models look alike above it."""

from __future__ import annotations

from importlib.metadata import entry_points
from inspect import signature
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hw.isa import ArrayConfig

DEVICES = "quarkwave.devices"
"""Entry point group in which a package offers devices by name."""


class DeviceError(RuntimeError):
    """The device failed or answered nonsense; the message says what to do."""


class DeviceTimeoutError(DeviceError):
    """The device did not finish in time."""


class Buffer(Protocol):
    """Memory that host and device share. Host writes reach the device at flush(); device writes reach the host at invalidate()."""

    address: int
    """Device address of the first byte."""
    array: NDArray[np.uint8]
    """The host's view, [bytes]."""

    def flush(self) -> None:
        """Make the host's writes visible to the device."""

    def invalidate(self) -> None:
        """Make the device's writes visible to the host."""

    def free(self) -> None:
        """Give the memory back; the buffer is not used afterwards."""


class Device(Protocol):
    """One NPU core with memory. Not thread safe: ``driver.runtime.Npu`` serialises."""

    config: ArrayConfig
    kind: str
    """What it is, for people: "rtl", "golden", a board's name."""

    def allocate(self, nbytes: int) -> Buffer:
        """Shared memory of at least ``nbytes``, aligned to 4 KiB. Raises DeviceError when there is none left."""

    def read_register(self, offset: int) -> int:
        """A 32-bit register."""

    def write_register(self, offset: int, value: int) -> None:
        """Write a 32-bit register."""

    def wait(self, timeout: float) -> None:
        """Return when the NPU signals done (interrupt or polling). Raises DeviceTimeoutError after ``timeout`` seconds."""

    def close(self) -> None:
        """Release the device."""


@runtime_checkable
class Resettable(Protocol):
    """A device that can be reset, such as a board, whose bitstream can be loaded again."""

    def reset(self) -> None:
        """Bring the NPU back, whatever it is doing: its runs are lost, its buffers stay. Raises DeviceError when that fails."""


def device_names() -> list[str]:
    """Names that open_device() knows here."""
    return sorted(point.name for point in entry_points(group=DEVICES))


def open_device(name: str, config: str | ArrayConfig, **options: Any) -> Device:
    """Open the device ``name`` for a configuration (or the name of one in hw/boards). Raises DeviceError for an unknown name.

    What follows a colon in the name is the device's own setting: ``timed:1.8ms``.
    """
    from hw.isa import load_config

    points = {point.name: point for point in entry_points(group=DEVICES)}
    name, colon, setting = name.partition(":")
    if colon:
        options["setting"] = setting
    if name not in points:
        raise DeviceError(f"no device named {name!r}; installed here: {', '.join(sorted(points)) or 'none'}")
    if isinstance(config, str):
        config = load_config(config)
    factory = points[name].load()
    if colon and "setting" not in signature(factory).parameters:
        raise DeviceError(f"the device {name!r} has no setting: leave {colon + setting!r} out")
    device: Device = factory(config, **options)
    return device
