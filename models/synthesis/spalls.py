"""Spalls: the skin of the concrete broken away, torn edges in shadow and light, aggregate and bars laid bare."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from models.synthesis.canvas import Canvas
from models.synthesis.fields import (
    TILE,
    Field,
    Part,
    Picture,
    Random,
    Spectrum,
    choose,
    cut,
    dye,
    heap,
    mix,
    pick,
    rgb,
    tint,
)
from models.synthesis.shapes import Vector, around, blob, grid, relief, run_down, shifted, smoothstep, soften

BROKEN = (
    (168.0, 160.0, 146.0),
    (150.0, 146.0, 140.0),
    (182.0, 166.0, 140.0),
    (132.0, 128.0, 124.0),
    (160.0, 140.0, 118.0),
)
BARS = ((82.0, 58.0, 46.0), (66.0, 52.0, 46.0), (96.0, 66.0, 48.0), (60.0, 54.0, 52.0))
FLAKES = ((128.0, 80.0, 50.0), (104.0, 66.0, 46.0), (146.0, 96.0, 56.0), (84.0, 66.0, 58.0))


@dataclass(frozen=True)
class Spall:
    """A painted spall: `inside` 0 to 1, `depth` in px below the skin, float32[TILE, TILE] each."""

    inside: Field
    depth: Field


@dataclass(frozen=True)
class Bar:
    """A straight bar: a point on its axis, the direction of the axis, and the radius in px."""

    centre: Vector
    angle: float
    radius: float


def paint_spall(canvas: Canvas, random: Random, centre: Vector | None = None, radii: Vector | None = None) -> Spall:
    """A hole of 40 to 400 px across, cut by the border of the tile if large; its edge to the light lies in shadow."""
    if centre is None or radii is None:
        size = math.exp(random.uniform(math.log(24.0), math.log(200.0)))
        margin = 45.0 - 0.4 * size
        centre = (random.uniform(margin, TILE - margin), random.uniform(margin, TILE - margin))
        radii = (size, size * random.uniform(0.4, 1.0))
    inside = blob(random, centre, radii, random.uniform(0.0, 3.1), random.uniform(0.5, 1.0))
    return _break_out(canvas, random, inside)


def _break_out(canvas: Canvas, random: Random, inside: Field) -> Spall:
    """The skin gone where `inside` says so."""
    here = around(inside)
    depth = np.zeros_like(inside)
    depth[here] = _hollow(canvas, random, inside, here)
    face = _broken_face(canvas, random, inside, depth, here)
    canvas.lay_defect("spalling", inside[here], face, at=here)
    return Spall(inside, depth)


def _hollow(canvas: Canvas, random: Random, inside: Field, here: Part) -> Field:
    """Depth in px of the part `here`: a broken slope from the edge, then an uneven floor."""
    away = np.asarray(cv2.distanceTransform((inside[here] > 0.5).view(np.uint8), cv2.DIST_L2, 3))
    slope = max(canvas.px(random.uniform(8.0, 40.0)), 4.0)
    deep = min(max(canvas.px(random.uniform(10.0, 50.0)), 4.0), 26.0)
    broken = away * (1.0 + 0.35 * cut(random, "cloud", 1.3)[here])
    floor = np.clip(broken * (1.0 / slope), 0.0, 1.0) ** 0.7
    return np.asarray(floor * deep * (1.0 + 0.2 * cut(random, "cloud", 0.8)[here]))


def _broken_face(canvas: Canvas, random: Random, inside: Field, depth: Field, here: Part) -> Picture:
    """The colours of broken concrete with its stones, under the light of this tile, in the part `here`."""

    def noise(spectrum: Spectrum, zoom: float = 1.0) -> Field:
        return cut(random, spectrum, zoom)[here]

    depth = depth[here]
    stone, height = (field[here] for field in heap(random, max(canvas.px(random.uniform(8.0, 26.0)), 3.0)))
    skin = cv2.mean(canvas.picture)[:3]
    red, green, blue = (
        0.5 * one + 0.5 * old / canvas.exposure for one, old in zip(pick(random, BROKEN), skin, strict=True)
    )
    bright = random.uniform(0.8, 1.15)
    mortar = dye(1.0 + 0.05 * noise("cloud") + 0.04 * noise("grain"), (red * bright, green * bright, blue * bright))
    shown = smoothstep(height + 0.6 * noise("cloud"), random.uniform(-0.2, 0.5), 1.1)
    shown *= smoothstep(depth, 0.5, 4.0) * random.uniform(0.4, 1.0)
    stone *= np.float32(random.uniform(0.75, 1.1))
    mix(mortar, stone, shown)
    bumps = 1.8 * height * smoothstep(depth, 0.5, 4.0) + random.uniform(0.4, 1.4) * noise("rough", 1.6)
    light = 1.0 + random.uniform(0.25, 0.55) * relief(bumps - 0.9 * depth, canvas.light)
    light *= 1.0 - random.uniform(0.1, 0.45) * smoothstep(0.7 * noise("cloud") - height, 0.0, 1.0)
    fresh = smoothstep(depth, 0.0, 0.8) * (1.0 - smoothstep(depth, 1.5, 5.0))
    light *= 1.0 + random.uniform(-0.05, 0.22) * fresh
    light *= 1.0 - random.uniform(0.45, 0.8) * _cast_shadow(canvas, random, inside, depth)[here]
    if random.random() < 0.3:
        mix(mortar, tint(mortar, (0.62, 0.55, 0.46)), smoothstep(noise("broad"), 0.0, 1.5))
    mortar *= rgb(np.clip(light * canvas.exposure, 0.1, 1.7))
    return np.clip(mortar, 4.0, 252.0, out=mortar)


def _cast_shadow(canvas: Canvas, random: Random, inside: Field, depth: Field) -> Field:
    """The shadow that the edge towards the light throws into the hollow, 0 to 1."""
    reach = random.uniform(0.4, 1.3) * (float(depth.max()) + 1.0) ** 0.6
    lit = shifted(inside, (-reach * canvas.light[0], -reach * canvas.light[1]))
    return np.clip(1.0 - soften(lit, 0.6 + 0.12 * reach), 0.0, 1.0)


def paint_bars(canvas: Canvas, random: Random) -> Field:
    """A spall with bars in it; returns what the bars cover, for the rust that may run from them."""
    radius = min(max(canvas.px(random.uniform(5.0, 16.0)), 2.0), 20.0)
    angle = choose(random, (0.0, math.pi / 2.0), (0.4, 0.6)) + random.normal(0.0, 0.12)
    centre = (random.uniform(50.0, TILE - 50.0), random.uniform(50.0, TILE - 50.0))
    if random.random() < 0.45:
        long = random.uniform(70.0, 170.0)
        radii = (long, max(radius * random.uniform(2.0, 4.5), 14.0))
        spall = _spall_along(canvas, random, centre, radii, angle)
        bars = [Bar(centre, angle, radius)]
    else:
        size = random.uniform(60.0, 170.0)
        spall = paint_spall(canvas, random, centre, (size, size * random.uniform(0.55, 1.0)))
        bars = _mat(canvas, random, centre, angle, radius)
    found = np.zeros((TILE, TILE), np.float32)
    buried = spall.inside * smoothstep(spall.depth + 0.4 * cut(random, "cloud"), 0.3, 1.6)
    steel = _steel(random, radius, canvas.exposure)
    for bar in bars:
        found = np.maximum(found, _paint_bar(canvas, random, bar, buried, steel))
    canvas.widen("exposed_rebar", 2.0 * radius)
    return found


def _spall_along(canvas: Canvas, random: Random, centre: Vector, radii: Vector, angle: float) -> Spall:
    """A long narrow spall: the cover above one bar."""
    return _break_out(canvas, random, blob(random, centre, radii, angle, 1.0))


def _mat(canvas: Canvas, random: Random, centre: Vector, angle: float, radius: float) -> list[Bar]:
    """Bars side by side, and now and then the stirrups across them, which lie deeper and are thinner."""
    spacing = max(canvas.px(random.uniform(60.0, 180.0)), 5.0 * radius)
    count = int(random.integers(1, 5))
    across = (-math.sin(angle), math.cos(angle))
    bars = []
    if random.random() < 0.45:
        thin = max(0.65 * radius, 1.6)
        bars = [
            Bar((centre[0] + step * math.cos(angle), centre[1] + step * math.sin(angle)), angle + math.pi / 2.0, thin)
            for step in (random.uniform(-0.5, 0.5) * spacing + np.arange(-1, 2) * spacing * 1.3).tolist()
        ]
    for number in range(count):
        step = (number - count // 2) * spacing * random.uniform(0.9, 1.1)
        tilt = angle + random.normal(0.0, 0.03)
        bars.append(Bar((centre[0] + step * across[0], centre[1] + step * across[1]), tilt, radius))
    return bars


def _steel(random: Random, radius: float, exposure: float) -> Picture:
    """Rusted steel in an even light, flakes as large as a bar of this radius has them."""
    zoom = max(radius / 6.0, 1.0)
    tone = dye(1.0 + 0.1 * cut(random, "grain"), pick(random, BARS))
    flakes = smoothstep(cut(random, "cloud", zoom) + 0.5 * cut(random, "rough"), -0.4, 1.4)
    mix(tone, dye(np.ones_like(flakes), pick(random, FLAKES, 0.8, 1.15)), flakes)
    tone *= rgb((1.0 + 0.2 * cut(random, "rough", zoom)) * (exposure * random.uniform(0.8, 1.25)))
    return tone


def _paint_bar(canvas: Canvas, random: Random, bar: Bar, buried: Field, steel: Picture) -> Field:
    """One ribbed, rusted bar, its shadow on the broken face beside it; returns how much of each pixel it covers."""
    here = around(buried)
    x, y = grid()
    x, y = x[:, here[1]], y[here[0]]
    along = (x - bar.centre[0]) * math.cos(bar.angle) + (y - bar.centre[1]) * math.sin(bar.angle)
    across = (y - bar.centre[1]) * math.cos(bar.angle) - (x - bar.centre[0]) * math.sin(bar.angle)
    across = across * np.float32(1.0 / bar.radius) + random.uniform(0.0, 0.12) * cut(random, "cloud", 1.5)[here]
    period = bar.radius * random.uniform(1.1, 1.6)
    slant = float(random.choice([-1.0, 1.0])) * random.uniform(0.3, 0.8) * bar.radius
    ribs = np.sin((along + slant * across) * np.float32(2.0 * math.pi / period))
    rib_height = random.uniform(0.3, 1.0) if bar.radius > 2.5 else 0.0
    reach = np.abs(across) - 0.08 * rib_height * ribs
    edge = 0.7 / bar.radius
    covers = np.zeros_like(buried)
    covers[here] = (1.0 - smoothstep(reach, 1.0 - edge, 1.0 + edge)) * buried[here]
    drop = 0.9 * bar.radius
    shadow = shifted(covers, (-drop * canvas.light[0], -drop * canvas.light[1]))
    dark = np.clip(soften(shadow, 0.3 * bar.radius + 0.5)[here], 0.0, 1.0) * (buried[here] > 0.15)
    dark *= random.uniform(0.35, 0.75)
    canvas.lay_defect("spalling", dark, canvas.picture[here] * 0.25, hides=False, at=here)
    face = rgb(_light_on(canvas, bar, across, ribs * rib_height))
    face *= steel[here]
    np.clip(face, 4.0, 250.0, out=face)
    canvas.lay_defect("exposed_rebar", covers[here], face, spares="spalling", at=here)
    return covers


def _light_on(canvas: Canvas, bar: Bar, across: Field, ribs: Field) -> Field:
    """How brightly each place of a round, ribbed bar is lit; `across` runs from -1 to 1 over its width."""
    round_ = np.sqrt(np.clip(1.0 - across * across, 0.0, 1.0))
    facing = canvas.light[1] * math.cos(bar.angle) - canvas.light[0] * math.sin(bar.angle)
    return np.clip(0.45 + 0.5 * round_ + 0.4 * facing * across + 0.3 * ribs * round_, 0.1, 1.9)


def rust_round(canvas: Canvas, random: Random, bars: Field) -> Field:
    """Where the rust of these bars gets onto the concrete round them: a source for the rust painter."""
    spread = np.clip(soften(bars, random.uniform(2.0, 5.0)) * 1.4, 0.0, 1.0)
    lower = run_down(random, bars, random.uniform(4.0, 14.0))
    return np.clip(np.maximum(0.7 * spread, lower) - bars, 0.0, 1.0) * smoothstep(cut(random, "cloud"), -1.2, 0.4)
