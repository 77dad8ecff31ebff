"""Batches lose nothing, keep order, and say why they were released."""

from hypothesis import given
from hypothesis import strategies as st

from stream.worker.batching import Batcher


def test_a_batch_is_released_by_count_then_by_age_then_by_flush() -> None:
    batcher: Batcher[int] = Batcher(max_tiles=3, max_wait_s=1.0)
    batcher.add([1, 2, 3, 4], now=0.0)
    first = batcher.due(now=0.0)
    assert first is not None and (first.tiles, first.released) == ((1, 2, 3), "count")
    assert batcher.due(now=0.9) is None
    second = batcher.due(now=1.0)
    assert second is not None and (second.tiles, second.released, second.first_wait_s) == ((4,), "age", 1.0)
    batcher.add([5], now=2.0)
    third = batcher.flush(now=2.5)
    assert third is not None and (third.tiles, third.released, third.first_wait_s) == ((5,), "flush", 0.5)
    assert batcher.flush(now=3.0) is None


def test_until_next_tells_how_long_the_driver_may_sleep() -> None:
    batcher: Batcher[int] = Batcher(max_tiles=2, max_wait_s=1.0)
    assert batcher.until_next(now=5.0) is None
    batcher.add([1], now=5.0)
    assert batcher.until_next(now=5.25) == 0.75
    assert batcher.until_next(now=9.0) == 0.0
    batcher.add([2], now=5.25)
    assert batcher.until_next(now=5.25) == 0.0


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 20)),
        st.tuples(st.just("due"), st.floats(0, 0.2)),
        st.tuples(st.just("full"), st.floats(0, 0.2)),
        st.tuples(st.just("flush"), st.floats(0, 0.2)),
    ),
    max_size=40,
)


@given(EVENTS, st.integers(1, 9), st.floats(0, 0.3))
def test_batches_lose_nothing_repeat_nothing_and_keep_order(
    events: list[tuple[str, float]], max_tiles: int, wait: float
) -> None:
    batcher: Batcher[int] = Batcher(max_tiles, wait)
    now, given_tiles, taken = 0.0, 0, []
    for what, amount in events:
        if what == "add":
            batcher.add(range(given_tiles, given_tiles + int(amount)), now)
            given_tiles += int(amount)
            continue
        now += amount
        while (batch := {"due": batcher.due, "full": batcher.full, "flush": batcher.flush}[what](now)) is not None:
            assert 1 <= len(batch.tiles) <= max_tiles
            assert (batch.released == "count") == (len(batch.tiles) == max_tiles) or batch.released == "age"
            taken += batch.tiles
    while (batch := batcher.flush(now)) is not None:
        taken += batch.tiles
    assert taken == list(range(given_tiles))
    assert len(batcher) == 0
