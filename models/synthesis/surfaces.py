"""What is painted on: concrete from nothing, from texture photos, or clean tiles of real photos."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.dataset import read_tile
from models.sources.scenes import texture_group, texture_kinds
from models.synthesis import scenes
from models.synthesis.concrete import concrete
from models.synthesis.fields import TILE, Field, Picture, Random, cut, rgb
from models.synthesis.shapes import Vector

LARGEST = 1024
"""Textures are kept no larger than this, in px; a tile is cut from them at a random scale."""
CONCRETE_KINDS = ("concrete", "plaster")


@dataclass(frozen=True)
class Texture:
    """A photo to cut tiles from: `levels` are the photo and its halves, uint8[H, W, 3] each."""

    name: str
    levels: tuple[NDArray[np.uint8], ...]

    @classmethod
    def read(cls, path: Path) -> Texture:
        """The picture at no more than LARGEST px; raises ManifestError if it cannot be read."""
        photo = read_tile(path)
        scale = LARGEST / max(photo.shape[:2])
        if scale < 1.0:
            size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
            photo = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        levels = [photo]
        while min(levels[-1].shape[:2]) >= TILE // 2:
            size = (levels[-1].shape[1] // 2, levels[-1].shape[0] // 2)
            levels.append(np.asarray(cv2.resize(levels[-1], size, interpolation=cv2.INTER_AREA), dtype=np.uint8))
        return cls(path.stem, tuple(levels))

    @property
    def is_large(self) -> bool:
        """A smaller picture would be mirrored over and over within one tile."""
        return min(self.levels[0].shape[:2]) >= TILE

    def sample(self, random: Random, turn: float) -> Picture:
        """A piece float32[TILE, TILE, 3] at a random place, scale, mirror, and an angle of up to `turn` degrees."""
        scale = random.uniform(0.7, 2.6)
        level = min(int(scale), len(self.levels) - 1)
        photo = self.levels[level]
        height, width = photo.shape[:2]
        step = scale / 2**level
        angle = float(random.uniform(-turn, turn))
        matrix: Field = cv2.getRotationMatrix2D((TILE / 2.0, TILE / 2.0), angle, step)
        matrix[:, 2] += random.uniform(0.0, 1.0, 2) * (width, height) - TILE / 2.0
        if random.random() < 0.5:
            matrix[:, 0] *= -1.0
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        piece = cv2.warpAffine(photo, matrix, (TILE, TILE), flags=flags, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(piece, dtype=np.float32)


@dataclass(frozen=True)
class Surfaces:
    """Where backgrounds come from; photos are used beside what is made from nothing, never instead of it."""

    concretes: tuple[Texture, ...] = ()
    others: tuple[Texture, ...] = ()
    tiles: tuple[Path, ...] = ()
    tile_share: float = 0.0
    """Share of the concrete that comes from `tiles`."""
    files: tuple[Path, ...] = ()
    """Those of the texture photos."""

    @classmethod
    def procedural(cls) -> Surfaces:
        """Everything from nothing: needs no data at all."""
        return cls()

    @classmethod
    def from_folder(cls, data: Path, groups: Collection[str] | None = None) -> Surfaces:
        """The photos of `data/textures`, as its index.csv sorts them; of `groups` alone, if given.

        Raises ManifestError if there is no index.
        """
        folder = data / "textures"
        kinds = texture_kinds(folder)
        chosen = {image: kind for image, kind in kinds.items() if groups is None or texture_group(image) in groups}
        files = tuple(folder / image for image in chosen)
        textures = [(kind, Texture.read(file)) for kind, file in zip(chosen.values(), files, strict=True)]
        return cls(
            concretes=tuple(texture for kind, texture in textures if kind in CONCRETE_KINDS and texture.is_large),
            others=tuple(texture for kind, texture in textures if kind not in CONCRETE_KINDS and texture.is_large),
            files=files,
        )

    def with_tiles(self, paths: Sequence[Path], share: float = 0.6) -> Surfaces:
        """The same, and `share` of the concrete from these pictures, which must show sound concrete only."""
        return replace(self, tiles=tuple(paths), tile_share=share if paths else 0.0)

    def concrete(self, random: Random, mm_per_px: float, light: Vector) -> Picture:
        """Sound concrete, float32[TILE, TILE, 3]; a different piece each time."""
        if self.tile_share and random.random() < self.tile_share:
            return self._tile(random)
        if self.concretes and random.random() < 0.4:
            texture = self.concretes[int(random.integers(len(self.concretes)))]
            picture = texture.sample(random, 180.0)
            grey = (
                1.0
                + random.uniform(0.0, 0.08) * cut(random, "broad")
                + random.uniform(0.0, 0.05) * cut(random, "rough")
            )
            return picture * rgb(grey * random.uniform(0.75, 1.25))
        return concrete(random, mm_per_px, light)

    def scene(self, random: Random, mm_per_px: float, light: Vector) -> tuple[str, Picture]:
        """The name of something that is no concrete, and a picture of it."""
        if self.others and random.random() < 0.5:
            texture = self.others[int(random.integers(len(self.others)))]
            return texture.name, texture.sample(random, 12.0) * np.float32(random.uniform(0.75, 1.25))
        return scenes.scene(random, mm_per_px, light)

    def _tile(self, random: Random) -> Picture:
        """A clean tile of a real photo, 70 to 100 % of it, turned and mirrored."""
        tile = read_tile(self.tiles[int(random.integers(len(self.tiles)))])
        side = round(min(tile.shape[:2]) * random.uniform(0.7, 1.0))
        y, x = (int(random.integers(length - side + 1)) for length in tile.shape[:2])
        part = np.rot90(tile[y : y + side, x : x + side], k=int(random.integers(4)))
        if random.random() < 0.5:
            part = part[:, ::-1]
        part = np.ascontiguousarray(part)
        return np.asarray(cv2.resize(part, (TILE, TILE), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
