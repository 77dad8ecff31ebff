"""Concrete from nothing: cast walls, trowelled and broomed decks, worn pavements, with pores, board marks and damp."""

from __future__ import annotations

import cv2
import numpy as np

from models.synthesis.fields import TILE, Field, Picture, Random, Spectrum, choose, cut, heap, mix, pick, rgb, tint
from models.synthesis.shapes import Vector, grid, relief, smoothstep

TINTS = (
    (1.0, 1.0, 0.98),
    (1.04, 1.0, 0.93),
    (0.95, 1.0, 1.04),
    (1.08, 1.0, 0.85),
    (1.02, 0.99, 0.96),
    (0.98, 1.01, 0.95),
)


def concrete(random: Random, mm_per_px: float, light: Vector) -> Picture:
    """Sound concrete, float32[TILE, TILE, 3], lit from `light`."""
    finish = choose(random, ("cast", "trowelled", "broomed", "worn"), (0.4, 0.25, 0.15, 0.2))
    grey = random.uniform(95.0, 200.0) + random.uniform(3.0, 12.0) * cut(random, "broad")
    grey += random.uniform(1.0, 7.0) * cut(random, "cloud", random.uniform(1.0, 2.0))
    grey += random.uniform(1.0, 5.0) * cut(random, "grain", random.uniform(1.0, 2.0))
    if finish == "cast":
        grey += _boards(random, mm_per_px)
    grey += _roughness(random, finish, light)
    picture = tint(rgb(grey), pick(random, TINTS))
    if finish == "worn":
        _aggregate(random, picture, mm_per_px)
    if finish == "cast" or random.random() < 0.4:
        _pores(random, picture, mm_per_px, light)
    if random.random() < 0.35:
        _damp(random, picture)
    return np.clip(picture, 8.0, 250.0, out=picture)


def _roughness(random: Random, finish: str, light: Vector) -> Field:
    """Light and shade of the small unevenness of the surface, in grey levels."""
    if finish == "broomed":
        height = cut(random, "brush") if random.random() < 0.5 else cut(random, "brush").T
        return random.uniform(6.0, 18.0) * relief(np.ascontiguousarray(height), light)
    strength = {"cast": (0.0, 8.0), "trowelled": (0.0, 12.0), "worn": (15.0, 45.0)}[finish]
    height = cut(random, "rough", random.uniform(1.0, 2.5) if finish == "worn" else random.uniform(0.8, 2.0))
    return random.uniform(*strength) * relief(height, light)


def _boards(random: Random, mm_per_px: float) -> Field:
    """Marks of the formwork boards: each board cast its own grey and its own grain."""
    width = max(random.uniform(90.0, 250.0) / mm_per_px, 24.0)
    x, y = grid()
    along = x if random.random() < 0.5 else y
    board = np.floor((along + random.uniform(0.0, width)) / width).astype(int)
    shades = random.normal(0.0, random.uniform(0.0, 4.0), int(TILE / width) + 3)
    grain = cut(random, "streak")
    return shades[board].astype(np.float32) + random.uniform(0.0, 4.0) * (grain if along is x else grain.T)


def _aggregate(random: Random, picture: Picture, mm_per_px: float) -> None:
    """Stones that wear has brought to the surface, in patches."""
    stone, height = heap(random, random.uniform(4.0, 14.0) / mm_per_px)
    shown = smoothstep(height + 0.5 * cut(random, "cloud"), 0.5, 1.2) * random.uniform(0.2, 0.75)
    stone *= np.float32(picture.mean() / 140.0)
    mix(picture, stone, shown)


def _pores(random: Random, picture: Picture, mm_per_px: float, light: Vector) -> None:
    """Bug holes: the dark dots that air leaves on a cast face, with the light on their far rim."""
    count = int(random.gamma(1.2, 14.0))
    holes = np.zeros((TILE * 2, TILE * 2), np.uint8)
    radii = np.clip(random.lognormal(0.3, 0.6, count) / mm_per_px, 0.4, 4.5)
    for radius, place in zip(radii, random.integers(0, 2 * TILE, (count, 2)), strict=True):
        axes = (max(round(2.0 * radius), 1), max(round(2.0 * radius * random.uniform(0.6, 1.0)), 1))
        tilt = float(random.uniform(0.0, 180.0))
        cv2.ellipse(holes, (int(place[0]), int(place[1])), axes, tilt, 0.0, 360.0, 255, cv2.FILLED)
    depth = np.asarray(cv2.resize(holes, (TILE, TILE), interpolation=cv2.INTER_AREA), np.float32) / np.float32(255.0)
    picture *= rgb(1.0 - random.uniform(0.25, 0.65) * depth)
    picture += rgb(random.uniform(10.0, 45.0) * relief(-depth, light) * (1.0 - depth))


def _damp(random: Random, picture: Picture) -> None:
    """Damp or dusty patches and washed streaks, of the concrete's own hue."""
    kind: Spectrum = "streak" if random.random() < 0.5 else "broad"
    stain = smoothstep(cut(random, kind, random.uniform(1.0, 2.0)), random.uniform(-0.3, 0.6), random.uniform(0.8, 2.0))
    picture *= rgb(1.0 + random.uniform(-0.22, 0.12) * stain)
