"""Regions are connected, inside the frame, and the same whatever the order of computing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stream.worker.regions import Threshold, find
from stream.worker.tiling import tile

CRACK = Threshold("crack", high=0.8, low=0.4)


def grid(text: str) -> np.ndarray:
    """Scores [rows, cols, 1] drawn as digits: 9 is 0.9."""
    rows = [[int(digit) / 10 for digit in line] for line in text.split()]
    return np.array(rows, np.float32)[:, :, None]


def outline(text: str, tile_px: int = 10) -> list[tuple[tuple[int, int], ...]]:
    scores = grid(text)
    rows, cols, _ = scores.shape
    return [region.polygon for region in find(scores, [CRACK], tile(cols * tile_px, rows * tile_px, tile_px))]


@pytest.mark.parametrize(
    ("drawing", "polygons"),
    [
        ("000 000", []),
        ("050 000", []),  # above low, never at high
        ("900", [((0, 0), (10, 0), (10, 10), (0, 10))]),
        ("095 000", [((10, 0), (30, 0), (30, 10), (10, 10))]),  # grows down to low
        ("90 05", [((0, 0), (10, 0), (10, 10), (20, 10), (20, 20), (10, 20), (10, 10), (0, 10))]),  # touch at a corner
        ("999 909 999", [((0, 0), (30, 0), (30, 30), (0, 30))]),  # a hole is filled
        ("909", [((0, 0), (10, 0), (10, 10), (0, 10)), ((20, 0), (30, 0), (30, 10), (20, 10))]),
    ],
)
def test_the_outline_is_the_one_you_would_draw(drawing: str, polygons: list[tuple[tuple[int, int], ...]]) -> None:
    assert outline(drawing) == polygons


def test_a_region_tells_its_best_tile_its_score_and_its_size() -> None:
    scores = grid("000 589 000")
    (region,) = find(scores, [CRACK], tile(30, 30, 10), mm_per_px=2.0)
    assert (region.cell, region.score, region.tiles, region.size_mm) == ((1, 2), 0.9, 3, 60.0)


def test_classes_do_not_grow_into_one_another() -> None:
    scores = np.concatenate([grid("95"), grid("09")], axis=2)
    regions = find(scores, [CRACK, Threshold("rust", 0.8, 0.4)], tile(20, 10, 10))
    assert [(region.defect, region.tiles) for region in regions] == [("crack", 2), ("rust", 1)]


def area(polygon: tuple[tuple[int, int], ...]) -> float:
    """Shoelace; positive for clockwise on a screen, where y points down."""
    turned = polygon[1:] + polygon[:1]
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(polygon, turned, strict=True)) / 2


@given(
    arrays(np.float32, st.tuples(st.integers(1, 7), st.integers(1, 7), st.just(2)), elements=st.floats(0, 1, width=32)),
    st.integers(8, 20),
    st.integers(0, 4),
    st.integers(0, 7),
)
def test_regions_are_inside_the_frame_connected_and_cover_their_tiles(
    scores: np.ndarray, tile_px: int, overlap_px: int, ragged: int
) -> None:
    rows, cols, _ = scores.shape
    step = tile_px - overlap_px
    width, height = (cols - 1) * step + tile_px - ragged % step, (rows - 1) * step + tile_px - ragged % step
    tiling = tile(width, height, tile_px, overlap_px)
    scores = scores[: tiling.grid.rows, : tiling.grid.cols]
    thresholds = [CRACK, Threshold("rust", 0.6, 0.6)]
    regions = find(scores, thresholds, tiling)
    for region in regions:
        xs, ys = zip(*region.polygon, strict=True)
        assert 0 <= min(xs) and max(xs) <= width and 0 <= min(ys) and max(ys) <= height
        assert area(region.polygon) > 0
        corners = zip(region.polygon, region.polygon[1:] + region.polygon[:1], strict=True)
        assert all((x0 == x1) != (y0 == y1) for (x0, y0), (x1, y1) in corners)  # along the grid, no spikes
    for index, threshold in enumerate(thresholds):
        plane = scores[:, :, index]
        mine = [region for region in regions if region.defect == threshold.defect]
        reported = sum(region.tiles for region in mine)
        assert int((plane >= threshold.high).sum()) <= reported <= int((plane >= threshold.low).sum())
        assert len({region.cell for region in mine}) == len(mine)  # cells tell regions apart: alert ids hang on it


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 2, 1\)"):
        find(grid("00"), [CRACK], tile(30, 30, 10))
