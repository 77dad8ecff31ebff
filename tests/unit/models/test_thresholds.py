"""Thresholds keep the promise that is made with them, and no promise is made where there are too few tiles."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.evaluation.thresholds import (
    FEWEST_GROUPS,
    PRECISION,
    choose,
    choose_without_photos,
    few_reach,
    misses_allowed,
    report_threshold,
    review_threshold,
)

scores = st.integers(0, 20).map(lambda value: value / 20)  # few different ones, so that there are ties
labels = st.sampled_from([1.0, 0.0, np.nan])
rows = st.lists(st.tuples(scores, labels, st.integers(0, 5)), min_size=1, max_size=80)


def columns(drawn: list[tuple[float, float, int]]) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
    table = np.array([row[:2] for row in drawn], np.float32)
    return table[:, 0], table[:, 1], [f"photo-{row[2]}" for row in drawn]


@pytest.mark.parametrize(
    ("positives", "alpha", "expected"),
    [
        (20, 0.10, 1),
        (20, 0.05, 0),
        (50, 0.10, 4),
        (50, 0.05, 1),
        (100, 0.10, 9),
        (100, 0.05, 4),
        (200, 0.10, 19),
        (200, 0.05, 9),
        (9, 0.10, 0),  # the fewest with which there is a threshold: n = 1 / alpha - 1
        (8, 0.10, None),
        (19, 0.05, 0),
        (18, 0.05, None),
        (0, 0.50, None),
        (1000, 0.0, None),
        (5, 1.0, 5),
    ],
)
def test_so_many_misses_are_allowed_as_the_published_rule_gives(
    positives: int, alpha: float, expected: int | None
) -> None:
    assert misses_allowed(positives, alpha) == expected


@pytest.mark.parametrize(("recall_floor", "fewest"), [(0.7, 3), (0.75, 3), (0.8, 4), (0.85, 6), (0.9, 9), (0.95, 19)])
def test_the_fewest_positives_do_not_hang_on_floating_point(recall_floor: float, fewest: int) -> None:
    """1 / alpha - 1, rounded up, though 1 - 0.9 is a little less than 0.1."""
    assert misses_allowed(fewest, 1.0 - recall_floor) == 0
    assert misses_allowed(fewest - 1, 1.0 - recall_floor) is None


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=60), st.sampled_from([0.7, 0.8, 0.85, 0.9]))
@example([0.5] * 10, 0.9)
def test_of_exchangeable_defects_no_more_are_missed_than_the_recall_floor_allows(
    drawn: list[float], recall_floor: float
) -> None:
    """Any of n + 1 defects could as well have been the one to come: the mean over all of them is the expected miss."""
    positives = np.array(drawn, np.float32)
    chosen = [review_threshold(np.delete(positives, i), recall_floor) for i in range(len(positives))]
    assume(chosen[0] is not None)
    missed = [score < limit for score, limit in zip(positives, chosen, strict=True) if limit is not None]
    assert np.mean(missed) <= 1.0 - recall_floor + 1e-9


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60, unique=True), st.sampled_from([0.7, 0.8, 0.9]))
def test_no_higher_review_threshold_would_do(drawn: list[float], recall_floor: float) -> None:
    positives = np.array(drawn, np.float32)
    limit = review_threshold(positives, recall_floor)
    assume(limit is not None)
    higher = np.nextafter(np.float32(limit), np.float32(2.0))
    misses, n, alpha = int((positives < higher).sum()), len(positives), 1.0 - recall_floor
    assert misses / (n + 1) + 1 / (n + 1) > alpha - 1e-9


@settings(deadline=None)
@given(rows)
def test_the_report_threshold_is_the_lowest_that_is_precise_enough(drawn: list[tuple[float, float, int]]) -> None:
    probabilities, truth, _ = columns(drawn)
    present, weight = truth == 1, np.where(np.isnan(truth), 0.25, 1.0)

    def precision(level: float) -> float:
        called = probabilities >= level
        return float(weight[called & present].sum() / weight[called].sum())

    levels = [level for level in np.unique(probabilities) if level >= 0.3]
    good = [level for level in levels if precision(level) >= PRECISION - 1e-9]
    assert report_threshold(probabilities, present, weight, least=0.3) == (min(good) if good else None)


@settings(deadline=None)
@given(rows, st.sampled_from([0.7, 0.8, 0.9]))
def test_whatever_the_tiles_the_thresholds_can_be_served(drawn: list[tuple[float, float, int]], floor: float) -> None:
    chosen = choose(*columns(drawn), floor, unknown_weight=0.2)
    assert 0.0 <= chosen.low <= chosen.high <= 1.0
    assert chosen.why


@settings(deadline=None)
@given(st.lists(scores, min_size=15, max_size=40), rows, st.sampled_from([0.7, 0.8, 0.9]))
def test_a_promise_is_kept_on_the_tiles_it_was_made_with(
    positives: list[float], others: list[tuple[float, float, int]], floor: float
) -> None:
    drawn = [(0.5 + score / 2, 1.0, i % 4) for i, score in enumerate(positives)] + others
    probabilities, truth, groups = columns(drawn)
    chosen = choose(probabilities, truth, groups, floor)
    assume(not chosen.people)
    present, called = truth == 1, (probabilities >= chosen.high) & ~np.isnan(truth)
    assert (probabilities[present] >= chosen.low).mean() >= floor
    assert present[called].mean() >= PRECISION
    assert len(set(np.asarray(groups)[present])) >= FEWEST_GROUPS and present.sum() >= 20


def tiles(
    positives: int, groups: int, negatives: int = 60
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
    """Defects score from 0.6 up, everything else below 0.4."""
    probabilities = np.concatenate([np.linspace(0.6, 0.9, positives), np.linspace(0.1, 0.4, negatives)])
    truth = np.repeat([1.0, 0.0], [positives, negatives])
    return probabilities.astype(np.float32), truth.astype(np.float32), [f"p{i % groups}" for i in range(len(truth))]


@pytest.mark.parametrize(
    ("positives", "groups", "floor", "why"),
    [
        (3, 3, 0.8, "3 positives in 3 groups: too few for a recall of 0.8"),
        (19, 5, 0.8, "fewer than 20 positives"),
        (40, 2, 0.8, "fewer than 3 groups"),
        (0, 3, 0.8, "0 positives in 0 groups: too few"),
        (50, 5, 0.99, "too few for a recall of 0.99"),
    ],
)
def test_a_class_with_too_few_positives_goes_to_people(positives: int, groups: int, floor: float, why: str) -> None:
    chosen = choose(*tiles(positives, groups), floor)
    assert chosen.people and why in chosen.why


def test_a_class_that_is_never_precise_enough_goes_to_people() -> None:
    probabilities, truth, groups = tiles(40, 5)
    chosen = choose(1.0 - probabilities, truth, groups, 0.8)
    assert chosen.people and "no threshold at which 80%" in chosen.why


def test_a_class_with_enough_positives_has_thresholds_that_are_promised() -> None:
    chosen = choose(*tiles(40, 5), 0.8)
    assert not chosen.people
    assert (
        chosen.why == "40 positives in 5 groups: review misses 7 (recall floor 0.8), 100% of what is reported is right"
    )
    # 41 * 0.2 - 1 = 7.2: 7 may be missed, and the eighth lowest is 0.6 + 7 * 0.3 / 39. Nothing else scores so high, so
    # whatever is worth a review is worth a report.
    assert chosen.low == chosen.high == pytest.approx(0.6538, abs=1e-4)


def test_tiles_nobody_labelled_push_the_report_threshold_up_by_their_weight() -> None:
    probabilities, truth, groups = tiles(40, 5, negatives=30)
    probabilities, truth = np.append(probabilities, np.full(20, 0.7, np.float32)), np.append(truth, np.full(20, np.nan))
    groups = groups + ["u"] * 20
    light = choose(probabilities, truth.astype(np.float32), groups, 0.8, unknown_weight=0.0)
    heavy = choose(probabilities, truth.astype(np.float32), groups, 0.8, unknown_weight=1.0)
    assert light.high < 0.7 < heavy.high


def test_without_a_promise_few_tiles_are_called_that_nobody_says_show_it() -> None:
    random = np.random.default_rng(0)
    probabilities = np.concatenate([random.uniform(0.3, 0.9, 10), random.uniform(0.0, 0.5, 990)]).astype(np.float32)
    truth = np.repeat([1.0, 0.0, np.nan], [10, 490, 500]).astype(np.float32)
    chosen = choose(probabilities, truth, ["a"] * 1000, 0.8)
    assert chosen.people and "fewer than 20 positives: set so that at most 0.5% of" in chosen.why
    others = probabilities[10:]
    assert (others >= chosen.high).sum() <= 0.005 * 990 and (others >= chosen.low).sum() <= 0.02 * 990
    assert chosen.low < chosen.high


def test_without_a_promise_the_threshold_is_still_where_f1_is_best_if_that_is_quiet_enough() -> None:
    probabilities = np.array([0.9, 0.8, 0.7, *[0.1] * 50], np.float32)
    chosen = choose(probabilities, np.repeat([1.0, 0.0], [3, 50]).astype(np.float32), ["a"] * 53, 0.5)
    assert (chosen.high, chosen.low) == pytest.approx((0.7, 0.7), abs=1e-4)  # low: 0.8 would do for half of them


@given(st.lists(st.floats(0.0, 0.9375, width=32), max_size=60), st.floats(0.0, 1.0))
@example([0.9], 0.0)  # which is a little less in float32
def test_few_reach_the_threshold_and_a_lower_one_would_be_reached_by_more(drawn: list[float], share: float) -> None:
    probabilities = np.array(drawn, dtype=np.float32)
    found = few_reach(probabilities, share)
    assert (probabilities >= found).sum() <= share * len(drawn)
    if found > 0.0:
        assert (probabilities >= found - 1.02e-4).sum() > int(share * len(drawn))


def test_a_class_that_only_composed_pictures_show_is_served_and_goes_to_people() -> None:
    random = np.random.default_rng(0)
    painted = np.concatenate([random.uniform(0.6, 0.9, 50), random.uniform(0.0, 0.3, 50)]).astype(np.float32)
    labels = np.repeat([1.0, 0.0], 50).astype(np.float32)
    quiet = random.uniform(0.0, 0.2, 1000).astype(np.float32)
    chosen = choose_without_photos(painted, labels, quiet, 0.8)
    assert chosen.people and 0.2 < chosen.high <= 0.7 and chosen.low <= chosen.high
    assert (painted[:50] >= chosen.high).mean() >= 0.8
    noisy = choose_without_photos(painted, labels, random.uniform(0.0, 1.0, 1000).astype(np.float32), 0.8)
    assert noisy.high > 0.98  # photos that show nothing would be called at any lower one
