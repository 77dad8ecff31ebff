"""Calls of any length become the batches a card is compiled for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.engines.gpu.buckets import LAUNCH, Part, cut

BUCKETS = st.sets(st.integers(1, 40), min_size=1, max_size=5).map(tuple)


@given(st.integers(0, 400), BUCKETS)
def test_parts_cover_every_row_once_and_hold_what_they_say(tiles: int, buckets: tuple[int, ...]) -> None:
    parts = list(cut(tiles, buckets))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(tiles))
    assert all(part.bucket in buckets and 0 < part.stop - part.start <= part.bucket for part in parts)


@given(st.integers(1, 60), BUCKETS)
def test_no_other_choice_of_buckets_is_cheaper(tiles: int, buckets: tuple[int, ...]) -> None:
    cheapest = [0] + [10**9] * tiles
    for count in range(1, tiles + 1):  # slower and simpler than the code: every bucket at every place
        for bucket in buckets:
            cheapest[count] = min(cheapest[count], cheapest[max(0, count - bucket)] + bucket + LAUNCH)
    found = sum(part.bucket + LAUNCH for part in cut(tiles, buckets))
    assert found <= cheapest[tiles] + (0 if tiles <= 2 * max(buckets) else max(buckets))


@pytest.mark.parametrize(
    ("tiles", "buckets"),
    [
        (192, [192]),
        (64, [64]),
        (200, [192, 8]),
        (60, [64]),
        (40, [32, 8]),
        (5, [8]),
        (0, []),
        (1000, [192] * 5 + [32, 8]),
    ],
)
def test_nothing_is_padded_where_it_does_not_pay(tiles: int, buckets: list[int]) -> None:
    assert [part.bucket for part in cut(tiles, (8, 32, 64, 128, 192))] == buckets


def test_the_last_part_says_what_of_it_is_padding() -> None:
    assert list(cut(11, (8, 4))) == [Part(0, 8, 8), Part(8, 11, 4)]


@pytest.mark.parametrize("buckets", [(), (0, 8)])
def test_buckets_that_hold_nothing_are_refused(buckets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="whole numbers from 1"):
        list(cut(3, buckets))
