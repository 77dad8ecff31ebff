"""Regions turn a grid of scores into connected areas that show one defect, outlined in frame pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.messages import Region
from stream.worker.tiling import Tiling, boundaries


@dataclass(frozen=True, slots=True)
class Threshold:
    """Hysteresis for one defect: a region needs one tile at `high` and grows over neighbours down to `low`."""

    defect: str
    high: float
    low: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"{self.defect}: need 0 <= low <= high <= 1, got low={self.low}, high={self.high}")


class Cell(NamedTuple):
    """A tile's place in the grid."""

    row: int
    col: int


class _Ground(NamedTuple):
    """From grid to frame pixels to millimetres."""

    tiling: Tiling
    mm_per_px: float | None


def find(
    scores: NDArray[np.float32], thresholds: Sequence[Threshold], tiling: Tiling, mm_per_px: float | None = None
) -> tuple[Region, ...]:
    """Find the regions of every defect, strongest first.

    Args:
        scores: float32 [rows, cols, classes], calibrated probabilities in the order of `thresholds`.
        tiling: of the same frame.
        mm_per_px: ground resolution; None leaves `size_mm` empty.

    Returns:
        Regions whose polygons lie inside the frame; order depends on scores and cells only.

    Raises:
        ValueError: shapes do not match.
    """
    expected = (tiling.grid.rows, tiling.grid.cols, len(thresholds))
    if scores.shape != expected:
        raise ValueError(f"scores have shape {scores.shape}, the grid and thresholds ask for {expected}")
    ground = _Ground(tiling, mm_per_px)
    found: list[Region] = []
    for index, threshold in enumerate(thresholds):
        plane = scores[:, :, index]
        for cells in _components(plane >= threshold.low):
            best = max(cells, key=lambda cell: (plane[cell], -cell.row, -cell.col))
            if plane[best] >= threshold.high:
                found.append(_region(threshold.defect, float(plane[best]), cells, best, ground))
    return tuple(sorted(found, key=lambda region: (-region.score, region.defect, region.cell)))


def _components(mask: NDArray[np.bool_]) -> list[list[Cell]]:
    """Sets of 8-connected true cells (cracks run diagonally too), in row-major order of their first cell."""
    todo = {Cell(int(row), int(col)) for row, col in np.argwhere(mask)}
    components: list[list[Cell]] = []
    for start in sorted(todo):
        if start not in todo:
            continue
        todo.remove(start)
        component, front = [start], [start]
        while front:
            row, col = front.pop()
            near = {Cell(row + dr, col + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)} & todo
            todo -= near
            component += near
            front += near
        components.append(sorted(component))
    return components


def _region(defect: str, score: float, cells: list[Cell], best: Cell, ground: _Ground) -> Region:
    tiling, mm_per_px = ground
    grid = tiling.grid
    xs = boundaries(tiling.xs, grid.tile_px, grid.width)
    ys = boundaries(tiling.ys, grid.tile_px, grid.height)
    polygon = tuple((int(xs[col]), int(ys[row])) for col, row in _outline(cells))
    size_mm = None
    if mm_per_px is not None:
        sides = [max(axis) - min(axis) for axis in zip(*polygon, strict=True)]
        size_mm = round(max(sides) * mm_per_px, 1)
    return Region(
        defect=defect,
        score=round(score, 4),
        cell=(best.row, best.col),
        polygon=polygon,
        tiles=len(cells),
        size_mm=size_mm,
    )


def _outline(cells: list[Cell]) -> list[tuple[int, int]]:
    """Outer border of an 8-connected set of cells: corners (col, row), clockwise on the screen; holes are filled.

    Every cell side without a neighbour is an edge that keeps its cell to the right. Walking them from the first cell's
    upper left corner closes the outer ring. Where two cells touch at a corner only, turning left crosses over to the
    other one, so that the ring stays one ring.
    """
    inside = set(cells)
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, col in cells:
        a, b, c, d = (col, row), (col + 1, row), (col + 1, row + 1), (col, row + 1)
        sides = (((row - 1, col), a, b), ((row, col + 1), b, c), ((row + 1, col), c, d), ((row, col - 1), d, a))
        for neighbour, start, end in sides:
            if neighbour not in inside:
                edges.setdefault(start, []).append(end)
    first = (cells[0].col, cells[0].row)
    ring, here, heading = [first], (first[0] + 1, first[1]), (1, 0)
    edges[first].remove(here)
    while here != first:
        left = (here[0] + heading[1], here[1] - heading[0])
        ends = edges[here]
        ahead = left if left in ends else ends[0]
        ends.remove(ahead)
        turn = (ahead[0] - here[0], ahead[1] - here[1])
        if turn != heading:
            ring.append(here)
        here, heading = ahead, turn
    return ring
