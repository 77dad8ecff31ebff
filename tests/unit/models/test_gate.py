"""An engine takes over only if it decides as the reference does, for every class that can be judged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from models.engines.gate import LARGEST_AP_DROP, Evidence, judge
from models.release import ReleaseClass


def defect(name: str, *, trained: bool = True, high: float | None = 0.5) -> ReleaseClass:
    return ReleaseClass(
        name=name,
        title=name,
        severity="low",
        trained=trained,
        high=high,
        low=None if high is None else high / 2,
        coarsest_mm_per_px=1.0,
        min_width_px=1.0,
        weight=1.0,
        recall_floor=0.8,
    )


CRACK = (defect("crack"),)


def evidence(expected: NDArray[np.float32], labels: NDArray[np.float32] | None = None) -> Evidence:
    unknown = np.full(expected.shape, np.nan, dtype=np.float32)
    return Evidence(np.zeros((len(expected), 4, 4, 3), np.uint8), expected, unknown if labels is None else labels)


def column(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)[:, None]


def test_the_reference_itself_passes_in_every_precision() -> None:
    expected = column(0.1, 0.6, 0.9)
    for precision in ("f32", "bf16", "int8"):
        verdict = judge(expected, evidence(expected), CRACK, precision)
        assert verdict.passed and verdict.sane
        assert (verdict.mean, verdict.largest, verdict.agreement, verdict.tiles) == (0.0, 0.0, 1.0, 3)


@pytest.mark.parametrize(("flips", "passes"), [(0, True), (1, True), (2, True), (3, False), (10, False)])
def test_of_four_hundred_decisions_two_may_change(flips: int, passes: bool) -> None:
    expected = np.full((400, 1), 0.49, dtype=np.float32)
    found = expected.copy()
    found[:flips] = 0.51
    verdict = judge(found, evidence(expected), CRACK, "int8")
    assert verdict.passed == passes and verdict.agreement == pytest.approx(1 - flips / 400)
    assert passes or "decisions" in verdict.reasons[0]


def test_on_a_few_tiles_a_single_decision_is_not_held_against_an_engine_but_two_are() -> None:
    expected = np.full((24, 1), 0.499, dtype=np.float32)
    one, two = expected.copy(), expected.copy()
    one[:1], two[:2] = 0.501, 0.501
    assert judge(one, evidence(expected), (*CRACK,), "bf16").agreement < 0.97
    assert "decisions" not in " ".join(judge(one, evidence(expected), CRACK, "bf16").reasons)
    assert "decisions" in " ".join(judge(two, evidence(expected), CRACK, "bf16").reasons)


def ranked(positives: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores below the threshold that rank every positive above every negative, and the labels."""
    scores = np.linspace(0.4, 0.1, positives + 200, dtype=np.float32)[:, None]
    labels = np.zeros_like(scores)
    labels[:positives] = 1.0
    return scores, labels


@pytest.mark.parametrize(("positives", "judged"), [(19, False), (20, True), (60, True)])
def test_average_precision_is_held_against_an_engine_from_twenty_positives_on(positives: int, judged: bool) -> None:
    scores, labels = ranked(positives)
    found = scores.copy()
    found[positives] = scores[0] + 0.001  # one tile without the defect comes out on top
    verdict = judge(found, evidence(scores, labels), CRACK, "int8")
    assert verdict.agreement == 1.0
    assert verdict.passed == (not judged)
    if judged:
        assert verdict.ap_drops["crack"] > LARGEST_AP_DROP and "average precision" in verdict.reasons[0]


@given(st.integers(0, 10_000))
def test_the_drop_of_average_precision_is_that_of_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.choice([0.0, 1.0, np.nan], (120, 1)).astype(np.float32)
    expected, found = random.random((2, 120, 1)).astype(np.float32)
    known = ~np.isnan(labels[:, 0])
    present = labels[known, 0] == 1
    if present.sum() >= 20:
        theirs = [average_precision_score(present, scores[known, 0]) for scores in (expected, found)]
        drops = judge(found, evidence(expected, labels), CRACK, "int8").ap_drops
        assert drops["crack"] == pytest.approx(theirs[0] - theirs[1], abs=1e-5)


def test_a_score_that_is_no_number_never_passes() -> None:
    expected = np.full((100, 1), 0.2, dtype=np.float32)
    found = expected.copy()
    found[3] = np.nan
    for precision in ("f32", "bf16", "int8"):
        verdict = judge(found, evidence(expected), CRACK, precision)
        assert not verdict.passed and not verdict.sane


def test_float32_is_held_to_the_last_digits_and_another_network_is_no_engine_of_this_one() -> None:
    expected = np.full((100, 1), 0.2, dtype=np.float32)
    assert not judge(expected + 0.003, evidence(expected), CRACK, "f32").sane
    assert judge(expected + 0.003, evidence(expected), CRACK, "bf16").sane
    assert not judge(expected + 0.02, evidence(expected), CRACK, "bf16").sane


def test_an_untrained_class_is_not_looked_at() -> None:
    expected = np.full((100, 2), 0.2, dtype=np.float32)
    found = expected.copy()
    found[:, 1] = 0.9
    classes = (defect("crack"), defect("algae", trained=False, high=None))
    assert judge(found, evidence(expected), classes, "f32").passed
    assert judge(found, evidence(expected), classes[1:] * 2, "f32").passed  # a base release: nothing to decide
