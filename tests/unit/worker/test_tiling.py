"""Tiles cover every pixel, are whole, and never run past the border."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.worker.tiling import boundaries, pad, tile

SIZES = st.integers(1, 3000)


@pytest.mark.parametrize(
    ("width", "height", "tile_px", "overlap_px", "rows", "cols"),
    [
        (4608, 3584, 256, 0, 14, 18),  # a 16 MP photo is cut without rest
        (4608, 3328, 256, 0, 13, 18),
        (4000, 3000, 256, 32, 14, 18),  # the figure of facts/performance 3.1: 252 tiles
        (257, 256, 256, 0, 1, 2),  # one pixel more costs a column, snapped back
        (256, 256, 256, 128, 1, 1),
        (1, 1, 256, 0, 1, 1),  # smaller than a tile: one, padded
    ],
)
def test_the_grid_is_the_one_you_would_count_by_hand(
    width: int, height: int, tile_px: int, overlap_px: int, rows: int, cols: int
) -> None:
    grid = tile(width, height, tile_px, overlap_px).grid
    assert (grid.rows, grid.cols) == (rows, cols)
    assert grid.padded == (width < tile_px or height < tile_px)


@given(SIZES, SIZES, st.integers(1, 300), st.data())
def test_tiles_cover_every_pixel_and_are_whole(width: int, height: int, tile_px: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile_px - 1 if tile_px < 20 else tile_px // 2))
    tiling = tile(width, height, tile_px, overlap)
    for starts, length in ((tiling.ys, height), (tiling.xs, width)):
        padded = max(length, tile_px)
        assert starts[0] == 0 and starts[-1] + tile_px == padded
        assert (np.diff(starts) > 0).all()
        assert (np.diff(starts) <= tile_px - overlap).all()


@given(SIZES, st.integers(1, 300), st.data())
def test_cells_share_the_frame_without_gap_or_overlap(length: int, tile_px: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile_px // 2 if tile_px > 1 else 0))
    tiling = tile(length, length, tile_px, overlap)
    borders = boundaries(tiling.xs, tile_px, length)
    assert borders[0] == 0 and borders[-1] == length
    assert (np.diff(borders) > 0).all()


def test_a_tile_of_a_large_image_is_a_view_and_a_small_image_is_padded_with_its_own_border() -> None:
    large = np.zeros((300, 300, 3), np.uint8)
    assert pad(large, 256) is large
    small = np.full((2, 3, 3), 7, np.uint8)
    assert pad(small, 4).shape == (4, 4, 3)
    assert (pad(small, 4) == 7).all()


@pytest.mark.parametrize("arguments", [(0, 5, 4, 0), (5, 0, 4, 0), (5, 5, 0, 0), (5, 5, 4, 4), (5, 5, 4, -1)])
def test_impossible_sizes_are_refused(arguments: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        tile(*arguments)
