"""Composed tiles: a number becomes a picture of concrete with known defects, always the same one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.synthesis.blemishes import BLEMISHES
from models.synthesis.camera import draw_camera, shoot
from models.synthesis.canvas import Canvas
from models.synthesis.cracks import paint_crack
from models.synthesis.fields import Random, choose
from models.synthesis.growth import paint_algae, where_water_stays
from models.synthesis.labels import labels_and_masks, rules
from models.synthesis.occluders import OCCLUDERS
from models.synthesis.spalls import paint_bars, paint_spall, rust_round
from models.synthesis.stains import lime_source, paint_lime, paint_rust, rust_source
from models.synthesis.surfaces import Surfaces

FINEST_MM, COARSEST_MM = 0.3, 5.0


@dataclass(frozen=True)
class Composed:
    """One composed tile: uint8[256, 256, 3] RGB, masks bool[classes, 256, 256], labels float32[classes]: 1, 0, NaN.

    `kind` says what was meant to be in it; the labels say what can be seen.
    """

    tile: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    labels: NDArray[np.float32]
    mm_per_px: float
    kind: str


def _towards_light(random: Random) -> tuple[float, float]:
    """Walls are lit from above, as gravity has it in the runs; a deck has the sun on any side."""
    angle = random.normal(-math.pi / 2.0, 0.8) if random.random() < 0.7 else random.uniform(0.0, 2.0 * math.pi)
    return (math.cos(angle), math.sin(angle))


def _crack(canvas: Canvas, random: Random) -> None:
    covered = paint_crack(canvas, random)
    if random.random() < 0.06:
        paint_rust(canvas, random, covered * 0.6)


def _spall(canvas: Canvas, random: Random) -> None:
    for _ in range(1 + int(random.random() < 0.2)):
        paint_spall(canvas, random)


def _bars(canvas: Canvas, random: Random) -> None:
    bars = paint_bars(canvas, random)
    if random.random() < 0.4:
        paint_rust(canvas, random, rust_round(canvas, random, bars))


def _rust(canvas: Canvas, random: Random) -> None:
    paint_rust(canvas, random, rust_source(canvas, random))


def _lime(canvas: Canvas, random: Random) -> None:
    paint_lime(canvas, random, lime_source(canvas, random))


def _algae(canvas: Canvas, random: Random) -> None:
    paint_algae(canvas, random, where_water_stays(canvas, random))


DEFECTS: dict[str, tuple[float, Callable[[Canvas, Random], None]]] = {
    "crack": (0.25, _crack),
    "spalling": (0.14, _spall),
    "exposed_rebar": (0.17, _bars),
    "corrosion_stain": (0.14, _rust),
    "efflorescence": (0.16, _lime),
    "algae": (0.14, _algae),
}
"""How often a class is the one a damaged tile is about, and who paints it; in the order of painting."""

SCENE_SHARE, SOUND_SHARE = 0.12, 0.3
# Rusty steel is not rust on concrete, but no one would swear that the class is absent.
RUSTY = ("rusty_plate", "rusty_metal_05", "metal_plate_02")


class Composer:
    """Paints tile after tile; which one depends on the seed and its number alone."""

    def __init__(
        self, classes: Sequence[str], surfaces: Surfaces, seed: int, widths: Mapping[str, float] | None = None
    ) -> None:
        """`widths`: smallest width in px at which a class can be seen, where the taxonomy says other than usual."""
        self.classes = tuple(classes)
        self.surfaces = surfaces
        self._seed = seed
        self._rules = rules(widths or {})

    @property
    def painted(self) -> NDArray[np.bool_]:
        """bool[classes]: those that somebody paints; of the others, composed tiles say nothing."""
        return np.array([name in DEFECTS for name in self.classes])

    def compose(self, number: int) -> Composed:
        """The tile of this number, 0 or more."""
        random = np.random.default_rng((self._seed, number))
        mm_per_px = math.exp(random.uniform(math.log(FINEST_MM), math.log(COARSEST_MM)))
        light = _towards_light(random)
        if random.random() < SCENE_SHARE:
            kind, picture = self.surfaces.scene(random, mm_per_px, light)
            canvas = Canvas(picture, mm_per_px, light)
            canvas.unknown |= {"corrosion_stain"} if kind in RUSTY else set()
        else:
            canvas = Canvas(self.surfaces.concrete(random, mm_per_px, light), mm_per_px, light)
            kind = self._paint(canvas, random)
        return self._finish(canvas, random, kind)

    def _paint(self, canvas: Canvas, random: Random) -> str:
        """Blemishes, then defects, then what stands before them."""
        for name in random.choice(list(BLEMISHES), size=choose(random, (0, 1, 2), (0.5, 0.35, 0.15))):
            BLEMISHES[name](canvas, random)
        kind = "sound"
        wanted: set[str] = set()
        if random.random() >= SOUND_SHARE:
            kind = choose(random, tuple(DEFECTS), tuple(share for share, _ in DEFECTS.values()))
            wanted = {kind, *(name for name in DEFECTS if random.random() < 0.07)}
        for name, (_, paint) in DEFECTS.items():
            if name in wanted:
                paint(canvas, random)
        if random.random() < (0.45 if kind == "sound" else 0.2):
            OCCLUDERS[str(random.choice(list(OCCLUDERS)))](canvas, random, self.surfaces)
        return kind

    def _finish(self, canvas: Canvas, random: Random, kind: str) -> Composed:
        """Take the picture, and say what can be seen in it."""
        camera = draw_camera(random)
        values, masks = labels_and_masks(canvas.marks, self.classes, self._rules, camera.spread)
        for name in canvas.unknown & set(self.classes):
            values[self.classes.index(name)] = np.nan
        tile = shoot(random, canvas.picture, canvas.light, camera)
        return Composed(tile, masks, values, canvas.mm_per_px, kind)
