"""Memory walks through the NPU's own ports: data lines and address lines of weights, features and image, one port at a time.

Address lines are tested as memory testers do it: a value of its own at each offset that is a power of two; a line that is stuck or
shorted makes two of the offsets one. Lines below the first offset are covered by data that holds its own address. The feature ports are
tested with data that no image decides, so that a fault in one port is not laid to another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from driver.device import Buffer, DeviceError
from driver.memory import PAGE
from driver.registers import NpuError
from driver.selftest.bench import Bench
from driver.selftest.builder import Builder
from driver.selftest.findings import CheckError, Seen
from hw.image_layout import ImageLayout
from hw.isa import ArrayConfig
from hw.program import Program
from hw.stream import stripe

COPY_SIZE = 32
"""Rows and columns of the image that is copied."""
SEED = 20


def program_memory(bench: Bench) -> Seen:
    """Programs are fetched from the addresses they were put at, bit for bit (their check words tell)."""
    c = bench.array
    programs = [_marked_program(c, number) for number in range(64)]
    step = _power_of_two(len(programs[0].stream) // c.ports)
    offsets = _offsets(bench.memory_bytes // c.ports, step)
    with bench.keep():
        image, result = bench.buffer(programs[0].image_bytes), bench.buffer(programs[0].result_bytes)
        memories = [bench.buffer(offsets[-1] + step) for _ in range(c.ports)]
        for offset, program in zip(offsets, programs, strict=False):
            _place(program, memories, offset)
        for memory in memories:
            memory.flush()

        def fetch(addresses: Sequence[int], number: int) -> str:
            """What is wrong with the program at ``addresses``, if anything is."""
            try:
                bench.run(programs[number], addresses, image.address, result.address)
            except NpuError as error:
                return str(error)
            result.invalidate()
            found = programs[number].read_result(result.array[: programs[number].result_bytes])
            mark = int(
                np.bincount(found.reshape(-1)).argmax()
            )  # most bytes are whole even if a line of the feature port is not
            return "" if mark == _mark(number) else f"another program ran: its mark is {mark}, not {_mark(number)}"

        for number, offset in enumerate(offsets):
            wrong = fetch([memory.address + offset for memory in memories], number)
            if wrong:
                spare = bench.load(programs[number])
                bad = [
                    f"weights {port}"
                    for port, memory in enumerate(memories)
                    if fetch([*spare[:port], memory.address + offset, *spare[port + 1 :]], number)
                ]
                raise CheckError(
                    f"the program at offset {offset:#x} is not what the NPU read ({wrong})",
                    f"{_line(offset)} of port {', '.join(bad) or 'weights'}, or the memory behind it: another board with the same "
                    "bitstream tells which; load the bitstream again",
                )
    return Seen(
        f"{len(offsets)} programs, {_lines(offsets)}", {"bytes": sum(len(p.stream) for p in programs[: len(offsets)])}
    )


def feature_memory(bench: Bench) -> Seen:
    """What the NPU writes arrives where it was sent, bit for bit. Nothing here depends on the image."""
    c = bench.array
    with bench.keep():
        image = bench.filled(np.zeros(c.cp, np.uint8))
        wide, values = _written_patterns(c)
        result = bench.filled(np.full(wide.result_bytes, 0xA5, np.uint8))
        bench.run(wide, bench.load(wide), image.address, result.address)
        result.invalidate()
        _compare_data(result.array[: wide.result_bytes], values.reshape(-1), "written", "the feature port")

        programs = [_marked_program(c, number) for number in range(64)]
        step = _power_of_two(programs[0].result_bytes)
        offsets = _offsets(bench.memory_bytes, step)
        target = bench.filled(np.full(offsets[-1] + step, 0xA5, np.uint8))
        for program, offset in zip(programs, offsets, strict=False):
            bench.run(program, bench.load(program), image.address, target.address + offset)
        target.invalidate()
        lost = []
        for number, offset in enumerate(offsets):
            found = programs[number].read_result(target.array[offset : offset + programs[number].result_bytes])
            if set(found.reshape(-1).tolist()) != {_mark(number)}:
                lost.append(offset)
        if lost:  # a line that is stuck spoils offset 0, too
            raise CheckError(
                f"what was written to the offsets {', '.join(map(hex, lost))} is not there",
                f"{_line(lost[-1])} of the feature port, or the memory behind it: load the bitstream again",
            )
    return Seen(f"{8 * c.port_bytes} data lines, {_lines(offsets)}", {"bytes": wide.result_bytes})


def image_memory(bench: Bench) -> Seen:
    """What the NPU reads is what the host wrote, bit for bit: images are copied from all over the memory."""
    c = bench.array
    program = copy_program(c)
    step = _power_of_two(program.image_bytes)
    offsets = _offsets(bench.memory_bytes, step)
    with bench.keep():
        weights = bench.load(program)
        source = bench.buffer(offsets[-1] + step)
        for number, offset in enumerate(offsets):
            source.array[offset : offset + program.image_bytes] = _image_pattern(
                c, program.image_bytes, source, number, offset
            )
        source.flush()
        result = bench.filled(np.full(program.result_bytes, 0xA5, np.uint8))
        for offset in offsets:
            bench.run(program, weights, source.address + offset, result.address)
            result.invalidate()
            sent = source.array[offset : offset + program.image_bytes]
            try:
                _compare_data(result.array[: program.result_bytes], sent, "read", "the image port")
            except CheckError as error:
                if offset == offsets[0] or "bits" in str(error):
                    raise
                raise CheckError(
                    f"the image at offset {offset:#x} is not what the NPU read",
                    f"{_line(offset)} of the image port, or the memory behind it: load the bitstream again",
                ) from None
    return Seen(f"{8 * c.port_bytes} data lines, {_lines(offsets)}", {"bytes": len(offsets) * program.image_bytes})


# Programs ------------------------------------------------------------------------------------------------------------


def copy_program(config: ArrayConfig, result_words: int | None = None) -> Program:
    """Copies an image of COPY_SIZE x COPY_SIZE words to the result: a convolution with the identity."""
    b = Builder("copy", config, ImageLayout.plain(COPY_SIZE, COPY_SIZE, config.cp))
    b.conv(b.image, np.eye(config.cp, dtype=np.int64)[:, :, None, None])
    return b.program(result_words)


def _mark(number: int) -> int:
    return (37 * number + 11) % 256


def _marked_program(config: ArrayConfig, number: int) -> Program:
    """Writes its own mark to all of one word, whatever the image: its weights are random, and meet an image of zeros only."""
    b = Builder("mark", config, ImageLayout.plain(1, 1, config.cp))
    weights = np.random.default_rng([SEED, number]).integers(-128, 128, (config.cp, config.cp, 1, 1))
    zeros = b.conv(b.image, np.zeros((config.cp, config.cp, 1, 1), np.int64), clip=(0, 0))
    b.conv(zeros, weights, bias=_mark(number))
    return b.program()


def _written_patterns(config: ArrayConfig) -> tuple[Program, NDArray[np.uint8]]:
    """A program whose biases write walking ones, walking zeros of a byte, and checkerboards; and the words [n, cp] that must come."""
    beat = [_one_bit(bit, config.port_bytes) for bit in range(8 * config.port_bytes)]
    beat += [
        np.full(config.port_bytes, value, np.uint8)
        for value in (0x00, 0xFF, 0x55, 0xAA, *(0xFF ^ 1 << b for b in range(8)))
    ]
    words = np.tile(np.stack(beat), config.cp // config.port_bytes)
    b = Builder("patterns", config, ImageLayout.plain(1, 1, config.cp))
    b.conv(b.image, np.zeros((words.size, config.cp, 1, 1), np.int64), bias=words.reshape(-1).astype(np.int64))
    return b.program(), words


def _image_pattern(c: ArrayConfig, nbytes: int, source: Buffer, number: int, offset: int) -> NDArray[np.uint8]:
    """Walking ones and zeros over the data lines, then words that hold their own address."""
    ones = np.concatenate([_one_bit(bit, c.port_bytes) for bit in range(8 * c.port_bytes)])
    data = (source.address + offset + np.arange(0, nbytes, 4)).astype("<u4").view(np.uint8) ^ np.uint8(_mark(number))
    walk = np.concatenate([ones, ~ones])[: nbytes // 2]
    data[: walk.size] = walk
    return data


def _one_bit(bit: int, nbytes: int) -> NDArray[np.uint8]:
    beat = np.zeros(nbytes, np.uint8)
    beat[bit // 8] = 1 << bit % 8
    return beat


# Addresses and answers -----------------------------------------------------------------------------------------------


def _place(program: Program, memories: Sequence[Buffer], offset: int) -> None:
    for part, memory in zip(stripe(program.stream, program.config), memories, strict=True):
        memory.array[offset : offset + part.size] = part


def _power_of_two(nbytes: int) -> int:
    """The smallest power of two of pages that holds ``nbytes``."""
    return max(PAGE, 1 << (nbytes - 1).bit_length())


def _offsets(nbytes: int, step: int) -> list[int]:
    """0 and every power of two from ``step`` to ``nbytes`` exclusive. Raises DeviceError when that is none."""
    offsets = [0]
    while (offsets[-1] * 2 or step) < nbytes:
        offsets.append(offsets[-1] * 2 or step)
    if len(offsets) < 2:
        raise DeviceError(f"{nbytes} bytes are too few to walk over: give at least {2 * step}")
    return offsets


def _line(offset: int) -> str:
    return f"address line {offset.bit_length() - 1}" if offset else "a data line"


def _lines(offsets: Sequence[int]) -> str:
    return f"address lines up to {offsets[-1].bit_length() - 1}"


def _compare_data(found: NDArray[np.uint8], sent: NDArray[np.uint8], verb: str, port: str) -> None:
    """Raise CheckError unless both are equal; says which data lines differ where few do."""
    differs = found ^ sent
    if not differs.any():
        return
    first = int(np.flatnonzero(differs)[0])
    wrong = np.bitwise_or.reduce(differs)
    bits = [bit for bit in range(8) if wrong >> bit & 1]
    where = f"{np.count_nonzero(differs)} of {differs.size} bytes {verb} are wrong, the first at {first:#x}"
    if len(bits) <= 2:
        raise CheckError(
            f"{where}, in bits {bits}",
            f"a data line of {port}, or a chip of the memory behind it: load the bitstream again",
        )
    raise CheckError(where, f"{port}, or the memory behind it: load the bitstream again, then test the memory")
