"""Scores find their way back to their frame's grid, and what is not finite is never written down."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.worker.assembly import Assembler, Spot


@given(
    st.randoms(), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4), st.integers(1, 7)
)
def test_every_frame_comes_out_once_whole_and_with_its_own_scores(
    random: object, shapes: list[tuple[int, int]], batch: int
) -> None:
    assembler: Assembler[list[int]] = Assembler(classes=2)
    frames = [[index] for index in range(len(shapes))]  # equal frames are still different frames
    spots = []
    for frame, (rows, cols) in zip(frames, shapes, strict=True):
        assembler.expect(frame, rows, cols)
        spots += [Spot(frame, row, col) for row in range(rows) for col in range(cols)]
    random.shuffle(spots)  # type: ignore[attr-defined]
    done = []
    for start in range(0, len(spots), batch):
        part = tuple(spots[start : start + batch])
        scores = np.array([[s.frame[0] * 100 + s.row * 10 + s.col, 1.0] for s in part], np.float32)
        done += assembler.place(part, scores)
    assert sorted(frame[0] for frame, _ in done) == list(range(len(shapes)))
    assert len(assembler) == 0
    for frame, scores in done:
        rows, cols = shapes[frame[0]]
        expected = frame[0] * 100 + np.arange(rows)[:, None] * 10 + np.arange(cols)[None, :]
        assert np.array_equal(scores[:, :, 0], expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused(bad: float) -> None:
    assembler: Assembler[str] = Assembler(classes=1)
    assembler.expect("a", 1, 1)
    with pytest.raises(ValueError, match="not finite"):
        assembler.place((Spot("a", 0, 0),), np.array([[bad]], np.float32))


def test_another_number_of_scores_than_tiles_is_refused() -> None:
    assembler: Assembler[str] = Assembler(classes=1)
    assembler.expect("a", 1, 2)
    with pytest.raises(ValueError, match="1 tiles went into the engine, 2 scores came out"):
        assembler.place((Spot("a", 0, 0),), np.zeros((2, 1), np.float32))


def test_a_tile_scored_twice_is_refused() -> None:
    assembler: Assembler[str] = Assembler(classes=1)
    assembler.expect("a", 1, 2)
    assembler.place((Spot("a", 0, 0),), np.zeros((1, 1), np.float32))
    with pytest.raises(ValueError, match="twice"):
        assembler.place((Spot("a", 0, 0),), np.zeros((1, 1), np.float32))
