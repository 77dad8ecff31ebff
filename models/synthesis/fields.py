"""The raw material of every painted picture: noise, stones, cracked mud and leaves, made once and cut anew per tile."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

TILE = 256
SIDE = 1024
"""Side of the cached fields in px: a tile is one of half a million different cuts, mirrored and turned."""

Field: TypeAlias = NDArray[Any]
"""float32[H, W]: one value a pixel."""
Picture: TypeAlias = NDArray[Any]
"""float32[H, W, 3]: RGB from 0 to 255."""
Colour: TypeAlias = tuple[float, float, float]
"""Red, green, blue: 0 to 255, or factors."""
Part: TypeAlias = tuple[slice, slice]
"""Rows and columns of a tile."""
Random: TypeAlias = np.random.Generator
Option = TypeVar("Option")
Spectrum: TypeAlias = Literal["white", "grain", "rough", "cloud", "broad", "streak", "brush"]

# How fast the amplitude falls with spatial frequency, and how many times longer than wide the features are.
SPECTRA: dict[Spectrum, tuple[float, float]] = {
    "white": (0.0, 1.0),
    "grain": (0.7, 1.0),
    "rough": (1.2, 1.0),
    "cloud": (1.7, 1.0),
    "broad": (2.4, 1.0),
    "streak": (1.5, 14.0),
    "brush": (0.9, 30.0),
}


def _seeded(name: str) -> Random:
    return np.random.default_rng([ord(letter) for letter in name])


@cache
def noise(spectrum: Spectrum) -> NDArray[np.float32]:
    """Fractal noise float32[SIDE, SIDE], mean 0, deviation 1, within +-3; `streak` and `brush` run downwards."""
    slope, stretch = SPECTRA[spectrum]
    rows = np.fft.fftfreq(SIDE)[:, None] * stretch
    columns = np.fft.rfftfreq(SIDE)[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    wave = np.fft.rfft2(_seeded(spectrum).standard_normal((SIDE, SIDE)))
    field = np.fft.irfft2(wave * np.maximum(frequency, 1.0 / 320.0) ** -slope, s=(SIDE, SIDE))
    field = (field - field.mean()) / field.std()
    apart = np.empty((SIDE, SIDE + 16), np.float32)  # rows of 4 KiB would all fall on the same few lines of the cache
    apart[:, :SIDE] = np.clip(field, -3.0, 3.0)
    return apart[:, :SIDE]


def cut(random: Random, spectrum: Spectrum, zoom: float = 1.0) -> NDArray[np.float32]:
    """A random piece of the noise as float32[TILE, TILE]; `zoom` 2 makes its features twice as large."""
    return zoomed(random, noise(spectrum), zoom, turn=SPECTRA[spectrum][1] == 1.0)


def zoomed(random: Random, field: NDArray[Any], zoom: float, turn: bool = True) -> NDArray[Any]:
    """A random square of a cached field, TILE px wide after scaling; mirrored, and turned if the field allows it."""
    return pieces(random, (field,), zoom, turn)[0]


def pieces(random: Random, fields: tuple[NDArray[Any], ...], zoom: float, turn: bool = True) -> list[NDArray[Any]]:
    """The same random square of several fields of one size."""
    side = TILE if abs(zoom - 1.0) < 0.15 else min(max(round(TILE / zoom), 8), SIDE)
    y, x, flips = (int(random.integers(limit)) for limit in (SIDE - side + 1, SIDE - side + 1, 8))
    found = []
    for field in fields:
        piece = field[y : y + side, x : x + side]
        if side != TILE:
            piece = piece.copy()  # and then resized: a fifth faster than from rows that lie far apart
        if side > 2 * TILE:
            piece = cv2.resize(piece, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
        if side != TILE:
            piece = cv2.resize(piece, (TILE, TILE), interpolation=cv2.INTER_LINEAR)
        own = side != TILE
        if turn and flips & 4:
            piece, own = cv2.transpose(piece), True
        if flips & 1:
            piece, own = cv2.flip(piece, -1 if turn and flips & 2 else 1, dst=piece if own else None), True
        found.append(np.asarray(piece) if own else piece.copy())
    return found


def grey(picture: Picture) -> NDArray[np.float32]:
    """Brightness of each pixel, float32[H, W]."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.float32)


def rgb(field: Field) -> NDArray[np.float32]:
    """The field as a grey picture float32[H, W, 3]; ten times as fast to multiply with as a broadcast axis."""
    return np.asarray(cv2.cvtColor(field.astype(np.float32, copy=False), cv2.COLOR_GRAY2RGB), dtype=np.float32)


def mix(picture: Picture, other: Picture, share: Field) -> Picture:
    """The picture, changed in place: of each pixel the `share` [H, W], 0 to 1, has become that of `other`."""
    other = other - picture
    other *= rgb(share)
    picture += other
    return picture


def tint(picture: Picture, colour: Colour) -> NDArray[np.float32]:
    """The picture with red, green and blue multiplied by `colour`."""
    return np.asarray(cv2.transform(picture, np.diag(np.asarray(colour, np.float32))), dtype=np.float32)


def dye(field: Field, colour: Colour) -> NDArray[np.float32]:
    """The field in a colour: float32[H, W, 3]."""
    return tint(rgb(field), colour)


@cache
def _steps(shares: tuple[float, ...]) -> tuple[float, ...]:
    steps = np.cumsum(shares)
    return tuple((steps / steps[-1]).tolist())


def choose(random: Random, options: Sequence[Option], shares: tuple[float, ...]) -> Option:
    """One of the options, as often as its share says; what `Generator.choice` draws, without its checks."""
    return options[bisect_right(_steps(shares), random.random())]


