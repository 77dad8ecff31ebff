"""Buffers are lent once at a time, used again, and what lies idle is bounded."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.photo.buffers import STEP_BYTES, BufferPool

MIB = 1024 * 1024


def test_what_comes_back_is_lent_again() -> None:
    pool = BufferPool(max_idle_bytes=100 * MIB)
    first = pool.take(48 * MIB)
    pool.give(first)
    assert pool.take(48 * MIB - 5) is first
    assert pool.take(48 * MIB) is not first


def test_a_buffer_holds_what_was_asked_for() -> None:
    pool = BufferPool(max_idle_bytes=0)
    for nbytes in (1, STEP_BYTES, STEP_BYTES + 1):
        buffer = pool.take(nbytes)
        assert buffer.dtype == np.uint8
        assert nbytes <= buffer.nbytes < nbytes + STEP_BYTES


def test_idle_memory_is_bounded_and_the_oldest_goes_first() -> None:
    pool = BufferPool(max_idle_bytes=10 * MIB)
    old, new = pool.take(6 * MIB), pool.take(5 * MIB)
    pool.give(old)
    pool.give(new)
    assert pool.idle_bytes == 5 * MIB
    assert pool.take(5 * MIB) is new
    assert pool.take(6 * MIB) is not old


def test_a_buffer_larger_than_the_bound_is_not_kept() -> None:
    pool = BufferPool(max_idle_bytes=2 * MIB)
    pool.give(pool.take(3 * MIB))
    assert pool.idle_bytes == 0


def test_giving_back_twice_or_something_else_is_refused() -> None:
    pool = BufferPool(max_idle_bytes=10 * MIB)
    buffer = pool.take(MIB)
    with pytest.raises(ValueError, match="not lent"):
        pool.give(buffer[:100])
    pool.give(buffer)
    with pytest.raises(ValueError, match="not lent"):
        pool.give(buffer)
    with pytest.raises(ValueError, match="not lent"):
        pool.give(np.zeros(MIB, dtype=np.uint8))
    assert pool.idle_bytes == MIB


def test_a_lost_buffer_is_freed_and_its_number_may_come_again() -> None:
    pool = BufferPool(max_idle_bytes=10 * MIB)
    for _ in range(50):
        pool.take(MIB)
    gc.collect()
    buffer = pool.take(MIB)
    pool.give(buffer)
    assert pool.idle_bytes == MIB


def test_sizes_make_sense() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        BufferPool(max_idle_bytes=1).take(0)
    with pytest.raises(ValueError, match="negative"):
        BufferPool(max_idle_bytes=-1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), max_size=40), st.integers(0, 8))
def test_no_two_borrowers_share_and_idle_stays_in_bounds(steps: list[tuple[bool, int]], bound: int) -> None:
    pool = BufferPool(max_idle_bytes=bound * MIB)
    lent = []
    for takes, size in steps:
        if takes or not lent:
            lent.append(pool.take(size * MIB))
        else:
            pool.give(lent.pop(size % len(lent)))
        assert pool.idle_bytes <= bound * MIB
        assert len({id(buffer) for buffer in lent}) == len(lent)


def test_threads_never_get_the_same_buffer_at_once() -> None:
    pool = BufferPool(max_idle_bytes=4 * MIB)
    clashes = []

    def work(mark: int) -> None:
        for _ in range(200):
            buffer = pool.take(MIB)
            buffer[:4096] = mark
            if not (buffer[:4096] == mark).all():
                clashes.append(mark)
            pool.give(buffer)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes
    assert pool.idle_bytes <= 4 * MIB
