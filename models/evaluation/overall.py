"""All figures of a release on a set of tiles: class by class, and what only all classes together can say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.evaluation.calibration import Bin, reliability
from models.evaluation.evaluate import ClassMetrics, Rule, class_metrics
from models.evaluation.measures import ROUNDS, Flags, Scored

EXTENTS = (1, 2, 3, 5, 10)
"""Of `Extent.least_tiles`: what is tried."""


class Macro(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Means over the classes for which a figure is defined; None if it is for none.

    `weighted_f2` is sum(w F2) / sum(w) over the classes with positives, w their importance (F2-CIW of Sewer-ML, Haurum
    and Moeslund, CVPR 2021). `review_…` is at the review thresholds, other calls are at the report thresholds.
    """

    classes: int
    auroc: float | None
    ap: float | None
    recall: float | None
    precision: float | None
    f2: float | None
    weighted_f2: float | None
    review_recall: float | None
    review_precision: float | None
    review_weighted_f2: float | None
    calibration_error: float | None


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A share of `of` things; None of no thing."""

    of: int
    share: float | None


class ExactMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Share of tiles of which every trained class is called rightly at the report thresholds.

    `all_known` looks at tiles of which every trained class is labelled, `known_only` at all tiles with a label, and
    there at the labelled classes only (which is easier: fewer calls have to be right).
    """

    all_known: Share
    known_only: Share


class CleanAlarms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often something is called where nothing is: on tiles, and on whole groups, whose every known label is 0.

    An alarm is a call of any trained class, labelled on that tile or not. `by_class` is of the clean tiles, at review.
    """

    report_tiles: Share
    report_groups: Share
    review_tiles: Share
    review_groups: Share
    by_class: dict[str, float]


class Extent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which groups raise an alert if so many tiles have to show one class (all tiles of a smaller group do).

    A class raises one where a tile reaches its report threshold and so many reach its review threshold: as a site's
    `findings.least_tiles` does for a photo, but that these tiles need not touch. `clean` is the share of the clean
    groups that raise one of any trained class, `showing` the share of the groups showing a class that raise one of a
    class that is there.
    """

    least_tiles: int
    clean: Share
    showing: Share


