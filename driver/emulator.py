"""The bit-exact CPU emulator: the board's registers and buffers, with ONNX Runtime computing the program's layers.

The program itself is run: its descriptors become a graph (``driver.tensors``, ``driver.onnx_graph``), and every layer of it is proven exact
from the actual weights. A program for which that cannot be done runs on the golden model instead, which is slow, and a warning says why.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from driver.golden import GoldenDevice
from driver.lanes import arrange
from driver.onnx_graph import build
from driver.onnx_runtime import Kernels, kernels_of_this_cpu, session
from driver.tensors import UntraceableError, trace
from hw.isa import ArrayConfig, ProgramHeader
from hw.program import Program
from hw.stream import StreamLayer

log = logging.getLogger(__name__)


class Engine:
    """A program on ONNX Runtime with ``threads`` threads (0: one a core).

    One image is shared by all threads. Of a batch each thread computes whole images, one by one: an image's tensors stay in the caches
    then, and no thread waits for another.

    Raises UntraceableError for a program that cannot be proven exact; nothing else is ever computed.
    """

    def __init__(
        self,
        header: ProgramHeader,
        layers: list[StreamLayer],
        config: ArrayConfig,
        threads: int = 0,
        kernels: Kernels | None = None,
    ) -> None:
        kernels = kernels or kernels_of_this_cpu()
        self._header, self._config = header, config
        self._trace = trace(header, layers, config)
        graph = build(self._trace, arrange(self._trace, kernels is Kernels.PAIRS), kernels)
        self._lanes = graph.image_lanes
        self.methods = graph.methods
        """How each layer is computed, in the order of the layers."""
        self._threads = threads or len(os.sched_getaffinity(0))
        self._shared = session(graph.model, self._threads)
        self._alone = self._shared if self._threads == 1 else session(graph.model, 1)

    @classmethod
    def of(cls, program: Program, threads: int = 0, kernels: Kernels | None = None) -> Engine:
        """The engine of a program file."""
        return cls(program.header, program.layers(), program.config, threads, kernels)

    def run(self, words: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """From packed images uint8 [n, image_words, bytes] (``Program.pack_image``) to results uint8 [n, feature_words, cp].

        Bytes of the result that no layer writes are 0.
        """
        if len(words) == 1 or self._threads == 1:
            return self._pack([self._compute(self._shared, image) for image in words])
        with ThreadPoolExecutor(self._threads) as pool:
            return self._pack(list(pool.map(partial(self._compute, self._alone), words)))

    def _compute(self, network: InferenceSession, words: NDArray[np.uint8]) -> NDArray[Any]:
        """From one packed image [image_words, bytes] to the graph's result."""
        image, sent = self._trace.image, words.shape[1]
        blocks = image.channels // sent
        cube = words[: blocks * image.height * image.width].reshape(blocks, image.height, image.width, sent)
        pixels = cube[0] if blocks == 1 else np.concatenate(list(cube), axis=2)
        if not np.array_equal(self._lanes, np.arange(sent * blocks)):
            pixels = pixels[..., self._lanes]
        (result,) = network.run(["result"], {"image": np.ascontiguousarray(pixels)[None]})
        return result[0]

    def run_images(self, program: Program, images: NDArray[np.uint8]) -> NDArray[np.int32] | NDArray[np.uint8]:
        """The results [n, ...] of images uint8 [n, height, width, channels], as one batch."""
        words = np.stack([program.pack_image(image) for image in images])
        return np.stack([program.read_result(result) for result in self.run(words)])

    def _pack(self, results: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
        """Results as the words that the NPU stores, [n, feature_words, cp]."""
        tensor, cp, count = self._trace.result, self._config.cp, len(results)
        result = np.stack(results)
        if tensor.is_sum:
            packed = np.zeros((count, tensor.words * cp), np.uint8)
            packed[:, : 4 * tensor.channels] = result.astype("<i4").view(np.uint8).reshape(count, -1)
        else:
            blocks = self._config.blocks_in(tensor.channels)
            cube = np.zeros((count, tensor.height, tensor.width, blocks * cp), np.uint8)
            cube[..., : tensor.channels] = result - np.uint8(tensor.zero_point)
            packed = cube.reshape(*cube.shape[:3], blocks, cp).transpose(0, 3, 1, 2, 4)
        return packed.reshape(count, -1, cp)[:, : self._header.feature_words]


class EmulatorDevice(GoldenDevice):
    """The bit-exact emulator on the CPU: the golden model's integers, as fast as an int8 library computes them.

    A ``driver.device.Device`` for ``config`` with ``memory_bytes`` of memory, computing on ``threads`` threads (0: one a core).
    """

    kind = "emulator"

    def __init__(self, config: ArrayConfig, memory_bytes: int = 1 << 30, threads: int = 0) -> None:
        super().__init__(config, memory_bytes)
        self._threads = threads
        self._engine: Engine | None = None
        self._engine_for: list[StreamLayer] | None = None
        """The decoded program that the engine was made for."""

    def _execute(self, header: ProgramHeader, layers: list[StreamLayer]) -> Iterator[None]:
        engine = self._engine_of(header, layers)
        if engine is None:
            yield from super()._execute(header, layers)
            return
        image = self._words(header.image_base, header.image_words)[:, : header.image_beats * self.config.port_bytes]
        self._words(header.feature_base, header.feature_words)[:] = engine.run(image[None])[0]
        self._layers_done = len(layers)
        yield

    def _engine_of(self, header: ProgramHeader, layers: list[StreamLayer]) -> Engine | None:
        """The engine of this program, or None where only the golden model will do."""
        if layers is not self._engine_for:
            self._engine_for, self._engine = layers, None
            try:
                if len(layers) == header.layers:  # else a fault stops the run on its way
                    self._engine = Engine(header, layers, self.config, self._threads)
            except UntraceableError as error:
                log.warning("this program runs on the golden model, slowly: %s", error)
        return self._engine
