"""Turns measurements into figures: medians with their spread, percentiles, and the arrival times of an open loop."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import msgspec


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """What repetitions of one measurement gave."""

    median: float
    low: float
    high: float
    runs: tuple[float, ...]


def spread(values: Sequence[float], digits: int = 4) -> Spread:
    """Median, least and greatest of at least one value, in the order they came."""
    kept = tuple(round(value, digits) for value in values)
    return Spread(median=round(statistics.median(kept), digits), low=min(kept), high=max(kept), runs=kept)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank).

    Nothing is interpolated: with fewer than 100 values, the 99th percentile is the greatest of them.
    """
    if not values or not 0.0 < share <= 1.0:
        raise ValueError(f"a percentile of {len(values)} values at {share}: values and a share in (0, 1] are needed")
    # Rounded first: 0.95 of 100 values is the 95th, and a float product may say 95.00000000000001.
    return sorted(values)[math.ceil(round(share * len(values), 9)) - 1]


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of one kind of latency, in seconds."""

    frames: int
    p50: float
    p95: float
    p99: float
    highest: float


def tail(seconds: Sequence[float]) -> Tail:
    """The percentiles that people ask for."""
    p50, p95, p99 = (round(percentile(seconds, share), 4) for share in (0.5, 0.95, 0.99))
    return Tail(frames=len(seconds), p50=p50, p95=p95, p99=p99, highest=round(max(seconds), 4))


def arrivals(period_s: float, count: int, jitter: float, seed: int) -> list[float]:
    """When each of `count` periodic arrivals is due, in seconds from the first tick.

    Each is off its own tick by up to `jitter` periods to either side, so lateness does not add up and the mean rate
    stays. With a jitter below one half the order is that of the ticks. The same seed gives the same times.
    """
    if period_s <= 0 or not 0.0 <= jitter < 0.5:
        raise ValueError(f"a period of {period_s} s with a jitter of {jitter}: above 0, and from 0 to below 0.5")
    chance = random.Random(seed)
    return [max(0.0, (tick + chance.uniform(-jitter, jitter)) * period_s) for tick in range(count)]


def growth(samples: Sequence[float]) -> float:
    """Median of the last quarter over that of the first: 1.0 is flat.

    Raises:
        ValueError: fewer than four samples have no quarters.
    """
    quarter = len(samples) // 4
    if not quarter:
        raise ValueError(f"{len(samples)} samples have no quarters: measure for longer, or sample more often")
    return statistics.median(samples[-quarter:]) / statistics.median(samples[:quarter])
