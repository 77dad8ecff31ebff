"""Figures of a class count what is labelled, agree with scikit-learn, and are silent where the counts allow none."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from models.evaluation.evaluate import ClassMetrics, Rule, class_metrics, photo_metrics
from models.evaluation.measures import bootstrap

RULE = Rule("crack", 0.5, 0.25)

rows = st.lists(
    st.tuples(st.integers(0, 8).map(lambda value: value / 8), st.sampled_from([1.0, 0.0, np.nan]), st.integers(0, 4)),
    min_size=1,
    max_size=40,
)


def columns(drawn: list[tuple[float, float, int]]) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
    table = np.array([row[:2] for row in drawn], np.float32)
    return table[:, 0], table[:, 1], [f"photo-{row[2]}" for row in drawn]


@settings(deadline=None)
@given(rows)
def test_every_figure_agrees_with_scikit_learn_on_the_known_labels(drawn: list[tuple[float, float, int]]) -> None:
    scores, labels, groups = columns(drawn)
    known = ~np.isnan(labels)
    present, called = labels[known] == 1, scores[known] >= 0.5
    assume(present.any() and not present.all())
    found = class_metrics(scores, labels, groups, RULE, rounds=20)
    assert found.auroc == pytest.approx(metrics.roc_auc_score(present, scores[known]))
    assert found.average_precision == pytest.approx(metrics.average_precision_score(present, scores[known]))
    assert found.recall == pytest.approx(metrics.recall_score(present, called))
    assert found.f2 == pytest.approx(metrics.fbeta_score(present, called, beta=2.0))
    if called.any():
        assert found.precision == pytest.approx(metrics.precision_score(present, called))
    else:
        assert found.precision is None
    true_negatives, false_positives, _, _ = metrics.confusion_matrix(present, called).ravel()
    assert found.false_alarm_share == pytest.approx(false_positives / (false_positives + true_negatives))
    assert found.review is not None
    assert found.review.recall == pytest.approx(metrics.recall_score(present, scores[known] >= 0.25))


@settings(deadline=None)
@given(rows, rows)
def test_tiles_without_a_known_label_change_nothing(
    drawn: list[tuple[float, float, int]], more: list[tuple[float, float, int]]
) -> None:
    unknown = [(score, np.nan, group) for score, _, group in more]
    assert class_metrics(*columns(drawn), RULE, 20) == class_metrics(*columns(drawn + unknown), RULE, 20)


@settings(deadline=None)
@given(rows)
def test_every_interval_holds_only_shares(drawn: list[tuple[float, float, int]]) -> None:
    found = class_metrics(*columns(drawn), RULE, rounds=20)
    for span in (found.auroc_interval, found.average_precision_interval, found.recall_interval):
        assert span is None or 0.0 <= span.low <= span.high <= 1.0


def test_unknown_labels_count_for_nothing() -> None:
    scores = np.array([0.9, 0.8, 0.3, 0.99], np.float32)
    labels = np.array([1, 0, 0, np.nan], np.float32)
    found = class_metrics(scores, labels, ["a", "a", "b", "c"], RULE)
    assert (found.positives, found.negatives, found.photos, found.photos_present) == (1, 2, 2, 1)
    assert (found.auroc, found.recall, found.precision, found.false_alarm_share) == (1.0, 1.0, 0.5, 0.5)


def test_a_set_with_nothing_but_defects_has_a_recall_and_nothing_else() -> None:
    found = class_metrics(np.array([0.9, 0.1], np.float32), np.ones(2, np.float32), ["a", "b"], RULE)
    assert found.recall == 0.5 and found.review is not None and found.review.recall == 0.5
    assert found.auroc is None and found.average_precision is None and found.calibration_error is None
    assert found.precision is None and found.f2 is None and found.false_alarm_share is None


def test_a_set_without_the_defect_still_counts_false_alarms() -> None:
    found = class_metrics(np.array([0.9, 0.1], np.float32), np.zeros(2, np.float32), ["a", "b"], RULE)
    assert found.false_alarm_share == 0.5
    assert found.auroc is None and found.recall is None and found.precision is None and found.f2 is None


def test_a_class_without_thresholds_has_counts_and_no_figure() -> None:
    found = class_metrics(
        np.array([0.9, 0.1], np.float32), np.array([1, 0], np.float32), ["a", "b"], Rule("crack", None, None)
    )
    assert found == ClassMetrics(positives=1, negatives=1, photos=2, photos_present=1)


def test_a_class_that_nobody_labelled_has_no_figure() -> None:
    found = class_metrics(np.array([0.9, 0.1], np.float32), np.full(2, np.nan, np.float32), ["a", "b"], RULE)
    assert (found.positives, found.negatives, found.photos) == (0, 0, 0)
    assert found.auroc is None and found.recall is None and found.false_alarm_share is None


def test_one_group_that_shows_the_class_gives_figures_and_no_interval() -> None:
    scores, labels = np.array([0.9, 0.6, 0.3, 0.1], np.float32), np.array([1, 1, 0, 0], np.float32)
    assert class_metrics(scores, labels, ["a", "a", "b", "c"], RULE).auroc_interval is None
    assert class_metrics(scores, labels, ["a", "d", "b", "c"], RULE).auroc_interval is not None


def test_intervals_are_those_of_the_bootstrap_over_groups() -> None:
    random = np.random.default_rng(0)
    labels = (random.random(200) < 0.3).astype(np.float32)
    scores = (labels * 0.3 + random.random(200) * 0.7).astype(np.float32)
    groups = [f"g{i // 20}" for i in range(200)]

    def slow(weight: NDArray[np.float64]) -> float:
        return float(metrics.roc_auc_score(labels, scores, sample_weight=weight))

    expected = bootstrap({"auroc": slow}, groups, rounds=100)["auroc"]
    found = class_metrics(scores, labels, groups, RULE, rounds=100).auroc_interval
    assert expected is not None and found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_photos_are_counted_one_by_one() -> None:
    scores = np.array([0.9, 0.2, 0.7, 0.6], np.float32)
    labels = np.array([1, 1, 0, np.nan], np.float32)
    first, second = photo_metrics(scores, labels, ["a", "a", "b", "b"], high=0.5)
    assert (first.photo, first.tiles, first.present, first.found, first.false_alarms) == ("a", 2, 2, 1, 0)
    assert (second.photo, second.tiles, second.present, second.found, second.false_alarms) == ("b", 1, 0, 0, 1)
