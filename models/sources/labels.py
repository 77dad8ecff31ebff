"""From masks and boxes to what may be said of a tile: present, absent, or too little to tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Verdict = int | None
"""1 present, 0 absent, None unknown."""

WIDTHS: Mapping[str, float] = {
    "crack": 1.0,
    "spalling": 12.0,
    "exposed_rebar": 3.0,
    "corrosion_stain": 8.0,
    "efflorescence": 8.0,
    "algae": 12.0,
}
"""Smallest visible width in px of the shipped taxonomy's classes (`min_width_px`; a test compares)."""

LENGTH_PX = 80
"""How long a part of the smallest width has to be before we say that one can see it."""


@dataclass(frozen=True)
class Visible:
    """What has to be seen of a class in a tile: an area in square px, and a place that is at least `width_px` wide."""

    width_px: int
    area_px: int

    @classmethod
    def of_width(cls, min_width_px: float) -> Visible:
        """The rule of a class whose smallest visible width is `min_width_px`: that width, over a length of 80 px."""
        width = max(1, int(np.ceil(min_width_px)))
        return cls(width_px=width, area_px=width * LENGTH_PX)


class Box(NamedTuple):
    """A rectangle in px of the tile, [left, right) by [top, bottom); it may reach beyond the tile."""

    left: float
    top: float
    right: float
    bottom: float


def labels_of_mask(
    mask: NDArray[np.uint8], values: Mapping[str, int], rules: Mapping[str, Visible]
) -> dict[str, Verdict]:
    """What a tile's mask (uint8[H, W], one class value a pixel) says of each class in `values` (class -> mask value).

    Absent only where no pixel carries the value. Present where the pixels that do are many enough and somewhere wide
    enough for the class's rule. Between the two a person would not call it either way: unknown. A class that `values`
    leaves out has no verdict at all. More pixels of a class never make it less present.

    Raises KeyError for a class without a rule.
    """
    return {name: _verdict(mask == value, rules[name]) for name, value in values.items()}


def _verdict(shown: NDArray[np.bool_], rule: Visible) -> Verdict:
    area = int(np.count_nonzero(shown))
    if area == 0:
        return 0
    return 1 if area >= rule.area_px and is_as_wide(shown, rule.width_px) else None


def is_as_wide(shown: NDArray[np.bool_], width_px: int) -> bool:
    """Whether a disc of that diameter fits into the true part of bool[H, W] somewhere; outside the picture is false."""
    offset = np.arange(width_px) - (width_px - 1) / 2
    disc = (offset[:, None] ** 2 + offset[None, :] ** 2 <= (width_px / 2) ** 2).astype(np.uint8)
    left = cv2.erode(shown.astype(np.uint8), disc, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return bool(np.any(left))


def labels_of_boxes(
    boxes: Mapping[str, Sequence[Box]], rules: Mapping[str, Visible], size: tuple[int, int]
) -> dict[str, Verdict]:
    """What boxes round defects say of a tile of `size` (height, width) px, for each class in `boxes`.

    The tile may be a cut of the picture that the boxes were drawn in. Absent only where no box reaches into the tile.
    Present where one does with at least half of itself (the corner of a coarse box may hold nothing), and with as much
    width and area as the class's rule asks for. Unknown between the two. More boxes never make a class less present.

    Raises KeyError for a class without a rule.
    """
    return {name: _verdict_of_boxes(drawn, rules[name], size) for name, drawn in boxes.items()}


def _verdict_of_boxes(boxes: Sequence[Box], rule: Visible, size: tuple[int, int]) -> Verdict:
    verdict: Verdict = 0
    for box in boxes:
        width = min(box.right, size[1]) - max(box.left, 0.0)
        height = min(box.bottom, size[0]) - max(box.top, 0.0)
        if width <= 0 or height <= 0:
            continue
        half = 2 * width * height >= (box.right - box.left) * (box.bottom - box.top)
        if half and min(width, height) >= rule.width_px and width * height >= rule.area_px:
            return 1
        verdict = None
    return verdict
