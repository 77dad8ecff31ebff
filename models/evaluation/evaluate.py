"""How good a release is, in figures with their counts and intervals; what is not labelled counts for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from models.evaluation.calibration import calibration_error, reliability
from models.evaluation.measures import (
    ROUNDS,
    Flags,
    Interval,
    Measure,
    Ranking,
    Scored,
    auroc,
    bootstrap,
    f_beta,
    recall_of,
)


@dataclass(frozen=True)
class Rule:
    """When a class is called: from `high` on it is reported, down to `low` what is reported grows.

    A class without thresholds is untrained: its scores mean nothing and it is never called. `weight` is its importance.
    """

    name: str
    high: float | None
    low: float | None
    weight: float = 1.0


class Calling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What calling a class from `threshold` on gives; `false_alarm_share` is of the tiles without the defect."""

    threshold: float
    recall: float | None = None
    recall_interval: Interval | None = None
    precision: float | None = None
    f2: float | None = None
    false_alarm_share: float | None = None


class ClassMetrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Figures of one class on one set of tiles; a figure that its counts do not allow is None.

    `photos` counts the groups with any known label, `photos_present` those that show the class. Recall, precision, F2
    and `false_alarm_share` (of the tiles without the defect) are at the class's `high` threshold, in `review` at `low`.
    Intervals are a bootstrap over groups, None where fewer than two groups show the class.
    """

    positives: int
    negatives: int
    photos: int
    photos_present: int
    auroc: float | None = None
    auroc_interval: Interval | None = None
    average_precision: float | None = None
    average_precision_interval: Interval | None = None
    recall: float | None = None
    recall_interval: Interval | None = None
    precision: float | None = None
    f2: float | None = None
    false_alarm_share: float | None = None
    review: Calling | None = None
    calibration_error: float | None = None


class PhotoMetrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One photo: how many of its tiles show the class, how many of those were found, how many calls were false."""

    photo: str
    tiles: int
    present: int
    found: int
    false_alarms: int
    auroc: float | None = None


def class_metrics(
    scores: Scored, labels: Scored, groups: Sequence[str], rule: Rule, rounds: int = ROUNDS
) -> ClassMetrics:
    """All figures of one class; `labels` is float32[n], NaN unknown; `rounds` is how often the bootstrap draws."""
    known = ~np.isnan(labels)
    scores, present, names = scores[known], labels[known] == 1, np.asarray(groups)[known]
    metrics = ClassMetrics(
        positives=int(present.sum()),
        negatives=int((~present).sum()),
        photos=len(np.unique(names)),
        photos_present=len(np.unique(names[present])),
    )
    if rule.high is None or rule.low is None:
        return metrics
    ranking = Ranking.of(scores, present)
    both = bool(metrics.positives and metrics.negatives)
    ranking, ones = Ranking.of(scores, present), np.ones(scores.size)
    # With one group that shows the class every draw would hold the same tiles with the defect.
    measures: dict[str, Measure] = {
        "auroc": ranking.auroc,
        "average_precision": ranking.average_precision,
        "recall": recall_of(scores >= rule.high, present),
        "review_recall": recall_of(scores >= rule.low, present),
    }
    spans = bootstrap(measures, names.tolist(), rounds) if metrics.photos_present > 1 else {}
    report = calling(scores, present, rule.high, spans.get("recall"))
    return msgspec.structs.replace(
        metrics,
        auroc=ranking.auroc(ones) if both else None,
        auroc_interval=spans.get("auroc") if both else None,
        average_precision=ranking.average_precision(ones) if both else None,
        average_precision_interval=spans.get("average_precision") if both else None,
        recall=report.recall,
        recall_interval=report.recall_interval,
        precision=report.precision,
        f2=report.f2,
        false_alarm_share=report.false_alarm_share,
        review=calling(scores, present, rule.low, spans.get("review_recall")),
        calibration_error=calibration_error(reliability(scores, present)) if both else None,
    )


def calling(scores: Scored, present: Flags, threshold: float, recall_interval: Interval | None) -> Calling:
    """Figures of calling every tile from `threshold` on; precision and F2 need tiles of both kinds to mean anything."""
    called = scores >= threshold
    both = bool(present.any() and not present.all())
    return Calling(
        threshold=threshold,
        recall=float(called[present].mean()) if present.any() else None,
        recall_interval=recall_interval,
        precision=float(present[called].mean()) if both and called.any() else None,
        f2=f_beta(called, present) if both else None,
        false_alarm_share=None if present.all() else float(called[~present].mean()),
    )


def photo_metrics(scores: Scored, labels: Scored, groups: Sequence[str], high: float) -> list[PhotoMetrics]:
    """One row per photo that has a known label of the class, in the order of their names."""
    known = ~np.isnan(labels)
    names = np.asarray(groups)
    rows = []
    for photo in np.unique(names[known]):
        here = known & (names == photo)
        present, called = labels[here] == 1, scores[here] >= high
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
