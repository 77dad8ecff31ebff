"""Calibration makes a probability mean what it says, and leaves alone what it has no labels for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation.calibration import (
    ENOUGH,
    Affine,
    calibrate,
    calibration_error,
    fit_platt,
    fit_temperature,
    reliability,
)


def sample(scale: float, bias: float, count: int = 6000, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    logits = random.normal(0.0, 2.0, count).astype(np.float32)
    chance = 1.0 / (1.0 + np.exp(-(scale * logits + bias)))
    return logits, random.random(count) < chance


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.4, -1.0), (2.0, 0.5)])
def test_the_map_that_made_the_labels_is_found_again(scale: float, bias: float) -> None:
    found = fit_platt(*sample(scale, bias))
    assert found == pytest.approx((scale, bias), abs=0.15)


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.0])
def test_the_temperature_that_made_the_labels_is_found_again(scale: float) -> None:
    assert fit_temperature(*sample(scale, 0.0)) == pytest.approx(scale, abs=0.1)


def test_overconfident_scores_become_honest() -> None:
    logits, present = sample(0.4, -1.0)
    affine = Affine(*(np.array([value]) for value in fit_platt(logits, present)))
    before = Affine(np.ones(1), np.zeros(1)).probabilities(logits)
    errors = [calibration_error(reliability(one, present)) for one in (before, affine.probabilities(logits))]
    assert errors[1] < 0.03 < errors[0]


def test_a_class_with_enough_positives_has_a_map_of_its_own_and_others_share_one_temperature() -> None:
    columns = [sample(0.5, -1.0, seed=1), sample(0.5, 0.0, seed=2), sample(0.5, 0.0, seed=3)]
    logits = np.stack([column[0] for column in columns], axis=1)
    labels = np.stack([column[1] for column in columns], axis=1).astype(np.float32)
    for column in (1, 2):  # so many positives are left that the class is just short of enough
        few = np.flatnonzero(labels[:, column] == 1)[ENOUGH - 1 :]
        labels[few, column] = np.nan
    affine = calibrate(logits, labels)
    assert (affine.scale[0], affine.bias[0]) == pytest.approx(fit_platt(logits[:, 0], labels[:, 0] == 1))
    known = ~np.isnan(labels)
    shared = fit_temperature(logits[known], labels[known] == 1)
    assert affine.scale[1:] == pytest.approx([shared, shared]) and (affine.bias[1:] == 0.0).all()
    labels[few[0], 2] = 1.0
    assert calibrate(logits, labels).bias[2] != 0.0  # one more positive is enough


def test_a_class_without_a_label_keeps_its_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    labels = np.stack([np.full(40, np.nan), np.arange(40) % 2], axis=1).astype(np.float32)
    affine = calibrate(logits, labels)
    assert (affine.scale[0], affine.bias[0]) == (1.0, 0.0) and affine.scale[1] != 1.0
    nothing = calibrate(logits, np.full((40, 2), np.nan, np.float32))
    assert (nothing.scale == 1.0).all() and (nothing.bias == 0.0).all()


def test_a_class_that_every_tile_shows_has_no_bias() -> None:
    logits = np.random.default_rng(0).normal(size=(2 * ENOUGH, 1)).astype(np.float32)
    assert calibrate(logits, np.ones((2 * ENOUGH, 1), np.float32)).bias[0] == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-40, 40), st.booleans()), min_size=2, max_size=30))
def test_no_labels_make_it_diverge_or_turn_the_order_round(rows: list[tuple[float, bool]]) -> None:
    logits, present = np.array([row[0] for row in rows], np.float32), np.array([row[1] for row in rows])
    scale, bias = fit_platt(logits, present)
    assert 0.0 < scale < 100.0
    assert np.isfinite(bias)
    assert 0.0 < fit_temperature(logits, present) < 100.0


def test_tiles_nobody_labelled_make_a_rare_defect_rare() -> None:
    logits = np.array([*[2, 1, 3, 2] * 10, -1, *[-2] * 2000], np.float32)[:, None]
    labels = np.array([*[1] * 40, 0, *[np.nan] * 2000], np.float32)[:, None]
    alone, among_others = calibrate(logits, labels), calibrate(logits, labels, unknown_weight=0.5)
    assert among_others.scale[0] * -2 + among_others.bias[0] < alone.scale[0] * -2 + alone.bias[0]


def test_separable_tiles_do_not_ask_for_certainty() -> None:
    scale, bias = fit_platt(np.array([3, 4, -3, -4], np.float32), np.array([True, True, False, False]))
    assert 1.0 / (1.0 + np.exp(-(4 * scale + bias))) < 0.99


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=60))
def test_a_reliability_diagram_holds_every_tile_once_whatever_their_order(rows: list[tuple[float, bool]]) -> None:
    probabilities, present = (np.array([row[i] for row in rows]) for i in (0, 1))
    bins = reliability(probabilities.astype(np.float32), present.astype(bool))
    assert sum(one.tiles for one in bins) == len(rows) and len(bins) <= 10
    assert [one.said for one in bins] == sorted(one.said for one in bins)
    assert sum(one.so * one.tiles for one in bins) == pytest.approx(present.sum() if len(rows) else 0.0)
    turned = reliability(probabilities[::-1].astype(np.float32), present[::-1].astype(bool))
    assert [(one.tiles, pytest.approx(one.said), pytest.approx(one.so)) for one in bins] == [
        (one.tiles, one.said, one.so) for one in turned
    ]


def test_bins_hold_about_equally_many_tiles_where_scores_differ() -> None:
    probabilities = (np.arange(100) / 100).astype(np.float32) ** 3  # most are near zero
    assert [one.tiles for one in reliability(probabilities, probabilities > 0.5)] == [10] * 10


def test_the_error_of_a_table_worked_out_by_hand() -> None:
    probabilities = np.array([0.2, 0.2, 0.8, 0.8], np.float32)
    present = np.array([False, False, True, False])
    # of the two at 0.2 none shows it, of the two at 0.8 one: (2 * 0.2 + 2 * 0.3) / 4
    assert calibration_error(reliability(probabilities, present, bins=2)) == pytest.approx(0.25)
    assert calibration_error(()) is None
