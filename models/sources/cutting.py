"""Cutting tiles out of larger pictures, and the noun that every source yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.sources.labels import Verdict

TILE = 256
"""Side of a tile in px."""


@dataclass(frozen=True)
class Labelled:
    """One labelled tile: where it is, what it must not be separated from, and what is known of it."""

    image: Path
    group: str
    labels: Mapping[str, Verdict]


def corners(height: int, width: int, step: int) -> list[tuple[int, int]]:
    """Top left corners (y, x) of whole tiles, `step` px apart, row by row; the last of a row ends at the border."""

    def along(length: int) -> list[int]:
        return sorted({*range(0, length - TILE + 1, step), length - TILE})

    return [(y, x) for y in along(height) for x in along(width)] if min(height, width) >= TILE else []


def scaled(photo: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """The photo (uint8[H, W, 3]) at `scale` times its size, at most 1."""
    if scale == 1.0:
        return photo
    size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def scaled_mask(mask: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """The mask (uint8[H, W]) at `scale` times its size; no value is mixed out of two others."""
    size = (round(mask.shape[1] * scale), round(mask.shape[0] * scale))
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)


def save(tile: NDArray[np.uint8], path: Path) -> Path:
    """Write uint8 RGB [H, W, 3] as a JPEG of quality 95. Raises OSError."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    path.write_bytes(data.tobytes())
    return path
