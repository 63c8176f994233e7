"""A layer-pipelined network of the HLS route on a board: ``HlsOverlay("network.bit").run(image)``.

On a Zynq board an AXI DMA carries images and features (hls/vitis/stitch.py), on an Alveo card two kernels do (hls/vitis/link.py). The
network itself has no registers: it takes an image as soon as there is one, and several follow one another through its stages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import pynq
from numpy.typing import NDArray
from pynq.buffer import PynqBuffer

from driver.device import DeviceError, DeviceTimeoutError
from driver.streamed import BEAT_BYTES, StreamedNetwork

DMA, READER, WRITER = "dma", "image_reader_1", "feature_writer_1"
"""What the blocks are called in the designs."""
TIMEOUT = 10.0
POLL_SECONDS = 0.0002
STANDS_STILL = "the network stands still: call restart(), which loads the bitstream again"


class Mover(Protocol):
    """What carries bytes between memory and the network's streams."""

    def allocate(self, nbytes: int, features: bool) -> PynqBuffer:
        """Memory, uint8 [nbytes], that it reaches: for images or for features."""

    def move(self, images: PynqBuffer, features: PynqBuffer, count: int, deadline: float) -> None:
        """``count`` images into the network and their features out of it. Raises DeviceError, DeviceTimeoutError."""

    def start(self) -> None:
        """Take it into use again after the logic was reset."""


class HlsOverlay(pynq.Overlay):
    """A bitstream with one network, loaded into the board; use as a context manager, or call close(). One call runs at a time.

    network.json lies beside the bitstream. ``timeout``: seconds for a call of run_batch(); further arguments are pynq.Overlay's. Raises
    OSError when a file is missing, ValueError for another network.json, DeviceError for a bitstream without such a network.
    """

    def __init__(self, bitfile_name: str | Path, *, timeout: float = TIMEOUT, **options: Any) -> None:
        import_module("pynq.lib.dma")  # PYNQ binds its driver of the AXI DMA by that; here, since pynq.lib is large
        network = StreamedNetwork.load(Path(bitfile_name).with_suffix(".json"))
        super().__init__(str(bitfile_name), **options)
        self.network = network
        self._timeout = timeout
        self._turn = threading.Lock()
        self._buffers: tuple[PynqBuffer, PynqBuffer] | None = None
        self._capacity = 0
        self._broken = False
        """Whether a transfer failed: what moves bytes may still write to the buffers until the logic is reset."""
        names = set(self.ip_dict)
        self._mover: Mover
        if DMA in names:
            self._mover = _Dma(self.dma, self.device, network)
        elif {READER, WRITER} <= names:
            self._mover = _Kernels(getattr(self, READER), getattr(self, WRITER), self.device, network)
        else:
            raise DeviceError(
                f"{self.bitfile_name} holds no network of the HLS route (neither {DMA} nor {READER} and {WRITER})"
            )

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Features, float64 [n], of an image, uint8 [height, width, channels]. Raises like run_batch()."""
        features: NDArray[np.float64] = self.run_batch(np.asarray(image)[np.newaxis])[0]
        return features

    def run_batch(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Features, float64 [count, n], of images, uint8 [count, height, width, channels], which follow one another through the network.

        Raises ValueError for other images, or more than a DMA carries; DeviceError, DeviceTimeoutError when the network stands still.
        """
        if not len(images):
            raise ValueError("no images")
        packed = np.stack([self.network.pack(image) for image in images])
        with self._turn:
            if self._broken:
                raise DeviceError(STANDS_STILL)
            source, target = self._room(len(images))
            source[: packed.size] = packed.reshape(-1)
            try:
                self._mover.move(source, target, len(images), time.monotonic() + self._timeout)
            except RuntimeError:  # PYNQ's own too
                self._broken = True
                raise
            raw = np.array(target[: len(images) * self.network.features.nbytes]).reshape(len(images), -1)
        return np.stack([self.network.unpack(features) for features in raw])

    def restart(self) -> None:
        """Load the bitstream again, after a DeviceError: what stood still in the network is gone."""
        with self._turn:
            self.download()
            self._mover.start()
            self._broken = False

    def close(self) -> None:
        """Give the contiguous memory back; loads the bitstream again if something may still write there. May be called again."""
        with self._turn:
            if self._broken:
                self.download()
                self._broken = False
            for buffer in self._buffers or ():
                buffer.freebuffer()
            self._buffers, self._capacity = None, 0

    def __enter__(self) -> HlsOverlay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _room(self, count: int) -> tuple[PynqBuffer, PynqBuffer]:
        """Buffers for ``count`` images and their features."""
        if self._buffers is None or self._capacity < count:
            for buffer in self._buffers or ():
                buffer.freebuffer()
            self._buffers = (
                self._mover.allocate(count * self.network.image.nbytes, features=False),
                self._mover.allocate(count * self.network.features.nbytes, features=True),
            )
            self._capacity = count
        return self._buffers


