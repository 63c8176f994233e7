"""Shared memory: addresses that nobody else has, and copies that only flush and invalidate reconcile."""

from itertools import pairwise

import numpy as np
import pytest

from driver.device import DeviceError
from driver.memory import PAGE, Arena, SharedMemory


def test_addresses_are_page_aligned_and_disjoint():
    arena = Arena(64 * PAGE, base=PAGE * 3)
    spans = sorted((arena.allocate(n), n) for n in (1, PAGE, PAGE + 1, 10_000))
    assert all(address % PAGE == 0 for address, _ in spans)
    assert all(a + n <= b for (a, n), (b, _) in pairwise(spans))
    assert spans[0][0] == arena.base


@pytest.mark.parametrize("seed", range(5))
def test_random_allocation_and_freeing_never_overlaps_and_loses_nothing(seed: int):
    rng = np.random.default_rng(seed)
    arena, owner, mine = Arena(100 * PAGE), np.zeros(100, int), {}
    for ticket in range(1, 500):
        if mine and rng.random() < 0.5:
            address = int(rng.choice(list(mine)))
            arena.free(address)
            owner[owner == mine.pop(address)] = 0
            continue
        pages = int(rng.integers(1, 12))
        try:
            address = arena.allocate(pages * PAGE)
        except DeviceError:
            runs = "".join("." if free else "x" for free in owner == 0).split("x")
            assert max(map(len, runs)) < pages, f"seed {seed}: refused although a gap was large enough"
            continue
        span = slice(address // PAGE, address // PAGE + pages)
        assert (owner[span] == 0).all(), f"seed {seed}: gave out memory twice"
        owner[span], mine[address] = ticket, ticket
    for address in mine:
        arena.free(address)
    assert arena.used == 0
    assert arena.allocate(100 * PAGE) == 0


def test_a_full_arena_says_how_much_is_free():
    arena = Arena(2 * PAGE)
    arena.allocate(PAGE)
    with pytest.raises(DeviceError, match=f"no room for {2 * PAGE} bytes.*{PAGE} of {2 * PAGE} bytes free"):
        arena.allocate(2 * PAGE)
    assert arena.allocate(PAGE) == PAGE, "the refusal must not cost anything"


def test_freeing_twice_is_an_error():
    arena = Arena(PAGE)
    address = arena.allocate(1)
    arena.free(address)
    with pytest.raises(DeviceError, match="freed twice"):
        arena.free(address)


def test_host_writes_reach_the_device_only_at_flush():
    memory = SharedMemory(np.zeros(4 * PAGE, np.uint8), base=PAGE)
    buffer = memory.allocate(100)
    buffer.array[:] = 7
    assert (memory.at(buffer.address, 100) == 0).all()
    buffer.flush()
    assert (memory.at(buffer.address, 100) == 7).all()


def test_device_writes_reach_the_host_only_at_invalidate():
    memory = SharedMemory(np.zeros(4 * PAGE, np.uint8))
    buffer = memory.allocate(100)
    memory.at(buffer.address, 100)[:] = 9
    assert (buffer.array == 0).all()
    buffer.invalidate()
    assert (buffer.array == 9).all()


def test_addresses_outside_the_memory_are_refused():
    memory = SharedMemory(np.zeros(PAGE, np.uint8), base=PAGE)
    for address, nbytes in ((0, 1), (PAGE - 1, 1), (PAGE, PAGE + 1), (2 * PAGE, 1)):
        with pytest.raises(IndexError):
            memory.at(address, nbytes)
