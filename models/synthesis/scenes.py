"""What is in drone photos and is no concrete: brick, gravel, asphalt, wood, sheet metal, leaves, water and sky."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from models.synthesis.fields import TILE, Picture, Random, cut, dye, foliage, heap, mix, pick, rgb, tint, zoomed
from models.synthesis.shapes import Vector, grid, relief, smoothstep

Scene = Callable[[Random, float, Vector], Picture]


def scene(random: Random, mm_per_px: float, light: Vector) -> tuple[str, Picture]:
    """One of the scenes by chance: its name and float32[TILE, TILE, 3]."""
    name = GREENS[int(random.integers(2))] if random.random() < GREEN_SHARE else str(random.choice(list(SCENES)))
    return name, painted(name, random, mm_per_px, light)


def painted(name: str, random: Random, mm_per_px: float, light: Vector) -> Picture:
    """The scene of that name, float32[TILE, TILE, 3], within what a sensor shows."""
    return np.clip(SCENES[name](random, mm_per_px, light), 2.0, 253.0)


def brick(random: Random, mm_per_px: float, light: Vector) -> Picture:
    """Bricks or blocks in mortar, running bond."""
    height = max(random.choice([71.0, 65.0, 190.0]) / mm_per_px, 14.0)
    width, joint = height * random.uniform(2.0, 3.2), max(height * random.uniform(0.08, 0.16), 1.5)
    x, y = grid()
    x = x + random.uniform(0.0, width) + 1.2 * cut(random, "cloud")
    y = y + random.uniform(0.0, height) + 1.2 * cut(random, "cloud")
    row = np.floor(y * (1.0 / height))
    x = x + 0.5 * width * (row % 2.0)
    column = np.floor(x * (1.0 / width))
    edge = np.minimum(np.minimum(y % height, height - y % height), np.minimum(x % width, width - x % width))
    face = smoothstep(edge, 0.35 * joint, 0.75 * joint)
    shades = random.normal(1.0, 0.12, 997)[((row * 31.0 + column * 7.0).astype(int)) % 997].astype(np.float32)
    tone = pick(
        random, ((150.0, 84.0, 62.0), (170.0, 112.0, 82.0), (120.0, 70.0, 60.0), (158.0, 150.0, 140.0)), 0.8, 1.2
    )
    mortar = pick(random, ((168.0, 162.0, 152.0), (120.0, 114.0, 106.0), (196.0, 190.0, 180.0)), 0.8, 1.2)
    rough = shades * (1.0 + 0.07 * cut(random, "grain") + 0.3 * relief(2.5 * face + 0.5 * cut(random, "rough"), light))
    return dye((1.0 + 0.06 * cut(random, "grain")) * (1.0 - face), mortar) + dye(rough * face, tone)


def gravel(random: Random, mm_per_px: float, light: Vector) -> Picture:
    """Loose stones, each with its own shade."""
    colour, height = heap(random, max(random.uniform(10.0, 60.0) / mm_per_px, 4.0))
    shade = 0.8 + 0.25 * height + random.uniform(0.3, 0.7) * relief(3.0 * height, light)
    return tint(
        colour * rgb(np.clip(shade, 0.15, 1.6)), pick(random, ((1.0, 0.98, 0.94), (1.05, 0.95, 0.85)), 0.8, 1.2)
    )


def asphalt(random: Random, mm_per_px: float, light: Vector) -> Picture:
    """Dark binder with stones worn bare."""
    colour, height = heap(random, max(random.uniform(6.0, 14.0) / mm_per_px, 2.5))
    base = random.uniform(45.0, 110.0) * (1.0 + 0.12 * cut(random, "grain") + 0.06 * cut(random, "broad"))
    shown = smoothstep(height + 0.4 * cut(random, "cloud"), 0.4, 1.2) * random.uniform(0.2, 0.8)
    base = base * (1.0 + random.uniform(0.1, 0.4) * relief(2.0 * height, light))
    return mix(rgb(base), colour * np.float32(0.9), shown)


def wood(random: Random, mm_per_px: float, light: Vector) -> Picture:
    """Weathered boards with their grain."""
    width = max(random.uniform(80.0, 200.0) / mm_per_px, 26.0)
    x, _ = grid()
    x = x + random.uniform(0.0, width)
    board = np.floor(x * (1.0 / width)).astype(int)
    gap = smoothstep(np.minimum(x % width, width - x % width), 0.4, 1.8)
    shades = random.normal(1.0, 0.12, TILE)[board].astype(np.float32)
    grain = 1.0 + random.uniform(0.06, 0.16) * cut(random, "streak", 0.7) + 0.05 * cut(random, "brush")
    tone = pick(
        random, ((132.0, 104.0, 78.0), (120.0, 116.0, 110.0), (168.0, 130.0, 88.0), (92.0, 74.0, 60.0)), 0.8, 1.2
    )
    picture = dye(shades * grain * (0.25 + 0.75 * gap), tone)
    return picture if random.random() < 0.6 else np.ascontiguousarray(picture.swapaxes(0, 1))


def sheet_metal(random: Random, mm_per_px: float, light: Vector) -> Picture:
    """Painted or galvanised sheet, flat or corrugated."""
    x, _ = grid()
    tone = pick(
        random, ((150.0, 158.0, 160.0), (84.0, 120.0, 88.0), (110.0, 126.0, 146.0), (186.0, 186.0, 182.0)), 0.8, 1.2
    )
    shade = 1.0 + 0.05 * cut(random, "broad") + 0.03 * cut(random, "streak")
    if random.random() < 0.6:
        period = max(random.uniform(30.0, 150.0) / mm_per_px, 10.0)
        shade = shade + random.uniform(0.1, 0.35) * np.sin(x * np.float32(2.0 * math.pi / period))
    return dye(shade, tone)


def rusty_plate(random: Random, mm_per_px: float, light: Vector) -> Picture:
    """A steel plate that rusts through its paint."""
    rust = pick(random, ((126.0, 70.0, 38.0), (96.0, 58.0, 40.0), (150.0, 92.0, 50.0)), 0.8, 1.2)
    paint = pick(random, ((110.0, 118.0, 122.0), (92.0, 110.0, 96.0), (140.0, 60.0, 50.0)), 0.8, 1.2)
    eaten = smoothstep(cut(random, "cloud") + 0.5 * cut(random, "streak"), random.uniform(-1.5, 0.3), 0.6)
    grain = 1.0 + 0.16 * cut(random, "rough") + 0.08 * cut(random, "grain")
    shade = 1.0 + 0.2 * relief(eaten, light)
    return dye((1.0 - eaten) * shade, paint) + dye(grain * eaten * shade, rust)


def leaves(random: Random, mm_per_px: float, light: Vector) -> Picture:
    """A bush, a hedge or ivy."""
    picture = zoomed(random, foliage(), random.uniform(0.4, 2.0)).astype(np.float32)
    return picture * rgb(random.uniform(0.8, 1.5) * (1.0 + 0.15 * cut(random, "broad")))


def grass(random: Random, mm_per_px: float, light: Vector) -> Picture:
    """Grass, from fresh to dry, seen blade by blade or as a lawn from above, in places in a tree's shade."""
    tone = pick(random, GRASSES, 0.8, 1.2)
    above = random.random() < 0.6
    blades = cut(random, "grain" if above else "brush", random.uniform(0.6, 2.0)) + 0.8 * cut(random, "rough")
    lawn = dye(np.clip(0.85 + random.uniform(0.06, 0.2) * blades + 0.12 * cut(random, "broad"), 0.15, 2.0), tone)
    if random.random() < 0.4:
        shade = smoothstep(cut(random, "broad") + 0.3 * cut(random, "rough"), -0.2, 0.2)
        lawn = lawn * (1.0 - dye(shade, (0.62, 0.58, 0.5)))
    return lawn


