"""The same picture under two names: finds tiles of different groups that are copies, and makes their groups one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.dataset import Manifest, read_tile

SIDE = 64
"""Pixels of the thumbnail that two tiles are compared on."""

HASH_SIDE = 32
HASH_BITS = 64
FARTHEST = 16
"""Bits in which the hashes of copies may differ: of tiles nothing to do with each other, 4 in 100,000 pairs pass."""

ALIKE = 0.65
"""Correlation from which two tiles are copies. Copies encoded again at JPEG quality 30, or cropped by 4 % of each side,
stay above 0.75; of 19,000 tiles, most of plain concrete, no two of different photos came above 0.54."""

SCALES = (0.9, 0.925, 0.95, 0.975, 1.0, 1.025, 1.05, 1.075, 1.1)
PLAIN = 0.5
"""Grey levels of fine contrast below which a tile is blank: all blank tiles look alike, and it means nothing."""


@dataclass(frozen=True)
class Pair:
    """Two tiles of different groups that show the same picture; `likeness` is their correlation, at most 1."""

    first: Path
    second: Path
    groups: tuple[str, str]
    likeness: float


def near_duplicates(manifest: Manifest) -> list[Pair]:
    """Pairs of tiles of different groups that are copies of each other: re-encoded, brightened, cropped by a little.

    A perceptual hash proposes pairs, a correlation of fine structure decides: plain concrete is alike from afar only.
    What overlaps by half or is mirrored is not found. 20,000 tiles take about 15 s of one core and 200 MB.
    Raises ManifestError for a tile that cannot be read.
    """
    thumbnails = np.stack([thumbnail(read_tile(image)) for image in manifest.images])
    groups = np.unique(np.array(manifest.groups), return_inverse=True)[1]
    telling = np.flatnonzero([np.std(_fine(one)) >= PLAIN for one in thumbnails])
    hashes = np.array([perceptual_hash(thumbnails[row]) for row in telling], dtype=np.uint64)
    found = []
    for i, j in _close(hashes, groups[telling]):
        a, b = int(telling[i]), int(telling[j])
        alike = likeness(thumbnails[a], thumbnails[b])
        if alike >= ALIKE:
            found.append(Pair(manifest.images[a], manifest.images[b], (manifest.groups[a], manifest.groups[b]), alike))
    return found


def thumbnail(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A tile (uint8 RGB [H, W, 3]) as uint8 grey [64, 64]."""
    grey = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def perceptual_hash(small: NDArray[np.uint8]) -> int:
    """64 bits of a thumbnail: the signs of the lowest cosine coefficients of its evenly lit self.

    The DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), on a picture
    whose light and contrast are evened out first, because all plain concrete has the same coarse light.
    """
    shrunk = cv2.resize(small, (HASH_SIDE, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    coefficients = cv2.dct(_even(shrunk, reach=6.0, spread=6.0))
    i, j = np.indices(coefficients.shape)
    lowest = np.argsort(np.where(i + j >= 2, i + j, coefficients.size), axis=None, kind="stable")[:HASH_BITS]
    return int.from_bytes(np.packbits(coefficients.ravel()[lowest] > 0).tobytes(), "big")


def likeness(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Highest correlation (-1 to 1) of two thumbnails' fine structure; shifts to 1/8, scales to 1/10 of the side."""
    fine, edge = _even(one.astype(np.float32), reach=2.7, spread=4.0), SIDE // 8
    middle, whole = fine[edge:-edge, edge:-edge], _even(other.astype(np.float32), reach=2.7, spread=4.0)
    return max(float(cv2.matchTemplate(_zoomed(whole, s), middle, cv2.TM_CCOEFF_NORMED).max()) for s in SCALES)


def _zoomed(picture: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    stay = (1.0 - scale) * (SIDE - 1) / 2.0
    about_the_middle = np.array([[scale, 0.0, stay], [0.0, scale, stay]])
    zoomed = cv2.warpAffine(picture, about_the_middle, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(zoomed, dtype=np.float32)


def _fine(picture: NDArray[np.generic], reach: float = 2.7) -> NDArray[np.float32]:
    grey = picture.astype(np.float32)
    return np.asarray(grey - cv2.GaussianBlur(grey, (0, 0), reach), dtype=np.float32)


def _even(picture: NDArray[np.float32], reach: float, spread: float) -> NDArray[np.float32]:
    """Without what is coarser than `reach` px, and with the same contrast everywhere: a joint then counts as little as
    the concrete around it, which is what differs between two joints."""
    fine = _fine(picture, reach)
    contrast = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), spread))
    return np.asarray(fine / (contrast + 1.0), dtype=np.float32)


def _close(hashes: NDArray[np.uint64], groups: NDArray[np.intp], rows: int = 256) -> Iterator[tuple[int, int]]:
    """Pairs of different groups whose hashes differ in few bits; every pair is looked at, some rows at a time."""
    for start in range(0, len(hashes), rows):
        mine = np.s_[start : start + rows]
        bits = np.bitwise_count(hashes[mine, None] ^ hashes[None, start:])
        first, second = np.nonzero((bits <= FARTHEST) & (groups[mine, None] != groups[None, start:]))
        for i, j in zip(first.tolist(), second.tolist(), strict=True):
            if i < j:
                yield start + i, start + j


def merge_groups(manifest: Manifest, pairs: Iterable[Pair]) -> Manifest:
    """The manifest with the groups of each pair made one, and of what hangs together by several pairs.

    The name of a merged group is the smallest of its names, whatever the order of the pairs.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent.setdefault(above, above)  # halves the way for the next who asks
            name = above
        return name

    for pair in pairs:
        one, other = sorted(map(root, pair.groups))
        parent[other] = one
    return dataclasses.replace(manifest, groups=tuple(root(name) for name in manifest.groups))