class _Dma:
    """The AXI DMA of a Zynq board, through PYNQ's driver of it. TLAST ends a transfer, so there is one for the features of each image."""

    def __init__(self, dma: Any, device: pynq.Device, network: StreamedNetwork) -> None:
        self._dma, self._device, self._network = dma, device, network

    def allocate(self, nbytes: int, features: bool) -> PynqBuffer:
        """See Mover."""
        return pynq.allocate((nbytes,), np.uint8, target=self._device, cacheable=1)

    def move(self, images: PynqBuffer, features: PynqBuffer, count: int, deadline: float) -> None:
        """See Mover."""
        taken, given = self._network.image.nbytes, self._network.features.nbytes
        send, receive = self._dma.sendchannel, self._dma.recvchannel
        if count * taken > self._dma.buffer_max_size:
            raise ValueError(
                f"the DMA carries {self._dma.buffer_max_size} bytes at a time, not {count * taken}: use smaller batches"
            )
        for image in range(count):
            receive.transfer(features, image * given, given)
            if not image:
                send.transfer(images, 0, count * taken)
            _wait(receive, deadline)
            if receive.transferred != given:
                raise DeviceError(
                    f"the network gave {receive.transferred} bytes, network.json says {given}: is it of this bitstream?"
                )
        _wait(send, deadline)

    def start(self) -> None:
        """See Mover."""
        for channel in (self._dma.sendchannel, self._dma.recvchannel):
            channel.start()


def _wait(channel: Any, deadline: float) -> None:
    """PYNQ's own wait() knows no time-out, and the DMA has halted by the time that it looks for an error (PG021, DMASR)."""
    while not channel.idle:
        if channel.error:
            raise DeviceError(
                "the AXI DMA stopped with an error: is network.json of this bitstream? Then call restart()"
            )
        if time.monotonic() > deadline:
            raise DeviceTimeoutError(STANDS_STILL)
        time.sleep(POLL_SECONDS)
    channel.wait()


class _Kernels:
    """The two kernels of an Alveo card, each on the memory that it was linked to."""

    def __init__(self, reader: Any, writer: Any, device: pynq.Device, network: StreamedNetwork) -> None:
        self._reader, self._writer, self._device, self._network = reader, writer, device, network

    def allocate(self, nbytes: int, features: bool) -> PynqBuffer:
        """See Mover."""
        argument = self._writer.args["features"] if features else self._reader.args["images"]
        return pynq.allocate((nbytes,), np.uint8, target=self._device.get_memory_by_name(argument.mem))

    def move(self, images: PynqBuffer, features: PynqBuffer, count: int, deadline: float) -> None:
        """See Mover."""
        images.flush()
        written = self._writer.start(features, count * self._network.features.nbytes // BEAT_BYTES)
        read = self._reader.start(images, count * self._network.image.nbytes // BEAT_BYTES)
        for handle in (read, written):
            _within(handle.wait, deadline)
        features.invalidate()

    def start(self) -> None:
        """See Mover: the host starts them for each batch."""


def _within(wait: Callable[[], None], deadline: float) -> None:
    """PYNQ's handles know no time-out."""
    thread = threading.Thread(target=wait, name="hls-wait", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if thread.is_alive():
        raise DeviceTimeoutError(STANDS_STILL)
