"""The overlay: a bitstream with one NPU or several, and what one wants to do with it in a notebook."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pynq

from driver.board.interrupt_controller import in_loop
from driver.board.npu_ip import NpuIP
from driver.device import DeviceError, Readings
from driver.pool import Pool
from driver.runtime import TIMEOUT, WATCHDOG_CYCLES, Npu, Result
from hw.isa import ArrayConfig
from hw.program import Program
from hw.synth.kernel import VLNV

BITSTREAM = "QUARKWAVE_BITSTREAM"
"""Environment variable that names the bitstream of open_device("board")."""


class NpuOverlay(pynq.Overlay):
    """A bitstream with NPUs, loaded into the board; use as a context manager, or call close().

    ``npus`` are its devices, of which several appear as one pool (``driver.pool``). ``timeout``, ``watchdog`` and ``layer_counters`` are
    those of ``driver.runtime.Npu``; ``interrupts=False`` polls. Further arguments are pynq.Overlay's. Raises OSError when there is no such
    bitstream, DeviceError when it holds no NPU.
    """

    def __init__(
        self,
        bitfile_name: str | Path,
        *,
        timeout: float = TIMEOUT,
        watchdog: int = WATCHDOG_CYCLES,
        layer_counters: bool = True,
        interrupts: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(str(bitfile_name), **options)
        self._options = {"timeout": timeout, "watchdog": watchdog, "layer_counters": layer_counters}
        self._interrupts = interrupts
        self._runtime: Npu | Pool | None = None
        self._reloading = threading.Lock()
        names = sorted(name for name, ip in self.ip_dict.items() if ip["type"] == VLNV)
        if not names:
            raise DeviceError(f"{self.bitfile_name} holds no NPU (no IP {VLNV}): is it the right bitstream?")
        # Made in the interrupts' thread: PYNQ ties what it makes to the event loop of the thread.
        self.npus: list[NpuIP] = [in_loop(lambda name=name: getattr(self, name)) for name in names]  # type: ignore[misc]
        for npu in self.npus:
            npu.reload = partial(self._reload, npu)
            if not interrupts:
                npu.open(interrupts=False)

    def load(self, program: Program | str | Path) -> Npu | Pool:
        """Put a program (or a program file) into memory, where it stays; returns the runtime that runs images through it: an Npu, or a Pool
        where there are several, which has the same methods.

        Raises ProgramError or OSError for a bad file, DeviceError when it was compiled for another array or memory is short.
        """
        if self._runtime is None:
            if len(self.npus) == 1:
                self._runtime = Npu(self.npus[0], **self._options)  # type: ignore[arg-type]
            else:
                self._runtime = Pool(self.npus, **self._options)  # type: ignore[arg-type]
        self._runtime.load(program)
        return self._runtime

    def run(self, image: Any) -> Result:
        """``Npu.run``: one image, uint8 [height, width, channels], through the program that is loaded."""
        return self._loaded().run(image)

    def restart(self) -> None:
        """Load the bitstream again and then the program: recovers an NPU that does not come back, whatever it was doing.

        What it was computing is lost; a runtime that load() returned before is closed, call load() or run().
        """
        program = self._runtime.program if self._runtime is not None else None
        for npu in self.npus:
            npu.abandon()
        if self._runtime is not None:
            with suppress(DeviceError):  # a run is still on; what it may write to is kept until the logic is reset
                self._runtime.close()
            self._runtime = None
        with self._reloading:
            self.download()
            for npu in self.npus:
                npu.open(self._interrupts)
                npu.memory.free_all()
        if program is not None:
            self.load(program)

    def close(self) -> None:
        """Finish what runs, give back all contiguous memory and switch the interrupts off. May be called again."""
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None
        for npu in self.npus:
            npu.close()

    @property
    def clock_mhz(self) -> float:
        """The NPUs' clock; see NpuIP.clock_mhz."""
        return self.npus[0].clock_mhz

    @clock_mhz.setter
    def clock_mhz(self, megahertz: float) -> None:
        self.npus[0].clock_mhz = megahertz

    def sensors(self) -> Readings:
        """Power and temperatures, where the board measures them."""
        return self.npus[0].sensors()

    def __enter__(self) -> NpuOverlay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reload(self, npu: NpuIP) -> None:
        """Reset the logic for ``npu``, unless another NPU's reset has taken it along already."""
        with self._reloading:
            if not npu.abandoned:
                for each in self.npus:
                    each.abandon()
                self.download()

    def _loaded(self) -> Npu | Pool:
        if self._runtime is None:
            raise DeviceError("no program is loaded: call load() first")
        return self._runtime


def open_board(
    config: ArrayConfig,
    bitstream: str | Path | None = None,
    setting: str = "",
    where: str = "",
    **options: Any,
) -> list[NpuIP]:
    """The NPUs on this machine's board or card, with the bitstream that QUARKWAVE_BITSTREAM names (board:0,1 chooses, board@xrt0 one card).

    ``bitstream`` comes before the variable; ``setting`` lists numbers of NPUs, ``where`` is the tag or the name that PYNQ gives a card;
    ``options`` are NpuOverlay's. ``config`` is the array that is expected; a program for another is refused when it is loaded. Raises
    DeviceError when there is no board or no bitstream.
    """
    bitstream = bitstream or os.environ.get(BITSTREAM)
    if not bitstream:
        raise DeviceError(
            f"which bitstream? Set {BITSTREAM} to the .bit of {config.name} (its .hwh beside it), or pass bitstream="
        )
    try:
        if where:
            options["device"] = _card(where)
        overlay = NpuOverlay(bitstream, **options)
    except RuntimeError as error:
        if isinstance(error, DeviceError):
            raise
        raise DeviceError(
            f"PYNQ cannot load {bitstream}: {error}; on the board, run as root in PYNQ's environment "
            "(sudo -i, XILINX_XRT set), elsewhere use the device simulated-board"
        ) from error
    try:
        return [overlay.npus[int(number)] for number in setting.split(",")] if setting else overlay.npus
    except (ValueError, IndexError):
        overlay.close()
        raise DeviceError(
            f"{bitstream} holds the NPUs 0 to {len(overlay.npus) - 1}, not {setting!r}: list numbers, as in board:0,1"
        ) from None


def _card(where: str) -> pynq.Device:
    """PYNQ's device of that tag or name."""
    for device in pynq.Device.devices:
        if where in (device.tag, device.name):
            return device
    known = ", ".join(f"{device.tag} ({device.name})" for device in pynq.Device.devices) or "none"
    raise DeviceError(f"PYNQ finds no card {where!r}; there are: {known}")
