"""What painters share: pieces of noise that nobody else holds, and arithmetic that is fast and still the plain one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.synthesis.canvas import FAINT, Canvas
from models.synthesis.fields import SPECTRA, TILE, Field, Picture, Spectrum, choose, cut, mix, noise
from models.synthesis.shapes import LANES, around, run_down, smoothstep, sway

seeds = st.integers(0, 10_000)
LIGHT = (0.6, -0.8)
few = settings(max_examples=25, deadline=None)


def picture(random: np.random.Generator) -> Picture:
    return random.uniform(0.0, 255.0, (TILE, TILE, 3)).astype(np.float32)


def patch(random: np.random.Generator, height: int, width: int) -> Field:
    """Random thickness in one rectangle, nothing round it."""
    field = np.zeros((TILE, TILE), np.float32)
    y, x = (int(random.integers(TILE - length + 1)) for length in (height, width))
    field[y : y + height, x : x + width] = random.random((height, width))
    return field


@pytest.mark.parametrize("spectrum", SPECTRA)
@few
@given(seed=seeds, zoom=st.sampled_from([0.3, 0.7, 1.0, 1.4, 4.0]))
def test_a_piece_of_noise_is_its_painters_own(spectrum: Spectrum, seed: int, zoom: float) -> None:
    before = noise(spectrum).copy()
    piece = cut(np.random.default_rng(seed), spectrum, zoom)
    assert piece.shape == (TILE, TILE) and piece.dtype == np.float32 and piece.flags.c_contiguous
    piece += 1.0
    assert np.array_equal(noise(spectrum), before)


@few
@given(seed=seeds, weights=st.lists(st.integers(1, 100), min_size=1, max_size=7))
def test_choose_draws_what_numpy_draws(seed: int, weights: list[int]) -> None:
    shares = tuple(weight / sum(weights) for weight in weights)
    options = tuple(range(len(shares)))
    ours, theirs = np.random.default_rng(seed), np.random.default_rng(seed)
    assert [choose(ours, options, shares) for _ in range(20)] == [theirs.choice(options, p=shares) for _ in range(20)]


@few
@given(seed=seeds)
def test_mix_is_the_weighted_mean_and_changes_the_first_picture_alone(seed: int) -> None:
    random = np.random.default_rng(seed)
    one, other, share = picture(random), picture(random), patch(random, 40, 90)
    kept = other.copy()
    wanted = one + (other - one) * share[:, :, None]
    assert mix(one, other, share) is one
    assert np.array_equal(one, wanted) and np.array_equal(other, kept)


@few
@given(seed=seeds, low=st.floats(-2.0, 0.4), width=st.floats(0.1, 2.0))
def test_smoothstep_is_its_polynomial_and_leaves_the_field_as_it_was(seed: int, low: float, width: float) -> None:
    field = np.random.default_rng(seed).uniform(-3.0, 3.0, (TILE, TILE)).astype(np.float32)
    kept = field.copy()
    t = np.clip((field.astype(np.float64) - low) / width, 0.0, 1.0)
    assert np.allclose(smoothstep(field, low, low + width), t * t * (3.0 - 2.0 * t), rtol=0.0, atol=2e-5)
    assert np.array_equal(field, kept)


@few
@given(seed=seeds, height=st.integers(0, TILE), width=st.integers(0, TILE))
def test_around_holds_all_there_is_and_a_border_of_nothing(seed: int, height: int, width: int) -> None:
    field = np.ceil(patch(np.random.default_rng(seed), height, width))
    here = around(field)
    assert field[here].sum() == field.sum()
    rows, columns = (range(TILE)[part] for part in here)
    assert rows.start == 0 or not field[rows.start].any()
    assert rows.stop == TILE or not field[rows.stop - 1].any()
    assert columns.start == 0 or not field[:, columns.start].any()
    assert columns.stop == TILE or not field[:, columns.stop - 1].any()
    assert len(rows) <= height + 2 and columns.start % LANES == columns.stop % LANES == 0
    assert len(columns) < width + 2 + 2 * LANES


@few
@given(seed=seeds, height=st.integers(0, TILE), width=st.integers(0, TILE), one_colour=st.booleans())
def test_paint_goes_where_it_is_laid_and_as_thick(seed: int, height: int, width: int, one_colour: bool) -> None:
    random = np.random.default_rng(seed)
    before, alpha = picture(random), patch(random, height, width)
    target = (200.0, 20.0, 90.0) if one_colour else picture(random)
    canvas = Canvas(before.copy(), 1.0, LIGHT)
    canvas.lay_defect("algae", alpha, target)
    thick = np.where(alpha >= FAINT, alpha, np.float32(0.0))
    moved = (np.asarray(target, np.float32) - before) * thick[:, :, None]
    assert np.array_equal(canvas.picture, before + moved)
    assert np.array_equal(canvas.marks["algae"].mask, alpha >= FAINT)
    assert np.allclose(canvas.marks["algae"].change, np.abs(moved).mean(axis=2), rtol=0.0, atol=1e-3)


@few
@given(seed=seeds, height=st.integers(1, TILE), width=st.integers(1, TILE), hides=st.booleans())
def test_a_part_of_a_tile_is_painted_as_the_whole_would_be(seed: int, height: int, width: int, hides: bool) -> None:
    random = np.random.default_rng(seed)
    before, alpha, target = picture(random), patch(random, height, width), picture(random)
    whole, part = Canvas(before.copy(), 1.0, LIGHT), Canvas(before.copy(), 1.0, LIGHT)
    for canvas in (whole, part):
        canvas.lay_defect("crack", np.ones_like(alpha), target * 0.5)
    here = around(alpha)
    whole.lay_defect("algae", alpha, target, hides)
    part.lay_defect("algae", alpha[here], target[here], hides, at=here)
    assert np.array_equal(whole.picture, part.picture)
    for name, mark in whole.marks.items():
        assert np.array_equal(mark.mask, part.marks[name].mask)
        assert np.allclose(mark.change, part.marks[name].change, rtol=0.0, atol=1e-3)


@few
@given(seed=seeds, height=st.integers(0, TILE), width=st.integers(0, TILE), length=st.floats(2.0, 250.0))
def test_what_runs_down_is_all_it_comes_from_and_fades_below_it(
    seed: int, height: int, width: int, length: float
) -> None:
    source = patch(np.random.default_rng(seed), height, width)
    kept = source.copy()
    flow = run_down(np.random.default_rng(seed), source, length, 0.0)
    assert np.array_equal(source, kept)
    assert flow.shape == source.shape and flow.max(initial=0.0) <= source.max(initial=0.0)
    fade = math.exp(-1.0 / length)
    running = source.astype(np.float64)
    for row in range(1, TILE):
        running[row] = np.maximum(running[row], running[row - 1] * fade)
    assert np.allclose(flow, sway(after_the_knots(seed), running.astype(np.float32), 3.0), rtol=0.0, atol=1e-4)


def after_the_knots(seed: int) -> np.random.Generator:
    """The random numbers as `run_down` leaves them for `sway`: it has drawn one length for every seven columns."""
    random = np.random.default_rng(seed)
    random.normal(0.0, 0.0, TILE // 7 + 1)
    return random
