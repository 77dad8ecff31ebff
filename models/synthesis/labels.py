"""From what can be seen of a defect to its label: present, absent, or too little to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.sources.labels import Visible
from models.synthesis.canvas import Mark
from models.synthesis.fields import TILE


@dataclass(frozen=True)
class Rule:
    """From when on a class counts as present; below any of these, and not absent, it is unknown."""

    pixels: int
    """Pixels of the mask still in sight."""
    width_px: float
    """Its widest place."""
    change: float
    """Grey levels by which it differs from the sound concrete, on average over the mask."""


# Those of configs/taxonomy.toml; the area follows from the width by the converters' own law (sources/labels.py).
WIDTHS = {
    "crack": 1.0,
    "spalling": 12.0,
    "exposed_rebar": 3.0,
    "corrosion_stain": 8.0,
    "efflorescence": 8.0,
    "algae": 12.0,
}
# Rust moves blue far and red hardly, so its average says less than the eye sees.
CHANGES = {"crack": 8.0, "spalling": 6.0, "corrosion_stain": 7.0}
USUAL_CHANGE = 10.0


def rules(widths: Mapping[str, float]) -> dict[str, Rule]:
    """The rules of all classes that can be painted, with other smallest widths in px where a taxonomy states them."""
    found = {}
    for name, usual in WIDTHS.items():
        width = widths.get(name, usual)
        area = Visible.of_width(width).area_px
        found[name] = Rule(pixels=area, width_px=width, change=CHANGES.get(name, USUAL_CHANGE))
    return found


def label(mark: Mark | None, rule: Rule, spread_px: float = 0.0) -> float:
    """1 present, 0 absent, NaN unknown; `spread_px` is what the camera makes of a point and dims thin lines."""
    pixels = 0 if mark is None else int(np.count_nonzero(mark.mask))
    if mark is None or pixels == 0:
        return 0.0
    width = mark.width_px or 2.0 * float(cv2.distanceTransform(mark.mask.view(np.uint8), cv2.DIST_L2, 3).max())
    seen = float(mark.change[mark.mask].mean()) * width / float(np.hypot(width, spread_px))
    return 1.0 if pixels >= rule.pixels and width >= rule.width_px and seen >= rule.change else np.nan


def labels_and_masks(
    marks: Mapping[str, Mark], classes: Sequence[str], table: Mapping[str, Rule], spread_px: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Labels float32[classes] and masks bool[classes, H, W], in their order; what nobody paints is unknown."""
    values = np.full(len(classes), np.nan, np.float32)
    masks = np.zeros((len(classes), TILE, TILE), np.bool_)
    for number, name in enumerate(classes):
        if name in table:
            values[number] = label(marks.get(name), table[name], spread_px)
        if name in marks:
            masks[number] = marks[name].mask
    return values, masks
