"""Measures are checked against scikit-learn, against tables worked out by hand, and against what must always hold."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from models.evaluation.measures import Ranking, auroc, average_precision, bootstrap, f_beta, recall_of

Case = tuple[NDArray[np.float32], NDArray[np.bool_]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Few different scores, so that there are many ties."""
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


def test_average_precision_agrees_with_a_table_worked_out_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    # found at ranks 1 and 3: precision 1/1 and 2/3, each for half of the recall
    assert average_precision(scores, np.array([True, False, True, False])) == pytest.approx((1.0 + 2 / 3) / 2)
    # equal scores are one step: two of four, precision 1/2
    assert average_precision(np.full(4, 0.5, np.float32), np.array([True, False, True, False])) == pytest.approx(0.5)


@settings(deadline=None)
@given(cases())
def test_areas_agree_with_scikit_learn_also_with_ties(case: Case) -> None:
    assume(both_kinds(case))
    scores, present = case
    assert auroc(scores, present) == pytest.approx(metrics.roc_auc_score(present, scores))
    assert average_precision(scores, present) == pytest.approx(metrics.average_precision_score(present, scores))


@settings(deadline=None)
@given(cases(), st.data())
def test_tiles_that_count_several_times_or_not_at_all_agree_with_scikit_learn(case: Case, data: st.DataObject) -> None:
    scores, present = case
    size = len(scores)
    weight = np.array(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)), np.float64)
    assume((weight @ present > 0) and (weight @ ~present > 0))
    ranking = Ranking.of(scores, present)
    assert ranking.auroc(weight) == pytest.approx(metrics.roc_auc_score(present, scores, sample_weight=weight))
    expected = metrics.average_precision_score(present, scores, sample_weight=weight)
    assert ranking.average_precision(weight) == pytest.approx(expected)
    called = scores >= 0.5
    expected = metrics.recall_score(present, called, sample_weight=weight)
    assert recall_of(called, present)(weight) == pytest.approx(expected)


@settings(deadline=None)
@given(cases(), st.sampled_from([0.5, 1.0, 2.0]))
def test_f_beta_agrees_with_scikit_learn(case: Case, beta: float) -> None:
    scores, present = case
    called = scores >= 0.5
    assume(present.any() or called.any())
    assert f_beta(called, present, beta) == pytest.approx(metrics.fbeta_score(present, called, beta=beta))


def test_f_beta_of_nothing_called_and_nothing_there_is_not_a_number() -> None:
    assert np.isnan(f_beta(np.zeros(3, np.bool_), np.zeros(3, np.bool_)))


@settings(deadline=None)
@given(cases())
def test_auroc_sees_only_the_order_of_the_scores(case: Case) -> None:
    assume(both_kinds(case))
    scores, present = case
    assert auroc((scores * 3 - 1).astype(np.float32), present) == pytest.approx(auroc(scores, present))
    assert auroc(-scores, present) == pytest.approx(1.0 - auroc(scores, present))


def test_an_area_without_both_kinds_of_tile_is_not_a_number() -> None:
    assert np.isnan(auroc(np.ones(3, np.float32), np.ones(3, np.bool_)))
    assert np.isnan(auroc(np.ones(0, np.float32), np.ones(0, np.bool_)))
    assert np.isnan(average_precision(np.ones(3, np.float32), np.zeros(3, np.bool_)))


def test_the_interval_draws_groups_and_is_wider_than_one_that_draws_tiles() -> None:
    random = np.random.default_rng(3)
    groups = [f"photo-{i // 40}" for i in range(400)]
    shift = np.repeat(random.normal(0.0, 1.0, 10), 40)  # each photo has its own brightness, say
    present = random.random(400) < 0.3
    scores = (present + shift + random.normal(0.0, 0.5, 400)).astype(np.float32)
    measures = {"auroc": Ranking.of(scores, present).auroc}
    by_group = bootstrap(measures, groups, rounds=300)["auroc"]
    by_tile = bootstrap(measures, [str(i) for i in range(400)], rounds=300)["auroc"]
    assert by_group is not None and by_tile is not None
    assert by_group.low <= auroc(scores, present) <= by_group.high
    assert by_group.high - by_group.low > 1.5 * (by_tile.high - by_tile.low)


def test_the_interval_has_the_width_that_a_proportion_has() -> None:
    present = np.ones(400, np.bool_)
    called = np.arange(400) % 4 > 0
    span = bootstrap({"recall": recall_of(called, present)}, [str(i) for i in range(400)], rounds=2000)["recall"]
    assert span is not None
    spread = 1.96 * np.sqrt(0.75 * 0.25 / 400)  # the normal approximation, good at this size
    assert (span.low, span.high) == pytest.approx((0.75 - spread, 0.75 + spread), abs=0.01)


def test_the_interval_is_the_same_each_time_and_absent_where_the_measure_never_is_defined() -> None:
    scores, present = np.linspace(0, 1, 30, dtype=np.float32), np.arange(30) % 3 == 0
    groups = [str(i // 5) for i in range(30)]
    ranking, nothing = Ranking.of(scores, present), Ranking.of(scores, np.zeros(30, np.bool_))
    assert bootstrap({"a": ranking.auroc}, groups) == bootstrap({"a": ranking.auroc}, groups)
    assert bootstrap({"a": nothing.auroc}, groups) == {"a": None}
    assert bootstrap({"a": ranking.auroc}, ["one"] * 30) == {"a": None}
