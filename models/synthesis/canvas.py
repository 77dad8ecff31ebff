"""The picture while it is painted, with the exact mask of every defect that is still to be seen in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from models.synthesis.fields import TILE, Colour, Field, Picture, rgb
from models.synthesis.shapes import Vector

FAINT = 0.06
"""Paint thinner than this is not put on at all: a mask then holds every pixel that was changed, and no other."""
OPAQUE = 0.6
"""Paint thicker than this hides what was there before."""


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
        self._blend(alpha, target)
        if hides:
            self._hide(alpha)

    def lay_defect(
        self, name: str, alpha: Field, target: Picture | Colour, hides: bool = True, spares: str = ""
    ) -> None:
        """`lay`, and the touched pixels join the mask of the defect; the class that it `spares` keeps its mask."""
        touched, change = self._blend(alpha, target)
        if hides:
            self._hide(alpha, name, spares)
        mark = self.marks.setdefault(name, Mark())
        mark.mask |= touched
        np.maximum(mark.change, change, out=mark.change)

    def _blend(self, alpha: Field, target: Picture | Colour) -> tuple[NDArray[np.bool_], Field]:
        """Change the picture; returns which pixels were touched and by how many grey levels each was moved."""
        touched = alpha >= FAINT
        if isinstance(target, tuple):
            colour = np.broadcast_to(np.array(target, np.float32), self.picture.shape)
            delta: Picture = cv2.subtract(colour, self.picture)
        else:
            delta = np.subtract(target, self.picture, dtype=np.float32)
        delta *= rgb(alpha * touched)
        self.picture += delta
        return touched, np.asarray(cv2.transform(np.abs(delta), np.full((1, 3), 1.0 / 3.0, np.float32)))

    def _hide(self, alpha: Field, *spares: str) -> None:
        for name, mark in self.marks.items():
            if name not in spares:
                mark.mask &= alpha <= OPAQUE

    def widen(self, name: str, width_px: float) -> None:
        """Note that the defect is at least this wide."""
        self.marks[name].width_px = max(self.marks[name].width_px, width_px)