def pick(random: Random, colours: Sequence[Colour], low: float = 1.0, high: float = 1.0) -> Colour:
    """One of the colours, made `low` to `high` times as bright."""
    factor = random.uniform(low, high)
    red, green, blue = colours[int(random.integers(len(colours)))]
    return (red * factor, green * factor, blue * factor)


@dataclass(frozen=True)
class Heap:
    """A heap of stones: `colour` uint8[SIDE, SIDE, 3] and `height` float32[SIDE, SIDE] from -1 (gap) to 1 (top)."""

    colour: NDArray[np.uint8]
    height: NDArray[np.float32]
    diameter: float
    """The usual stone, in px."""


STONE_COLOURS = np.array(
    [(150, 146, 138), (186, 178, 164), (112, 106, 98), (72, 72, 74), (170, 142, 108), (212, 208, 200), (140, 108, 86)]
)


@cache
def stones(diameter: int) -> Heap:
    """Aggregate as it lies in mortar: angular stones of about `diameter` px, each with its own colour and dome."""
    random = _seeded(f"stones {diameter}")
    count = round(1.9 * (SIDE / diameter) ** 2)
    size = diameter * random.lognormal(-0.25, 0.45, count)
    size[::-1].sort()
    index = np.zeros((SIDE, SIDE), np.float32)
    for number, radius in enumerate(size / 2.0, start=1):
        corners = int(random.integers(6, 10))
        angle = np.sort(random.uniform(0.0, 2.0 * np.pi, corners))
        reach = radius * random.uniform(0.75, 1.15, corners)
        outline = np.stack([np.cos(angle) * reach, np.sin(angle) * reach * random.uniform(0.6, 1.0)], axis=1)
        outline += random.uniform(0.0, SIDE, 2)
        cv2.fillConvexPoly(index, np.round(outline * 16.0).astype(np.int32), float(number), shift=4)
    border = np.zeros((SIDE, SIDE), np.uint8)
    border[:, 1:] |= (index[:, 1:] != index[:, :-1]).view(np.uint8)
    border[1:] |= (index[1:] != index[:-1]).view(np.uint8)
    inside = np.asarray(cv2.distanceTransform(1 - border, cv2.DIST_L2, 3))
    dome: Field = np.sqrt(np.clip(inside / (0.22 * diameter), 0.0, 1.0))
    mortar = index == 0
    height = np.where(mortar, -0.6 + 0.3 * noise("rough"), dome + 0.1 * noise("rough")).astype(np.float32)
    palette = STONE_COLOURS[random.integers(len(STONE_COLOURS), size=count + 1)] * random.uniform(
        0.8, 1.2, (count + 1, 1)
    )
    palette[0] = (150, 144, 134)
    colour = palette[index.astype(np.int32)] + 7.0 * noise("grain")[:, :, None]
    return Heap(np.clip(colour, 0, 255).astype(np.uint8), height, float(diameter))


def heap(random: Random, diameter: float) -> tuple[Picture, Field]:
    """Stones of about `diameter` px: their colours float32[TILE, TILE, 3] and heights float32[TILE, TILE]."""
    made = stones(32 if diameter > 12.0 else 8)
    colour, height = pieces(random, (made.colour, made.height), max(diameter / made.diameter, 0.25))
    return colour.astype(np.float32), height


@cache
def crackle() -> NDArray[np.float32]:
    """Distance in px to the nearest line of a net like dried mud, cells of about 110 px: float32[SIDE, SIDE]."""
    random = _seeded("crackle")
    free = np.ones((SIDE, SIDE), np.uint8)
    seeds = random.integers(0, SIDE, size=((SIDE // 110) ** 2, 2))
    free[seeds[:, 0], seeds[:, 1]] = 0
    cells = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1].astype(np.float32)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    bent = 9.0 * noise("cloud") + 1.5 * noise("rough")
    moved = cv2.remap(cells, columns + bent, rows + bent[::-1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
    line = np.zeros((SIDE, SIDE), np.uint8)
    line[:, 1:] |= (moved[:, 1:] != moved[:, :-1]).view(np.uint8)
    line[1:] |= (moved[1:] != moved[:-1]).view(np.uint8)
    return np.asarray(cv2.distanceTransform(1 - line, cv2.DIST_L2, 5), dtype=np.float32)


@cache
def foliage() -> NDArray[np.uint8]:
    """Leaves over leaves, the lower ones dark: uint8[SIDE, SIDE, 3]."""
    random = _seeded("foliage")
    picture = np.full((SIDE, SIDE, 3), (20, 26, 15), np.uint8)
    for depth in np.linspace(0.0, 1.0, 14000):
        bright = (0.25 + 0.95 * depth) * random.lognormal(-0.1, 0.3)
        green = np.clip(np.array((84, 104, 56)) * random.normal(1.0, 0.1, 3) * bright, 0, 235)
        centre = tuple(int(value) for value in random.integers(0, SIDE, 2))
        length = int(random.integers(4, 14))
        axes = (length, max(length // int(random.integers(2, 5)), 2))
        colour = tuple(float(value) for value in green)
        cv2.ellipse(picture, centre, axes, float(random.uniform(0, 360)), 0, 360, colour, cv2.FILLED)
    lit = picture * (1.0 + 0.10 * noise("grain") + 0.12 * noise("cloud"))[:, :, None]
    return np.clip(cv2.GaussianBlur(lit, (0, 0), 0.7), 0, 255).astype(np.uint8)
