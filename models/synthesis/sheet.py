"""A contact sheet: many composed tiles on one picture, each with what it shows written under it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from models.synthesis.composer import Composed, Composer
from models.synthesis.fields import TILE

CAPTION_PX = 34
GAP_PX = 6


def contact_sheet(composer: Composer, count: int, columns: int) -> NDArray[np.uint8]:
    """The first `count` tiles in rows of `columns`, uint8[H, W, 3] RGB; a `?` marks a class that is unknown."""
    if count < 1 or columns < 1:
        raise ValueError(f"a contact sheet needs at least one tile and one column, not {count} and {columns}")
    columns = min(columns, count)
    wide, high = TILE + GAP_PX, TILE + CAPTION_PX
    sheet = np.full((-(-count // columns) * high, columns * wide, 3), 245, np.uint8)
    for number in range(count):
        composed = composer.compose(number)
        y, x = (number // columns) * high, (number % columns) * wide
        sheet[y : y + TILE, x : x + TILE] = composed.tile
        _caption(sheet[y + TILE : y + high, x : x + TILE], composed, composer.classes)
    return sheet


def _caption(strip: NDArray[np.uint8], composed: Composed, classes: tuple[str, ...]) -> None:
    """Two lines: kind and ground resolution; the classes in sight."""
    seen = [name for name, value in zip(classes, composed.labels, strict=True) if value == 1.0]
    seen += [f"{name}?" for name, value in zip(classes, composed.labels, strict=True) if np.isnan(value)]
    lines = (f"{composed.kind}, {composed.mm_per_px:.1f} mm/px", " ".join(seen) or "no defect")
    for row, text in enumerate(lines):
        ink = (110, 110, 110) if row == 0 else (20, 20, 20)
        cv2.putText(strip, text, (2, 12 + 15 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.38, ink, 1, cv2.LINE_AA)
