"""Whatever a library does between fetch and work, each record of the log is taken once, in its order, or it is told."""

from __future__ import annotations

import bisect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.findings.order import TRIES, Hole, Order


def test_what_comes_in_order_is_taken_once() -> None:
    order = Order()
    order.begin("a", 5)
    assert order.fetched("a", [5, 6]) is None
    assert [order.take("a", offset) for offset in (5, 6, 5, 6)] == [True, True, False, False]


def test_a_partition_that_is_not_ours_is_left_alone() -> None:
    order = Order()
    assert not order.take("a", 0)
    order.begin("a", 0)
    order.clear()
    assert "a" not in order
    assert not order.take("a", 0)


def test_a_stretch_the_fetch_left_out_is_fetched_again() -> None:
    order = Order()
    order.begin("a", 5)
    assert order.fetched("a", [8, 9]) == 5
    assert order.fetched("a", [5, 6, 7, 8]) is None
    assert all(order.take("a", offset) for offset in (5, 6, 7, 8))


def test_a_stretch_the_log_does_not_have_is_passed_over_at_the_second_look() -> None:
    order = Order()
    order.begin("a", 5)
    assert order.fetched("a", [8, 10]) == 5
    assert order.fetched("a", [8, 10]) is None
    assert [order.take("a", offset) for offset in (8, 10)] == [True, True]


def test_a_record_lost_between_fetch_and_work_is_fetched_again() -> None:
    order = Order()
    order.begin("a", 5)
    assert order.fetched("a", [5, 6, 7, 8]) is None
    assert order.take("a", 5)
    assert [order.take("a", offset) for offset in (7, 8)] == [False, False]
    assert order.lost() == {"a": 6}
    assert order.fetched("a", [9]) == 6  # a fetch from before that was still under way
    assert order.lost() == {"a": 6}
    assert order.fetched("a", [6, 7]) is None
    assert order.lost() == {}
    assert [order.take("a", offset) for offset in (6, 7)] == [True, True]


def test_what_lay_in_emptied_queues_is_fetched_again_though_nothing_comes_after_it() -> None:
    order = Order()
    for line in ("a", "b"):
        order.begin(line, 5)
    assert order.fetched("a", [5, 6]) is None
    assert order.fetched("b", [5]) is None
    assert order.take("a", 5)
    assert order.take("b", 5)
    order.emptied()
    assert order.lost() == {"a": 6}


def test_a_record_that_gets_lost_again_and_again_is_told() -> None:
    order = Order()
    order.begin("a", 5)
    for _ in range(TRIES - 1):
        assert order.fetched("a", [5, 6]) is None
        assert not order.take("a", 6)
    assert order.fetched("a", [5, 6]) is None
    with pytest.raises(Hole, match="offset 5 was due, 6 came, 5 times"):
        order.take("a", 6)


def test_a_loss_before_a_bare_stretch_does_not_make_the_log_forget_it() -> None:
    order = Order()
    order.begin("a", 5)
    assert order.fetched("a", [7, 8]) == 5
    assert order.fetched("a", [7, 8]) is None
    assert not order.take("a", 8)
    assert order.lost() == {"a": 5}
    assert order.fetched("a", [7, 8]) == 5
    assert order.fetched("a", [7, 8]) is None
    assert [order.take("a", offset) for offset in (7, 8)] == [True, True]


def test_after_a_rewind_the_fetch_goes_on_where_the_work_was() -> None:
    order = Order()
    order.begin("a", 5)
    assert order.fetched("a", [5, 6, 7]) is None
    assert order.take("a", 5)
    assert order.rewind("a") == 6
    assert order.fetched("a", [8]) == 6  # a fetch from before that was still under way


logs = st.sets(st.integers(0, 40), min_size=1).map(sorted)
acts = st.lists(
    st.one_of(
        st.tuples(st.just("fetch"), st.integers(1, 5)),
        st.tuples(st.just("stale fetch"), st.integers(0, 40)),
        st.tuples(st.just("work"), st.integers(1, 5)),
        st.tuples(st.just("rewind"), st.just(0)),
        st.tuples(st.just("repeat"), st.integers(0, 5)),
        st.tuples(st.just("lose"), st.just(0)),
        st.tuples(st.just("empty"), st.just(0)),
    ),
    max_size=60,
)


@given(logs, acts)
def test_no_record_of_a_log_is_passed_over_and_the_last_one_comes(log: list[int], acts: list[tuple[str, int]]) -> None:
    """A model of a careless library: stale fetches, repeats, lost records and rewinds, over a log with stretches bare.

    A stale fetch comes at most once for a position: it is discarded by aiokafka once it has been told to seek. When the
    library has come to rest, a few fetches bring the work to the end of the log.
    """
    order, taken = Order(), []
    order.begin("a", 0)
    position, queue, sought = 0, [], False

    def fetch(start: int, number: int) -> None:
        nonlocal position, sought
        offsets = log[bisect.bisect_left(log, start) :][:number]
        if offsets:
            again = order.fetched("a", offsets)
            sought = again is not None
            if again is None:
                queue.extend(offsets)
            position = offsets[-1] + 1 if again is None else again

    def work(number: int) -> None:
        taken.extend(offset for offset in queue[:number] if order.take("a", offset))
        del queue[:number]
        assert taken == log[: len(taken)]

    def before_fetch() -> None:
        nonlocal position
        position = order.lost().get("a", position)

    for act, number in acts:
        if act == "fetch":
            before_fetch()
            fetch(position, number)
        elif act == "stale fetch" and not sought:
            fetch(number, 3)
        elif act == "rewind":
            position = order.rewind("a")
            queue.clear()
        elif act == "repeat" and queue:
            queue.extend(queue[:number])
        elif act == "lose" and queue:
            queue.pop(0)
        elif act == "empty":
            queue.clear()
            order.emptied()
        elif act == "work":
            try:
                work(number)
            except Hole:
                return
        assert taken == log[: len(taken)]
    queue.clear()
    order.emptied()
    for _ in range(4):
        before_fetch()
        fetch(position, len(log))
    work(len(queue))
    assert taken == log
