"""What is on sound concrete and is no defect: joints, tie holes, form-liner ribs, chalk, paint, patches, droppings."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from models.synthesis.canvas import Canvas
from models.synthesis.fields import TILE, Field, Random, cut, dye, grey, pick, rgb
from models.synthesis.shapes import Line, Vector, blob, coverage, grid, jagged, relief, run_down, smoothstep, soften

Blemish = Callable[[Canvas, Random], None]

CHALKS = ((236.0, 236.0, 230.0), (228.0, 210.0, 90.0), (206.0, 80.0, 60.0), (90.0, 130.0, 200.0), (230.0, 120.0, 40.0))
PAINTS = (
    (200.0, 40.0, 40.0),
    (40.0, 80.0, 170.0),
    (30.0, 30.0, 34.0),
    (235.0, 235.0, 235.0),
    (40.0, 130.0, 70.0),
    (236.0, 180.0, 40.0),
    (150.0, 60.0, 150.0),
    (140.0, 80.0, 50.0),
    (150.0, 152.0, 150.0),
)


def _distance_to_straight(random: Random) -> Field:
    """Distance in px to a straight line, mostly level or upright; its sign tells the sides apart."""
    x, y = grid()
    angle = random.choice([0.0, math.pi / 2.0]) + random.normal(0.0, 0.06)
    return (x - random.uniform(0.1, 0.9) * TILE) * math.cos(angle) + (y - random.uniform(0.1, 0.9) * TILE) * math.sin(
        angle
    )


def formwork_joint(canvas: Canvas, random: Random) -> None:
    """The line between two panels: a ridge or a groove, and a step of grey."""
    side = _distance_to_straight(random) + random.uniform(0.0, 0.6) * cut(random, "cloud")
    width = max(canvas.px(random.uniform(1.0, 6.0)), 0.9)
    groove = np.exp(-((side / width) ** 2))
    shade = 1.0 - random.uniform(0.15, 0.6) * groove + random.uniform(0.1, 0.5) * relief(groove, canvas.light)
    shade += random.normal(0.0, 0.05) * (side > 0.0)
    canvas.picture *= rgb(shade)


def expansion_joint(canvas: Canvas, random: Random) -> None:
    """A wide straight gap, filled with sealant or dirt."""
    side = np.abs(_distance_to_straight(random) + random.uniform(0.2, 0.9) * cut(random, "cloud", 0.7))
    half = float(np.clip(canvas.px(random.uniform(5.0, 15.0)), 1.6, 20.0))
    alpha = 1.0 - smoothstep(side, half - 0.7, half + 0.7)
    fill = random.uniform(18.0, 120.0) * (1.0 + 0.1 * cut(random, "grain")) * (0.7 + 0.3 * side / half)
    canvas.lay(alpha, rgb(fill))


def tie_holes(canvas: Canvas, random: Random) -> None:
    """Round holes of the formwork ties, open or plugged with mortar, in a row."""
    radius = float(np.clip(canvas.px(random.uniform(9.0, 17.0)), 2.2, 24.0))
    x, y = grid()
    start = random.uniform(20.0, TILE - 20.0, 2)
    plugged = random.random() < 0.4
    for number in range(int(random.integers(1, 3))):
        apart = number * max(canvas.px(600.0), 8.0 * radius)
        distance = np.sqrt((x - float(start[0]) - apart) ** 2 + ((y - float(start[1])) * random.uniform(0.9, 1.1)) ** 2)
        distance += 0.03 * radius * cut(random, "cloud")
        disc = 1.0 - smoothstep(distance, radius - 0.7, radius + 0.7)
        hollow = np.clip(1.0 - distance / radius, 0.0, 1.0) * radius
        if plugged:
            plug = canvas.picture.mean() * random.uniform(0.7, 1.25) * (1.0 + 0.05 * cut(random, "grain"))
            shade = plug + 20.0 * relief(disc * 1.5, canvas.light)
        else:
            shade = random.uniform(30.0, 90.0) * np.clip(1.0 + 0.7 * relief(-hollow, canvas.light), 0.3, 2.0)
        canvas.lay(disc, rgb(shade))


def form_liner(canvas: Canvas, random: Random) -> None:
    """Ribs cast on purpose, over the whole tile."""
    x, y = grid()
    period = max(canvas.px(random.uniform(30.0, 120.0)), 12.0)
    along = (x if random.random() < 0.75 else y) + 0.8 * cut(random, "cloud")
    wave = np.sin((along + random.uniform(0.0, period)) * np.float32(2.0 * math.pi / period))
    height = smoothstep(wave, -random.uniform(0.2, 0.9), random.uniform(0.2, 0.9)) * min(period / 5.0, 6.0)
    shade = 1.0 + random.uniform(0.15, 0.5) * relief(height, canvas.light) - 0.06 * (height < 0.5)
    canvas.picture *= rgb(np.clip(shade, 0.3, 1.5))


def chalk(canvas: Canvas, random: Random) -> None:
    """What inspectors write: numbers, arrows, a line along what they saw."""
    drawn = np.zeros((TILE, TILE), np.uint8)
    thick = int(np.clip(canvas.px(random.uniform(4.0, 9.0)), 1.0, 7.0))
    if random.random() < 0.6:
        words = str(random.choice(["C12", "0.3", "B4", "17", "W2", "0.15", "A", "N3", "5/8", "OK", "S-21"]))
        place = (int(random.integers(0, 150)), int(random.integers(60, 250)))
        cv2.putText(drawn, words, place, cv2.FONT_HERSHEY_SIMPLEX, random.uniform(0.8, 3.0), 255, thick, cv2.LINE_AA)
    else:
        ends = random.uniform(0.0, TILE, (2, 2))
        points = jagged(random, (ends[0, 0], ends[0, 1]), (ends[1, 0], ends[1, 1]), 0.05)
        cv2.polylines(drawn, [np.round(points).astype(np.int32)], False, 255, thick, cv2.LINE_AA)
    worn = smoothstep(cut(random, "grain") + 0.6 * cut(random, "rough"), -1.2, 0.6) * random.uniform(0.45, 0.95)
    canvas.lay(
        drawn.astype(np.float32) * np.float32(1.0 / 255.0) * worn,
        pick(random, CHALKS, 0.8 * canvas.exposure, canvas.exposure),
    )


def graffiti(canvas: Canvas, random: Random) -> None:
    """Sprayed strokes with soft edges that drip."""
    strokes = []
    here = random.uniform(0.1, 0.9, 2) * TILE
    for _ in range(int(random.integers(2, 6))):
        there = np.clip(here + random.normal(0.0, 90.0, 2), -20.0, TILE + 20.0)
        points = jagged(random, (here[0], here[1]), (there[0], there[1]), 0.04)
        strokes.append(Line(points, np.full(len(points), random.uniform(5.0, 22.0))))
        here = there
    sprayed = soften(coverage(strokes), random.uniform(0.7, 2.5))
    if random.random() < 0.4:
        sprayed = np.maximum(sprayed, run_down(random, sprayed * (cut(random, "grain") > 1.9), 25.0))
    covers = sprayed * smoothstep(cut(random, "grain"), -3.0, -1.0) * random.uniform(0.75, 1.0)
    canvas.lay(covers, dye(0.94 + 0.06 * cut(random, "cloud"), pick(random, PAINTS, 0.8, 1.05)))


def painted_area(canvas: Canvas, random: Random) -> None:
    """A coat of paint with a straight or a worn edge."""
    side = _distance_to_straight(random)
    if random.random() < 0.5:
        edge = smoothstep(side, -1.0, 1.0)
    else:
        edge = smoothstep(0.02 * side + cut(random, "cloud") + 0.4 * cut(random, "rough"), -0.2, 0.1)
    red, green, blue = pick(random, PAINTS, 0.8, 1.05)
    mean, faded = float(canvas.picture.mean()), random.uniform(0.4, 1.0)
    tone = (mean + (red - mean) * faded, mean + (green - mean) * faded, mean + (blue - mean) * faded)
    texture = 0.5 + grey(canvas.picture) * np.float32(0.5 / max(mean, 1.0))
    canvas.lay(edge * random.uniform(0.6, 1.0), np.clip(dye(texture, tone), 0.0, 252.0))


def patch(canvas: Canvas, random: Random) -> None:
    """A repair: a trowelled rectangle of another grey."""
    x, y = grid()
    left, top = random.uniform(-80.0, 160.0, 2).tolist()
    wide, high = random.uniform(70.0, 220.0, 2).tolist()
    wave = random.uniform(0.5, 3.0) * cut(random, "cloud")
    edge = np.minimum(np.minimum(x - left, left + wide - x), np.minimum(y - top, top + high - y)) + wave
    alpha = smoothstep(edge, -0.8, 0.8) * random.uniform(0.6, 1.0)
    tone = (
        float(canvas.picture.mean()) * random.uniform(0.65, 1.3)
        + 4.0 * cut(random, "broad")
        + 2.0 * cut(random, "grain")
    )
    canvas.lay(alpha, dye(np.clip(tone, 10.0, 245.0), pick(random, ((1.0, 1.0, 0.97), (1.02, 1.0, 0.94)))))


def droppings(canvas: Canvas, random: Random) -> None:
    """Splashes of birds, or of cement and paint."""
    splash = np.zeros((TILE, TILE), np.float32)
    middle = random.uniform(40.0, TILE - 40.0, 2)
    for _ in range(int(random.integers(1, 7))):
        place = middle + random.normal(0.0, 18.0, 2)
        size = random.uniform(1.5, 8.0)
        splash = np.maximum(splash, blob(random, (place[0], place[1]), (size, size), 0.0, 0.8))
    if random.random() < 0.5:
        splash = np.maximum(splash, run_down(random, splash, 8.0))
    clean = 1.0 - 0.5 * smoothstep(cut(random, "cloud"), 0.6, 1.4)
    canvas.lay(splash * 0.9, dye(clean * canvas.exposure, (222.0, 222.0, 214.0)))


def oil(canvas: Canvas, random: Random) -> None:
    """Spots of oil or of rubber: dark, of no colour."""
    size = random.uniform(8.0, 45.0)
    middle = random.uniform(30.0, TILE - 30.0, 2)
    spot = soften(blob(random, (middle[0], middle[1]), (size, size * random.uniform(0.5, 1.0)), 0.0, 0.6), 3.0)
    canvas.lay(spot * random.uniform(0.3, 0.7), canvas.picture * np.float32(0.35), hides=False)


def scratches(canvas: Canvas, random: Random) -> None:
    """Bright scrapes and tyre marks, long and straight."""
    lines = []
    angle = random.uniform(0.0, math.pi)
    for _ in range(int(random.integers(1, 7))):
        middle = random.uniform(0.0, TILE, 2)
        reach: Vector = (120.0 * math.cos(angle), 120.0 * math.sin(angle))
        ends = ((middle[0] - reach[0], middle[1] - reach[1]), (middle[0] + reach[0], middle[1] + reach[1]))
        points = jagged(random, ends[0], ends[1], 0.008)
        lines.append(Line(points, np.full(len(points), random.uniform(0.6, 2.2))))
    tone = canvas.picture * np.float32(random.choice([0.72, 1.18, 1.28]))
    canvas.lay(coverage(lines) * smoothstep(cut(random, "cloud"), -0.6, 0.8), np.clip(tone, 0.0, 250.0), hides=False)


BLEMISHES: dict[str, Blemish] = {
    "formwork_joint": formwork_joint,
    "expansion_joint": expansion_joint,
    "tie_holes": tie_holes,
    "form_liner": form_liner,
    "chalk": chalk,
    "graffiti": graffiti,
    "painted_area": painted_area,
    "patch": patch,
    "droppings": droppings,
    "oil": oil,
    "scratches": scratches,
}
