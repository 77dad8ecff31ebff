"""Calibration makes a probability mean what it says, and leaves alone what it has no labels for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import calibrate, expected_calibration_error, fit_platt


def sample(scale: float, bias: float, count: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(7)
    logits = random.normal(0.0, 2.0, count).astype(np.float32)
    chance = 1.0 / (1.0 + np.exp(-(scale * logits + bias)))
    return logits, random.random(count) < chance


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.4, -1.0), (2.0, 0.5)])
def test_the_map_that_made_the_labels_is_found_again(scale: float, bias: float) -> None:
    found = fit_platt(*sample(scale, bias))
    assert found == pytest.approx((scale, bias), abs=0.15)


def test_overconfident_scores_become_honest() -> None:
    logits, present = sample(0.4, -1.0)
    scale, bias = fit_platt(logits, present)
    before = (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
    after = (1.0 / (1.0 + np.exp(-(scale * logits + bias)))).astype(np.float32)
    assert expected_calibration_error(after, present) < 0.03 < expected_calibration_error(before, present)


def test_a_class_without_both_kinds_of_tile_keeps_its_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    labels = np.stack([np.ones(40), np.full(40, np.nan), np.arange(40) % 2], axis=1).astype(np.float32)
    affine = calibrate(logits, labels)
    assert (affine.scale[:2] == 1.0).all() and (affine.bias[:2] == 0.0).all()
    assert affine.scale[2] != 1.0


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-40, 40), st.booleans()), min_size=2, max_size=30))
def test_no_labels_make_it_diverge_or_turn_the_order_round(rows: list[tuple[float, bool]]) -> None:
    logits = np.array([row[0] for row in rows], np.float32)
    scale, bias = fit_platt(logits, np.array([row[1] for row in rows]))
    assert 0.0 < scale < 100.0
    assert np.isfinite(bias)


def test_tiles_nobody_labelled_make_a_rare_defect_rare() -> None:
    logits = np.array([2, 1, 3, 2, -1, *[-2] * 200], np.float32)[:, None]
    labels = np.array([1, 1, 1, 1, 0, *[np.nan] * 200], np.float32)[:, None]
    alone, among_others = calibrate(logits, labels), calibrate(logits, labels, unknown_weight=0.5)
    assert among_others.scale[0] * -2 + among_others.bias[0] < alone.scale[0] * -2 + alone.bias[0]


def test_separable_tiles_do_not_ask_for_certainty() -> None:
    scale, bias = fit_platt(np.array([3, 4, -3, -4], np.float32), np.array([True, True, False, False]))
    assert 1.0 / (1.0 + np.exp(-(4 * scale + bias))) < 0.99
