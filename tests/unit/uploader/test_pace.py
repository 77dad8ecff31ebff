"""The bandwidth limit, over any sequence of photos and pauses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import Misuse
from stream.uploader.pace import Pace

SIZES = st.lists(st.tuples(st.integers(0, 50_000_000), st.floats(0, 100)), max_size=40)


@given(rate=st.integers(1, 100_000_000), photos=SIZES)
def test_what_is_sent_never_exceeds_the_rate_by_more_than_a_second_and_one_photo(
    rate: int, photos: list[tuple[int, float]]
) -> None:
    pace, now, total = Pace(rate, now=0.0), 0.0, 0
    for size, idle_s in photos:
        now += idle_s
        now += pace.wait_s(now)
        assert total <= rate * (now + 1) * (1 + 1e-9) + 1, "a photo started before the ones before it were paid for"
        pace.sent(size, now)
        total += size


@given(rate=st.integers(1, 100_000_000), size=st.integers(0, 50_000_000))
def test_a_photo_larger_than_the_bucket_still_goes_out_at_once_and_is_paid_for_afterwards(rate: int, size: int) -> None:
    pace = Pace(rate, now=5.0)
    assert pace.wait_s(5.0) == 0.0
    pace.sent(size, 5.0)
    assert pace.wait_s(5.0) == pytest.approx(max(0.0, size / rate - 1), abs=1e-6)


def test_waiting_as_long_as_it_says_is_enough() -> None:
    pace = Pace(1000, now=0.0)
    pace.sent(5000, 0.0)
    assert pace.wait_s(pace.wait_s(0.0)) == 0.0


def test_an_idle_hour_buys_no_more_than_one_second() -> None:
    pace = Pace(1000, now=0.0)
    pace.sent(1000, 3600.0)
    pace.sent(1000, 3600.0)
    assert pace.wait_s(3600.0) == 1.0


def test_a_clock_that_steps_back_gives_nothing_away() -> None:
    pace = Pace(1000, now=10.0)
    pace.sent(3000, 10.0)
    assert pace.wait_s(4.0) == 2.0
    assert pace.wait_s(10.0) == 2.0


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_limit_that_sends_nothing_is_refused(rate: float) -> None:
    with pytest.raises(Misuse, match="sends nothing"):
        Pace(rate, now=0.0)
