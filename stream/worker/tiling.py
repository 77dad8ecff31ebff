"""Tiling cuts a frame into equal whole tiles; the last row and column snap back to the border."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.messages import Grid


@dataclass(frozen=True, slots=True, eq=False)
class Tiling:
    """Where the tiles of one frame lie.

    `ys[rows]` and `xs[cols]` are the top and left edges in pixels of the (padded) frame, rising.
    """

    grid: Grid
    ys: NDArray[np.int64]
    xs: NDArray[np.int64]

    @property
    def tiles(self) -> int:
        return self.grid.rows * self.grid.cols


def tile(width: int, height: int, tile_px: int, overlap_px: int = 0) -> Tiling:
    """Plan the tiles of a frame of `width` x `height` pixels.

    Raises:
        ValueError: sizes below 1, or an overlap that leaves no step.
    """
    if width < 1 or height < 1 or tile_px < 1:
        raise ValueError(f"width, height and tile must be at least 1 px, got {width}, {height}, {tile_px}")
    if not 0 <= overlap_px < tile_px:
        raise ValueError(f"overlap must be from 0 to tile - 1 = {tile_px - 1} px, got {overlap_px}")
    ys = _edges(height, tile_px, tile_px - overlap_px)
    xs = _edges(width, tile_px, tile_px - overlap_px)
    grid = Grid(
        tile_px=tile_px,
        overlap_px=overlap_px,
        rows=len(ys),
        cols=len(xs),
        width=width,
        height=height,
        padded=width < tile_px or height < tile_px,
    )
    return Tiling(grid, ys, xs)


def _edges(length: int, tile_px: int, step: int) -> NDArray[np.int64]:
    """Starts of whole tiles along one side: steps from 0, the last moved back so that it ends at the border."""
    last = max(length - tile_px, 0)
    starts = np.arange(0, last + step, step, dtype=np.int64)
    return np.unique(np.minimum(starts, last))


def pad(image: NDArray[np.uint8], tile_px: int) -> NDArray[np.uint8]:
    """Widen an image smaller than a tile by repeating its border; a larger one is returned as it is.

    A repeated border draws no edge that could look like a crack, as black would.

    Args:
        image: uint8 [height, width, 3].
    """
    height, width = image.shape[:2]
    below, right = max(tile_px - height, 0), max(tile_px - width, 0)
    if not below and not right:
        return image
    return np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")


def boundaries(starts: NDArray[Any], tile_px: int, length: int) -> NDArray[np.int64]:
    """Cell borders along one side, [n + 1] from 0 to `length`; overlaps are split in half, so that no cells overlap."""
    middles = (starts[1:] + starts[:-1] + tile_px) // 2
    return np.concatenate(([0], middles, [length])).astype(np.int64)
