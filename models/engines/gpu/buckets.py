"""Cuts any number of tiles into the few batch sizes a card's network is compiled for, padding as little as it pays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

LAUNCH = 4
"""What another batch is taken to cost, in tiles: a guess, until it is measured on a card."""


class Part(NamedTuple):
    """Rows `start` to `stop` of a call run as a batch of `bucket` tiles, of which the last ones may be padding."""

    start: int
    stop: int
    bucket: int


def cut(tiles: int, buckets: Sequence[int]) -> Iterator[Part]:
    """Consecutive parts that cover `tiles` rows exactly, cheapest first by tiles computed and `LAUNCH` for each part.

    A call of one bucket's size is that bucket and nothing else. Raises ValueError for buckets below 1, or none.
    """
    sizes = tuple(sorted(set(buckets)))
    if not sizes or sizes[0] < 1:
        raise ValueError(f"batch sizes are whole numbers from 1, not {tuple(buckets)}")
    start = 0
    while tiles - start > 2 * sizes[-1]:  # far from the end the largest is always right, and keeps the table short
        yield Part(start, start + sizes[-1], sizes[-1])
        start += sizes[-1]
    for bucket in _best(tiles - start, sizes):
        stop = min(start + bucket, tiles)
        yield Part(start, stop, bucket)
        start = stop


@lru_cache(maxsize=4096)
def _best(tiles: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The buckets, largest first, that hold so many tiles at the lowest cost; of equal ones the fewer."""
    costs, last = [0], [0]
    for count in range(1, tiles + 1):
        cost, size = min((costs[max(0, count - size)] + size + LAUNCH, -size) for size in sizes)
        costs.append(cost)
        last.append(-size)
    found, count = [], tiles
    while count > 0:
        found.append(last[count])
        count -= last[count]
    return tuple(sorted(found, reverse=True))
