"""Which tiles to look at first: where a release was surest and wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from models.evaluation.evaluate import Rule
from models.evaluation.measures import Scored

PER_GROUP = 2
"""Of one group no more are shown, so that one bad photo does not hide the others."""


@dataclass(frozen=True)
class Mistakes:
    """Rows of the worst mistakes of one class: called though absent, and not called though there; the worst first."""

    false_alarms: tuple[int, ...]
    misses: tuple[int, ...]


def worst_mistakes(scores: Scored, labels: Scored, groups: Sequence[str], rule: Rule, count: int = 8) -> Mistakes:
    """The most confident false calls from the review threshold on, and the misses below the report threshold.

    `scores` and `labels` are those of one class, float32[n], NaN unknown; there are at most `count` rows of each kind.
    """
    if rule.high is None or rule.low is None:
        return Mistakes((), ())
    absent = np.flatnonzero((labels == 0) & (scores >= rule.low))
    present = np.flatnonzero((labels == 1) & (scores < rule.high))
    return Mistakes(
        _spread(absent[np.argsort(-scores[absent], kind="stable")].tolist(), groups, count),
        _spread(present[np.argsort(scores[present], kind="stable")].tolist(), groups, count),
    )


def _spread(rows: Iterable[int], groups: Sequence[str], count: int) -> tuple[int, ...]:
    chosen: list[int] = []
    taken: dict[str, int] = {}
    for row in rows:
        taken[groups[row]] = taken.get(groups[row], 0) + 1
        if taken[groups[row]] <= PER_GROUP and len(chosen) < count:
            chosen.append(row)
    return tuple(chosen)
