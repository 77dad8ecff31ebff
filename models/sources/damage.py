"""Close-ups of damaged concrete with a class for each pixel, cut into tiles at several scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.dataset import ManifestError, read_tile
from models.sources.cutting import TILE, Labelled, corners, save, scaled, scaled_mask
from models.sources.labels import Visible, labels_of_mask

VALUES = {"crack": 1, "exposed_rebar": 2, "corrosion_stain": 3, "spalling": 4}
"""Mask value of a class. White deposits and growth have none: efflorescence and algae are unknown here, not absent."""

SCALES = (1.0, 0.7, 0.5)
"""Nobody knows from how far the photos were taken, so each is cut at three scales."""


def tiles(folder: Path, cut: Path, rules: Mapping[str, Visible]) -> Iterator[Labelled]:
    """Photos lie in `images`, masks under the same name in `masks`; half-overlapping tiles are written to `cut`.

    Raises ManifestError for a photo without a mask of its size, or a mask with a value of no class.
    """
    for source in sorted((folder / "images").glob("*.jpg")):
        photo = read_tile(source)
        mask = read_mask(folder / "masks" / f"{source.stem}.png", photo.shape[:2])
        for scale in SCALES:
            small, truth = scaled(photo, scale), scaled_mask(mask, scale)
            for y, x in corners(small.shape[0], small.shape[1], TILE // 2):
                here = np.s_[y : y + TILE, x : x + TILE]
                image = save(small[here], cut / f"damage-{source.stem}-{scale}-{y}-{x}.jpg")
                yield Labelled(image, f"damage/{source.stem}", labels_of_mask(truth[here], VALUES, rules))


def read_mask(path: Path, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """The mask as uint8[H, W] of exactly `size` (height, width). Raises ManifestError."""
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
        raise ManifestError(f"{path}: not a mask of one byte a pixel")
    if mask.shape != tuple(size):
        raise ManifestError(f"{path}: {mask.shape[1]} x {mask.shape[0]} px, its photo {size[1]} x {size[0]}")
    if strange := sorted(set(np.unique(mask).tolist()) - {0, *VALUES.values()}):
        raise ManifestError(f"{path}: values {strange} are of no class")
    return np.asarray(mask, dtype=np.uint8)
