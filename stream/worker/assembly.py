"""Assembly puts the scores of scattered tiles back into the grids of their frames and says which are whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

F = TypeVar("F")


class Spot(NamedTuple, Generic[F]):
    """Where a tile's scores belong."""

    frame: F
    row: int
    col: int


@dataclass(slots=True, eq=False)
class Sheet:
    """The scores of one frame, filled tile by tile."""

    scores: NDArray[np.float32]
    """[rows, cols, classes]; NaN where no tile has come."""
    missing: int

    @classmethod
    def blank(cls, rows: int, cols: int, classes: int) -> Sheet:
        return cls(np.full((rows, cols, classes), np.nan, np.float32), rows * cols)

    def put(self, row: int, col: int, scores: NDArray[np.float32]) -> bool:
        """Note one tile's scores [classes]; True when the sheet is whole.

        Raises:
            ValueError: the tile has been scored before, or a score is not finite (never written down as clean).
        """
        if not np.isfinite(scores).all():
            raise ValueError(f"tile row={row} col={col}: scores are not finite: {scores.tolist()}")
        if not np.isnan(self.scores[row, col, 0]):
            raise ValueError(f"tile row={row} col={col} was scored twice")
        self.scores[row, col] = scores
        self.missing -= 1
        return self.missing == 0


@dataclass(slots=True)
class Assembler(Generic[F]):
    """The sheets of all frames that are in the engine or on their way to it; frames are told apart by identity."""

    classes: int
    _sheets: dict[int, tuple[F, Sheet]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._sheets)

    def expect(self, frame: F, rows: int, cols: int) -> None:
        """Open a sheet."""
        self._sheets[id(frame)] = (frame, Sheet.blank(rows, cols, self.classes))

    def place(self, spots: tuple[Spot[F], ...], scores: NDArray[np.float32]) -> list[tuple[F, NDArray[np.float32]]]:
        """Note one batch's scores [n, classes]; return the frames it completed with theirs [rows, cols, classes].

        Raises:
            ValueError: another number of scores than tiles; see `Sheet.put`.
        """
        if len(spots) != len(scores):
            raise ValueError(f"{len(spots)} tiles went into the engine, {len(scores)} scores came out")
        whole = []
        for spot, row in zip(spots, scores, strict=True):
            frame, sheet = self._sheets[id(spot.frame)]
            if sheet.put(spot.row, spot.col, row):
                whole.append((frame, sheet.scores))
                del self._sheets[id(frame)]
        return whole