class Overall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is said of a set of tiles as a whole."""

    tiles: int
    groups: int
    macro: Macro
    exact_match: ExactMatch
    clean: CleanAlarms
    extents: tuple[Extent, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """All figures of one release on one manifest; `reliability` has the classes that have thresholds and labels."""

    overall: Overall
    classes: dict[str, ClassMetrics]
    reliability: dict[str, tuple[Bin, ...]]


def evaluate(
    probabilities: Scored, labels: Scored, groups: Sequence[str], rules: Sequence[Rule], rounds: int = ROUNDS
) -> Evaluation:
    """Judge float32[n, classes] probabilities by labels of the same shape (1, 0, NaN unknown).

    `groups` names what tile i must not be separated from; `rules` are in the order of the columns; `rounds` is how
    often the bootstrap draws.
    """
    classes, diagrams = {}, {}
    for column, rule in enumerate(rules):
        scores, truth = probabilities[:, column], labels[:, column]
        classes[rule.name] = class_metrics(scores, truth, groups, rule, rounds)
        known = ~np.isnan(truth)
        if rule.high is not None and known.any():
            diagrams[rule.name] = reliability(scores[known], truth[known] == 1)
    overall = Overall(
        tiles=len(groups),
        groups=len(set(groups)),
        macro=macro(classes, rules),
        exact_match=exact_match(probabilities, labels, rules),
        clean=clean_alarms(probabilities, labels, groups, rules),
        extents=extents(probabilities, labels, groups, rules),
    )
    return Evaluation(overall, classes, diagrams)


def macro(classes: Mapping[str, ClassMetrics], rules: Sequence[Rule]) -> Macro:
    """Means over classes, of what is defined; no class without thresholds takes part."""
    judged = [(rule.weight, classes[rule.name]) for rule in rules if rule.high is not None]
    reviews = [(weight, one.review) for weight, one in judged if one.review is not None]
    return Macro(
        classes=sum(one.auroc is not None for _, one in judged),
        auroc=_mean(one.auroc for _, one in judged),
        ap=_mean(one.average_precision for _, one in judged),
        recall=_mean(one.recall for _, one in judged),
        precision=_mean(one.precision for _, one in judged),
        f2=_mean(one.f2 for _, one in judged),
        weighted_f2=_weighted((weight, one.f2) for weight, one in judged),
        review_recall=_mean(one.recall for _, one in reviews),
        review_precision=_mean(one.precision for _, one in reviews),
        review_weighted_f2=_weighted((weight, one.f2) for weight, one in reviews),
        calibration_error=_mean(one.calibration_error for _, one in judged),
    )


def exact_match(probabilities: Scored, labels: Scored, rules: Sequence[Rule]) -> ExactMatch:
    """Whether whole tiles are called rightly, at the report thresholds of the trained classes."""
    judged = [rule.high is not None for rule in rules]
    truth = labels[:, judged]
    known, right = ~np.isnan(truth), _called(probabilities, rules, "high")[:, judged] == (truth == 1)
    return ExactMatch(
        all_known=_share(right.all(axis=1)[known.all(axis=1) & known.any(axis=1)]),
        known_only=_share((right | ~known).all(axis=1)[known.any(axis=1)]),
    )


def clean_alarms(probabilities: Scored, labels: Scored, groups: Sequence[str], rules: Sequence[Rule]) -> CleanAlarms:
    """False alarms where nothing is, by tile and by group; a tile without any label is not clean, and not looked at."""
    clean = _clean(labels)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    clean_groups = _clean_groups(labels, member, len(names))
    review = _called(probabilities, rules, "low")
    reported: Flags = np.any(_called(probabilities, rules, "high"), axis=1)
    reviewed: Flags = np.any(review, axis=1)
    trained = [(column, rule.name) for column, rule in enumerate(rules) if rule.high is not None]
    return CleanAlarms(
        report_tiles=_share(reported[clean]),
        report_groups=_share(_any_in(reported, member, len(names))[clean_groups]),
        review_tiles=_share(reviewed[clean]),
        review_groups=_share(_any_in(reviewed, member, len(names))[clean_groups]),
        by_class={name: float(review[clean, column].mean()) for column, name in trained if clean.any()},
    )


def extents(probabilities: Scored, labels: Scored, groups: Sequence[str], rules: Sequence[Rule]) -> tuple[Extent, ...]:
    """By how many tiles of a group are called of one class: the price of asking for more than one, and its gain."""
    names, member, size = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)

    def of_groups(flags: Flags) -> NDArray[np.intp]:
        return np.stack([np.bincount(member, column, minlength=len(names)) for column in flags.T], axis=1).astype(int)

    count = of_groups(_called(probabilities, rules, "low"))
    certain = of_groups(_called(probabilities, rules, "high")) > 0
    trained = np.array([rule.high is not None for rule in rules], np.bool_)
    there = (of_groups(labels == 1) > 0) & trained
    clean, showing = _clean_groups(labels, member, len(names)), there.any(axis=1)
    found = []
    for least in EXTENTS:
        raised = certain & (count >= np.minimum(least, size)[:, None])
        of_clean, of_showing = (np.any(rows, axis=1) for rows in (raised[clean], (raised & there)[showing]))
        found.append(Extent(least_tiles=least, clean=_share(of_clean), showing=_share(of_showing)))
    return tuple(found)


def _clean(labels: Scored) -> Flags:
    """bool[n]: something is known of the tile, and nothing is there."""
    clean: Flags = ~np.isnan(labels).all(axis=1) & ~(labels == 1).any(axis=1)
    return clean


def _clean_groups(labels: Scored, member: NDArray[np.intp], groups: int) -> Flags:
    """bool[groups]: a tile of it is clean, and none shows anything."""
    stained: Flags = (labels == 1).any(axis=1)
    return _any_in(_clean(labels), member, groups) & ~_any_in(stained, member, groups)


def _any_in(flags: Flags, member: NDArray[np.intp], groups: int) -> Flags:
    """bool[groups]: whether any tile of the group is flagged."""
    anywhere: Flags = np.bincount(member, flags, minlength=groups) > 0
    return anywhere


def _called(probabilities: Scored, rules: Sequence[Rule], which: str) -> Flags:
    """bool[n, classes]; a class without thresholds is never called."""
    thresholds = [getattr(rule, which) for rule in rules]
    called: Flags = probabilities >= np.array([np.inf if one is None else one for one in thresholds], np.float64)
    return called


def _share(flags: Flags) -> Share:
    return Share(int(flags.size), float(flags.mean()) if flags.size else None)


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _weighted(pairs: Iterable[tuple[float, float | None]]) -> float | None:
    defined = [(weight, value) for weight, value in pairs if value is not None]
    total = sum(weight for weight, _ in defined)
    return sum(weight * value for weight, value in defined) / total if total else None