def soil(random: Random, mm_per_px: float, light: Vector) -> Picture:
    """Bare ground with small stones."""
    tone = pick(random, ((120.0, 96.0, 70.0), (150.0, 130.0, 100.0), (92.0, 78.0, 62.0)), 0.8, 1.2)
    height = cut(random, "rough", random.uniform(0.8, 2.0))
    return dye(np.clip(1.0 + 0.1 * cut(random, "cloud") + 0.5 * relief(1.5 * height, light), 0.2, 1.8), tone)


def water(random: Random, mm_per_px: float, light: Vector) -> Picture:
    """Ripples that mirror the sky."""
    tone = pick(random, ((72.0, 88.0, 86.0), (60.0, 82.0, 98.0), (96.0, 102.0, 84.0)), 0.8, 1.2)
    ripple = np.ascontiguousarray(cut(random, "streak", random.uniform(0.6, 2.0)).T) + 0.4 * cut(random, "cloud")
    glint = smoothstep(ripple, random.uniform(0.8, 1.6), 2.4)
    return dye(1.0 + 0.14 * ripple, tone) + rgb(glint * random.uniform(20.0, 130.0))


def sky(random: Random, mm_per_px: float, light: Vector) -> Picture:
    """Blue to grey, with clouds or without."""
    _, y = grid()
    cloud = smoothstep(cut(random, "broad"), random.uniform(-2.5, 1.0), random.uniform(1.2, 2.5))
    fade = 0.92 + y * np.float32(random.uniform(0.0, 0.0006))
    blue = pick(random, ((112.0, 156.0, 206.0), (140.0, 170.0, 204.0)), 0.8, 1.1)
    return dye((1.0 - cloud) * fade, blue) + rgb(cloud * fade * random.uniform(190.0, 235.0))


GRASSES = ((86.0, 110.0, 48.0), (126.0, 124.0, 70.0), (70.0, 92.0, 40.0), (138.0, 154.0, 78.0), (112.0, 132.0, 66.0))
SCENES: dict[str, Scene] = {
    "brick": brick,
    "gravel": gravel,
    "asphalt": asphalt,
    "wood": wood,
    "sheet_metal": sheet_metal,
    "rusty_plate": rusty_plate,
    "leaves": leaves,
    "grass": grass,
    "soil": soil,
    "water": water,
    "sky": sky,
}
GREENS = ("leaves", "grass")
GREEN_SHARE = 0.3
"""Of the scenes: what grows beside a structure looks most like what grows on it."""
