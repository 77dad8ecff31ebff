"""Figures are checked against tables worked out by hand, and against what must hold for any scores."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.evaluate import (
    auroc,
    average_precision,
    bootstrap,
    choose_thresholds,
    class_metrics,
    photo_metrics,
)

Case = tuple[NDArray[np.float32], NDArray[np.bool_]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    pairs = draw(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40))
    return np.array([p[0] / 8 for p in pairs], np.float32), np.array([p[1] for p in pairs])


def both_kinds(case: Case) -> bool:
    return bool(case[1].any() and not case[1].all())


@pytest.mark.parametrize(
    ("scores", "present", "expected"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 1.0),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0], 0.5),
        ([0.9, 0.4, 0.6, 0.1], [1, 1, 0, 0], 0.75),
        ([0.9, 0.6, 0.6, 0.1], [1, 1, 0, 0], 0.875),  # the tie counts half of one pair in four
    ],
)
def test_auroc_agrees_with_counting_pairs_by_hand(scores: list[float], present: list[int], expected: float) -> None:
    assert auroc(np.array(scores, np.float32), np.array(present) == 1) == pytest.approx(expected)


@given(cases())
def test_auroc_is_the_share_of_pairs_in_the_right_order(case: Case) -> None:
    assume(both_kinds(case))
    scores, present = case
    pairs = np.sign(scores[present][:, None] - scores[~present][None, :])
    assert auroc(scores, present) == pytest.approx(float((pairs + 1).mean() / 2))


@given(cases())
def test_auroc_sees_only_the_order_of_the_scores(case: Case) -> None:
    assume(both_kinds(case))
    scores, present = case
    assert auroc((scores * 3 - 1).astype(np.float32), present) == pytest.approx(auroc(scores, present))
    assert auroc(-scores, present) == pytest.approx(1.0 - auroc(scores, present))


def test_a_figure_without_both_kinds_of_tile_is_not_a_number() -> None:
    assert np.isnan(auroc(np.ones(3, np.float32), np.ones(3, np.bool_)))
    assert np.isnan(average_precision(np.ones(3, np.float32), np.zeros(3, np.bool_)))


def test_average_precision_agrees_with_a_table_worked_out_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    # found at ranks 1 and 3: precision 1/1 and 2/3, each for half of the recall
    assert average_precision(scores, np.array([True, False, True, False])) == pytest.approx((1.0 + 2 / 3) / 2)
    # equal scores are one step: two of four, precision 1/2
    assert average_precision(np.full(4, 0.5, np.float32), np.array([True, False, True, False])) == pytest.approx(0.5)


@given(cases())
def test_auroc_and_average_precision_agree_with_scikit_learn(case: Case) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    assume(both_kinds(case))
    scores, present = case
    assert auroc(scores, present) == pytest.approx(metrics.roc_auc_score(present, scores))
    assert average_precision(scores, present) == pytest.approx(metrics.average_precision_score(present, scores))


def test_the_interval_draws_photos_and_is_wider_than_one_that_draws_tiles() -> None:
    random = np.random.default_rng(3)
    groups = [f"photo-{i // 40}" for i in range(400)]
    shift = np.repeat(random.normal(0.0, 1.0, 10), 40)  # each photo has its own brightness, say
    present = random.random(400) < 0.3
    scores = (present + shift + random.normal(0.0, 0.5, 400)).astype(np.float32)
    by_photo = bootstrap(scores, present, groups, rounds=300)
    by_tile = bootstrap(scores, present, [str(i) for i in range(400)], rounds=300)
    assert by_photo is not None and by_tile is not None
    assert by_photo.low <= auroc(scores, present) <= by_photo.high
    assert by_photo.high - by_photo.low > 1.5 * (by_tile.high - by_tile.low)


def test_the_interval_is_the_same_each_time_and_absent_without_both_kinds() -> None:
    scores, present = np.linspace(0, 1, 30, dtype=np.float32), np.arange(30) % 3 == 0
    groups = [str(i // 5) for i in range(30)]
    assert bootstrap(scores, present, groups) == bootstrap(scores, present, groups)
    assert bootstrap(scores, np.zeros(30, np.bool_), groups) is None
    assert bootstrap(scores[:0], present[:0], []) is None


@given(cases(), st.sampled_from([0.5, 0.8, 1.0]))
def test_the_low_threshold_meets_the_recall_floor_and_stays_below_the_high_one(case: Case, floor: float) -> None:
    assume(both_kinds(case))
    scores, present = case
    chosen = choose_thresholds(scores, present, floor)
    assert chosen.low <= 0.5 * chosen.high
    assert (scores[present] >= chosen.low).mean() >= floor


def test_the_high_threshold_is_where_f1_is_best() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.3, 0.2, 0.1], np.float32)
    present = np.array([True, True, False, True, False, False])
    # at 0.3: 3 of 3 found, 1 false call, F1 = 6/7; at 0.8: 2 of 3 found, none false, F1 = 4/5
    assert choose_thresholds(scores, present, 0.5).high == pytest.approx(0.3)


def test_tiles_nobody_labelled_push_the_high_threshold_up_by_their_weight() -> None:
    scores = np.array([0.9, 0.8, 0.4, *[0.5] * 40], np.float32)
    present = np.arange(43) < 3
    light, heavy = np.where(present, 1.0, 0.001), np.ones(43)
    assert choose_thresholds(scores, present, 0.5, light).high == pytest.approx(0.4)
    assert choose_thresholds(scores, present, 0.5, heavy).high == pytest.approx(0.8)


def test_thresholds_without_both_kinds_of_tile_are_refused() -> None:
    with pytest.raises(ValueError, match="with and without"):
        choose_thresholds(np.ones(2, np.float32), np.ones(2, np.bool_), 0.8)


def test_unknown_labels_count_for_nothing() -> None:
    scores = np.array([0.9, 0.8, 0.3, 0.99], np.float32)
    labels = np.array([1, 0, 0, np.nan], np.float32)
    figures = class_metrics(scores, labels, ["a", "a", "b", "c"], high=0.5)
    assert (figures.positives, figures.negatives, figures.photos, figures.photos_present) == (1, 2, 2, 1)
    assert (figures.auroc, figures.recall, figures.precision, figures.false_alarm_share) == (1.0, 1.0, 0.5, 0.5)


def test_a_set_with_nothing_but_defects_has_a_recall_and_no_area() -> None:
    figures = class_metrics(np.array([0.9, 0.1], np.float32), np.ones(2, np.float32), ["a", "b"], high=0.5)
    assert figures.recall == 0.5
    assert figures.auroc is None and figures.false_alarm_share is None


def test_a_set_without_the_defect_still_counts_false_alarms() -> None:
    figures = class_metrics(np.array([0.9, 0.1], np.float32), np.zeros(2, np.float32), ["a", "b"], high=0.5)
    assert figures.false_alarm_share == 0.5
    assert figures.auroc is None and figures.recall is None and figures.precision is None


def test_photos_are_counted_one_by_one() -> None:
    scores = np.array([0.9, 0.2, 0.7, 0.6], np.float32)
    labels = np.array([1, 1, 0, np.nan], np.float32)
    first, second = photo_metrics(scores, labels, ["a", "a", "b", "b"], high=0.5)
    assert (first.photo, first.tiles, first.present, first.found, first.false_alarms) == ("a", 2, 2, 1, 0)
    assert (second.photo, second.tiles, second.present, second.found, second.false_alarms) == ("b", 1, 0, 0, 1)
