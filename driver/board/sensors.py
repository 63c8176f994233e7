"""Power and temperature where the board measures them; nothing where it does not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pynq

from driver.device import Readings

HWMON = Path("/sys/class/hwmon")
IIO = Path("/sys/bus/iio/devices")


def zynq_rails() -> Mapping[str, Any]:
    """Power rails that libsensors finds on a Zynq board; empty without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Could not initialise libsensors": then there are none
        rails: Mapping[str, Any] = pynq.get_rails()
    return rails


def read(rails: Mapping[str, Any], hwmon: Path = HWMON, iio: Path = IIO) -> Readings:
    """Read every rail that measures power, and every temperature of the kernel's hwmon and iio drivers."""
    watts = {name: float(rail.power.value) for name, rail in rails.items() if rail.power is not None}
    return Readings(watts, {**_hwmon_temperatures(hwmon), **_iio_temperatures(iio)})


def _hwmon_temperatures(root: Path) -> dict[str, float]:
    """hwmon gives millidegrees (Documentation/hwmon/sysfs-interface of the kernel)."""
    found = {}
    for path in sorted(root.glob("hwmon*/temp*_input")):
        chip = _text(path.parent / "name") or path.parent.name
        label = _text(path.with_name(path.name.replace("_input", "_label"))) or path.name.removesuffix("_input")
        value = _number(path)
        if value is not None:
            found[f"{chip} {label}"] = value / 1000
    return found


def _iio_temperatures(root: Path) -> dict[str, float]:
    """The XADC and AMS of a Zynq: (raw + offset) x scale, in millidegrees (the kernel's ABI sysfs-bus-iio)."""
    found = {}
    for path in sorted(root.glob("iio:device*/in_temp*_raw")):
        raw, scale = _number(path), _number(path.with_name(path.name.replace("_raw", "_scale")))
        offset = _number(path.with_name(path.name.replace("_raw", "_offset"))) or 0.0
        if raw is not None and scale is not None:
            chip = _text(path.parent / "name") or path.parent.name
            found[f"{chip} {path.name.removeprefix('in_').removesuffix('_raw')}"] = (raw + offset) * scale / 1000
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None  # a sensor that is switched off answers so
