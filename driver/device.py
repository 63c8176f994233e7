"""The small interface that every device offers: registers, buffers, and waiting. Boards, simulations and models look alike above it."""

from __future__ import annotations

from dataclasses import dataclass, field
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


class DeviceResetError(DeviceError):
    """The device was reset meanwhile, with all that ran on it; its own reset() takes it into use again."""


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


@dataclass(frozen=True)
class Readings:
    """What a device's sensors say at one moment; empty where there are none."""

    watts: dict[str, float] = field(default_factory=dict)
    """By power rail."""
    celsius: dict[str, float] = field(default_factory=dict)
    """By sensor."""


@runtime_checkable
class Sensing(Protocol):
    """A device that measures itself, as most boards do. Its sensors may be read from any thread."""

    def sensors(self) -> Readings:
        """Power and temperature now."""


def device_names() -> list[str]:
    """Names that open_device() knows here."""
    return sorted(point.name for point in entry_points(group=DEVICES))


def open_device(spec: str, config: str | ArrayConfig, **options: Any) -> Device:
    """Open the one device that ``spec`` names for a configuration (or the name of one in hw/boards).

    ``name``, or ``name:setting`` for a device that takes one (``timed:1.8ms``, ``board:0`` for the first of several NPUs), or
    ``name@where`` where there are several of that name (``board@xrt1``). Raises DeviceError for an unknown name, and where there are
    several devices: open_devices() takes them all.
    """
    devices = _open(spec, config, options)
    if len(devices) > 1:
        for device in devices:
            device.close()
        raise DeviceError(
            f"{spec!r} is {len(devices)} NPUs: name one ({spec}:0), or take all as a pool (open_devices())"
        )
    return devices[0]


def open_devices(spec: str, config: str | ArrayConfig, **options: Any) -> list[Device]:
    """Every device that ``spec`` names, for a ``driver.pool.Pool``: as open_device(), several joined by "+".

    ``board`` is every NPU of the overlay, ``board:0,1`` two of them, ``board@xrt0+board@xrt1`` those of two cards. Raises as open_device();
    then none stays open.
    """
    devices: list[Device] = []
    try:
        for item in spec.split("+"):
            devices += _open(item, config, options)
    except BaseException:
        for device in devices:
            device.close()
        raise
    return devices


def _open(spec: str, config: str | ArrayConfig, options: dict[str, Any]) -> list[Device]:
    from hw.isa import load_config

    points = {point.name: point for point in entry_points(group=DEVICES)}
    named, colon, setting = spec.partition(":")
    name, at, where = named.partition("@")
    if name not in points:
        raise DeviceError(f"no device named {name!r}; installed here: {', '.join(sorted(points)) or 'none'}")
    factory = points[name].load()
    parameters = signature(factory).parameters
    chosen = dict(options)
    for mark, key, value in ((colon, "setting", setting), (at, "where", where)):
        if mark and key not in parameters:
            raise DeviceError(f"the device {name!r} has no {key}: leave {mark + value!r} out")
        if mark:
            chosen[key] = value
    opened = factory(load_config(config) if isinstance(config, str) else config, **chosen)
    return opened if isinstance(opened, list) else [opened]
