"""The picture while it is painted, with the exact mask of every defect that is still to be seen in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from models.synthesis.fields import TILE, Colour, Field, Part, Picture, rgb
from models.synthesis.shapes import Vector

FAINT = 0.06
"""Paint thinner than this is not put on at all: a mask then holds every pixel that was changed, and no other."""
OPAQUE = 0.6
"""Paint thicker than this hides what was there before."""
WHOLE = np.s_[:, :]
BAND = 64
"""Rows that are changed at a time: what they need then stays in the processor's nearest cache."""


def _bands(touched: NDArray[np.bool_]) -> Iterator[Part]:
    """The smallest rectangle round the touched pixels, in bands of rows."""
    x, y, width, height = cv2.boundingRect(touched.view(np.uint8))
    for top in range(y, y + height, BAND):
        yield np.s_[top : min(top + BAND, y + height), x : x + width]


@dataclass
class Mark:
    """What is known of one class of defect: `mask` bool[TILE, TILE], `change` the grey levels it moved each pixel."""

    mask: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((TILE, TILE), np.bool_))
    change: Field = field(default_factory=lambda: np.zeros((TILE, TILE), np.float32))
    width_px: float = 0.0
    """Widest stroke of a thin defect, in px; 0 where the mask itself says it."""


@dataclass
class Canvas:
    """One tile in the making; `light` points towards the light, in the plane of the picture."""

    picture: Picture
    mm_per_px: float
    light: Vector
    marks: dict[str, Mark] = field(default_factory=dict)
    exposure: float = field(init=False)
    """How bright what is painted on must be to lie in the same light as the concrete; 1 on a middle grey."""
    unknown: set[str] = field(default_factory=set)
    """Classes that nobody could say yes or no to in this tile."""

    def __post_init__(self) -> None:
        self.picture = np.ascontiguousarray(self.picture, np.float32)
        self.exposure = min(max((float(self.picture.mean()) / 150.0) ** 0.6, 0.5), 1.25)

    def px(self, mm: float) -> float:
        """Millimetres of the structure as pixels of the tile."""
        return mm / self.mm_per_px

    def lay(self, alpha: Field, target: Picture | Colour, hides: bool = True) -> None:
        """Blend towards `target` (a picture or one colour) by `alpha` [TILE, TILE], 0 to 1.

        Thick paint takes away the masks beneath, if it `hides`.
        """
        self._blend(alpha, target, WHOLE)
        if hides:
            self._hide(alpha, WHOLE)

    def lay_defect(
        self,
        name: str,
        alpha: Field,
        target: Picture | Colour,
        hides: bool = True,
        spares: str = "",
        *,
        at: Part = WHOLE,
    ) -> None:
        """`lay`, and the touched pixels join the mask of the defect; the class that it `spares` keeps its mask.

        Where `alpha` and `target` are for a part of the tile, `at` says for which.
        """
        if name not in self.marks:
            self.marks[name] = Mark()
        mark = self.marks[name]
        touched = self._blend(alpha, target, at, mark.change)
        if hides:
            self._hide(alpha, at, name, spares)
        mark.mask[at] |= touched

    def _blend(
        self, alpha: Field, target: Picture | Colour, at: Part, change: Field | None = None
    ) -> NDArray[np.bool_]:
        """Change the picture, and `change` where it moved a pixel by more grey levels; returns the touched pixels."""
        touched = alpha >= FAINT
        part, change = self.picture[at], None if change is None else change[at]
        for here in _bands(touched):
            picture = part[here]
            if isinstance(target, tuple):
                delta: Picture = cv2.subtract(np.array((*target, 0.0)), picture)
            else:
                delta = target[here] - picture
            delta *= rgb(alpha[here] * touched[here])
            picture += delta
            if change is not None:
                moved = cv2.transform(np.abs(delta, out=delta), np.full((1, 3), 1.0 / 3.0, np.float32))
                np.maximum(change[here], moved, out=change[here])
        return touched

    def _hide(self, alpha: Field, at: Part, *spares: str) -> None:
        shown = alpha <= OPAQUE
        for name, mark in self.marks.items():
            if name not in spares:
                mark.mask[at] &= shown

    def widen(self, name: str, width_px: float) -> None:
        """Note that the defect is at least this wide."""
        self.marks[name].width_px = max(self.marks[name].width_px, width_px)
