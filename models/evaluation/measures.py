"""How well scores tell tiles with a defect from tiles without, and how sure of that so many photos let us be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

Scored = NDArray[np.float32]
Flags = NDArray[np.bool_]
Weights = NDArray[np.float64]
Measure = Callable[[Weights], float]
"""A figure of tiles of which tile i counts weight[i] times; NaN where it is not defined."""


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """95 % of the bootstrap's draws lie between these."""

    low: float
    high: float


@dataclass(frozen=True)
class Ranking:
    """Tiles of one class by their scores, sorted once so that a thousand bootstrap draws need no sorting.

    `place` is int[n], 0 for the lowest score, the same for equal ones; `present` is bool[n].
    """

    place: NDArray[np.intp]
    present: Flags

    @classmethod
    def of(cls, scores: Scored, present: Flags) -> Ranking:
        """From float32[n] scores and bool[n] truth."""
        return cls(np.unique(scores, return_inverse=True)[1], present)

    def auroc(self, weight: Weights) -> float:
        """Chance that a tile with the defect scores above one without, ties counting half (Mann-Whitney)."""
        with_it, without = self._masses(weight)
        pairs = with_it.sum() * without.sum()
        if pairs == 0:
            return float("nan")
        below = np.cumsum(without) - without / 2.0
        return float(with_it @ below / pairs)

    def average_precision(self, weight: Weights) -> float:
        """Precision averaged over the recall that each score adds, equal scores taken together."""
        with_it, without = (mass[::-1] for mass in self._masses(weight))
        called, found = np.cumsum(with_it + without), np.cumsum(with_it)
        if with_it.sum() == 0:
            return float("nan")
        precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        return float(precision @ with_it / found[-1])

    def _masses(self, weight: Weights) -> tuple[Weights, Weights]:
        """How many tiles with and without the defect carry each score, float64[levels] each."""
        levels = int(self.place.max(initial=-1)) + 1
        with_it = np.bincount(self.place, weight * self.present, minlength=levels)
        without = np.bincount(self.place, weight * ~self.present, minlength=levels)
        return with_it.astype(np.float64, copy=False), without.astype(np.float64, copy=False)


def auroc(scores: Scored, present: Flags) -> float:
    """Area under the ROC curve; NaN unless there are tiles of both kinds."""
    return Ranking.of(scores, present).auroc(np.ones(scores.size))


def average_precision(scores: Scored, present: Flags) -> float:
    """Area under the steps of the precision-recall curve; NaN without a tile that shows the defect."""
    return Ranking.of(scores, present).average_precision(np.ones(scores.size))


def recall_of(called: Flags, present: Flags) -> Measure:
    """The share of the tiles with the defect that were called, as a function of how often each tile counts."""

    def recall(weight: Weights) -> float:
        all_of_them = float(weight @ present)
        return float(weight @ (called & present)) / all_of_them if all_of_them else float("nan")

    return recall


def f_beta(called: Flags, present: Flags, beta: float = 2.0) -> float:
    """F-measure in which recall counts `beta` times as much as precision; NaN with nothing called and nothing there."""
    found, square = int((called & present).sum()), beta * beta
    total = int(called.sum()) + square * int(present.sum())
    return (1.0 + square) * found / total if total else float("nan")


ROUNDS = 1000
"""How often the bootstrap draws: with more, the third decimal of an interval would hardly move."""


def bootstrap(
    measures: Mapping[str, Measure], groups: Sequence[str], rounds: int = ROUNDS
) -> dict[str, Interval | None]:
    """95 % intervals (percentiles) of measures when whole groups are drawn with replacement.

    Tiles of a photo resemble each other, so drawing tiles would make the intervals far too narrow. Draws for which a
    measure is not defined are left out; None if there are no others. The draws are the same each time.
    """
    values: dict[str, list[float]] = {name: [] for name in measures}
    for weight in _draws(groups, rounds):
        for name, measure in measures.items():
            values[name].append(measure(weight))
    return {name: _interval(np.array(found)) for name, found in values.items()}


def _draws(groups: Sequence[str], rounds: int) -> Iterator[Weights]:
    """How often each tile was drawn, float64[n] a round; one group alone has no other draw, and gives none."""
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    random = np.random.default_rng(20261101)
    for _ in range(rounds if len(names) > 1 else 0):
        drawn = random.integers(len(names), size=len(names))
        yield np.bincount(drawn, minlength=len(names)).astype(np.float64)[member]


def _interval(values: NDArray[np.float64]) -> Interval | None:
    defined = values[np.isfinite(values)]
    if defined.size == 0:
        return None
    low, high = np.quantile(defined, (0.025, 0.975))
    return Interval(float(low), float(high))
