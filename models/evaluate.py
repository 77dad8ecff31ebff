"""How good a release is, in figures with their counts and intervals; a photo counts once, however many tiles it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

Scored = NDArray[np.float32]
Measure = Callable[[Scored, NDArray[np.bool_]], float]


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """95 % of the bootstrap's draws lie between these."""

    low: float
    high: float


class ClassMetrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Figures of one class on one set of tiles; a figure that its counts do not allow is None.

    `photos` counts the groups with any known label, `photos_present` those that show the class. Recall and
    `false_alarm_share` (of the tiles without the defect) are at the class's `high` threshold.
    """

    positives: int
    negatives: int
    photos: int
    photos_present: int
    auroc: float | None = None
    auroc_interval: Interval | None = None
    average_precision: float | None = None
    recall: float | None = None
    precision: float | None = None
    false_alarm_share: float | None = None


class PhotoMetrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One photo: how many of its tiles show the class, how many of those were found, how many calls were false."""

    photo: str
    tiles: int
    present: int
    found: int
    false_alarms: int
    auroc: float | None = None


@dataclass(frozen=True)
class Thresholds:
    """`high` opens a region, `low` (never above) lets it grow; both are probabilities."""

    high: float
    low: float


def auroc(scores: Scored, present: NDArray[np.bool_]) -> float:
    """Chance that a tile with the defect scores above one without, ties counting half; NaN if a kind is missing."""
    positives = int(present.sum())
    negatives = present.size - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    # The mean rank of equal scores makes the ties count half (Mann-Whitney).
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2.0)[place]
    return float((ranks[present].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def average_precision(scores: Scored, present: NDArray[np.bool_]) -> float:
    """Precision averaged over the recall each score adds, equal scores taken together; NaN without a positive."""
    positives = int(present.sum())
    if positives == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(present[order])
    last_of_equals = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    precision = found[last_of_equals] / (last_of_equals + 1.0)
    gained = np.diff(found[last_of_equals], prepend=0)
    return float((precision * gained).sum() / positives)


def bootstrap(
    scores: Scored, present: NDArray[np.bool_], groups: Sequence[str], measure: Measure = auroc, rounds: int = 1000
) -> Interval | None:
    """95 % interval of a measure when whole groups (photos) are drawn with replacement; None if it is never defined.

    Tiles of a photo resemble each other, so drawing tiles would make the interval far too narrow. Draws without both
    kinds of tile are left out. The draws are the same each time.
    """
    random = np.random.default_rng(20261101)
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(member == group) for group in range(int(member.max(initial=-1)) + 1)]
    values = []
    for _ in range(rounds if rows else 0):
        drawn = np.concatenate([rows[i] for i in random.integers(len(rows), size=len(rows))])
        values.append(measure(scores[drawn], present[drawn]))
    defined = np.array([value for value in values if np.isfinite(value)])
    if defined.size == 0:
        return None
    return Interval(*(float(value) for value in np.quantile(defined, (0.025, 0.975))))


def choose_thresholds(
    scores: Scored, present: NDArray[np.bool_], recall_floor: float, weight: NDArray[np.float64] | None = None
) -> Thresholds:
    """Thresholds from validation tiles: `high` where F1 is best, `low` where the recall floor is met.

    `low` is at most half of `high`, so that a region can grow. `weight` says how many tiles each tile counts for in F1;
    None is one. Raises ValueError without a tile of each kind.
    """
    if present.all() or not present.any():
        raise ValueError("thresholds need tiles with and without the defect")
    weight = np.ones(scores.size) if weight is None else weight
    levels = np.unique(scores[present])  # the best level is always the score of a tile with the defect
    called = scores[None, :] >= levels[:, None]
    hits = (called & present).sum(axis=1)
    f1 = 2.0 * (called & present) @ weight / (called @ weight + weight[present].sum())
    high = float(levels[int(f1.argmax())])
    meets_floor = levels[hits >= recall_floor * present.sum()]
    return Thresholds(high, min(float(meets_floor.max()), 0.5 * high))


def class_metrics(scores: Scored, labels: Scored, groups: Sequence[str], high: float | None) -> ClassMetrics:
    """All figures of one class; `labels` is float32[n], NaN unknown; `high` is None for a class without thresholds."""
    known = ~np.isnan(labels)
    scores, present = scores[known], labels[known] > 0.5
    names = np.asarray(groups)[known]
    positives, negatives = int(present.sum()), int((~present).sum())
    counts = ClassMetrics(
        positives=positives,
        negatives=negatives,
        photos=len(np.unique(names)),
        photos_present=len(np.unique(names[present])),
    )
    if high is None:
        return counts
    called = scores >= high
    if negatives:
        counts = msgspec.structs.replace(counts, false_alarm_share=float(called[~present].mean()))
    if positives:
        precision = float(present[called].mean()) if called.any() else None
        counts = msgspec.structs.replace(counts, recall=float(called[present].mean()), precision=precision)
    if positives and negatives:
        counts = msgspec.structs.replace(
            counts,
            auroc=auroc(scores, present),
            auroc_interval=bootstrap(scores, present, list(names)),
            average_precision=average_precision(scores, present),
        )
    return counts


def photo_metrics(scores: Scored, labels: Scored, groups: Sequence[str], high: float) -> list[PhotoMetrics]:
    """One row per photo that has a known label of the class, in the order of their names."""
    known = ~np.isnan(labels)
    names = np.asarray(groups)
    rows = []
    for photo in np.unique(names[known]):
        here = known & (names == photo)
        present, called = labels[here] > 0.5, scores[here] >= high
        area = auroc(scores[here], present)
        rows.append(
            PhotoMetrics(
                photo=str(photo),
                tiles=int(here.sum()),
                present=int(present.sum()),
                found=int((called & present).sum()),
                false_alarms=int((called & ~present).sum()),
                auroc=None if np.isnan(area) else area,
            )
        )
    return rows
