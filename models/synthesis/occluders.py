"""What comes between the camera and the concrete: pipes, wires, leaves, shadows of cables and branches, an edge."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from models.synthesis.canvas import Canvas
from models.synthesis.fields import TILE, Field, Random, cut, dye, foliage, pick, rgb, zoomed
from models.synthesis.scenes import GREENS, painted
from models.synthesis.shapes import Line, coverage, grid, jagged, shifted, smoothstep, soften
from models.synthesis.surfaces import Surfaces

Occluder = Callable[[Canvas, Random, Surfaces], None]

PIPES = ((150.0, 152.0, 150.0), (206.0, 206.0, 200.0), (74.0, 76.0, 80.0), (120.0, 110.0, 100.0), (176.0, 120.0, 84.0))


def _shade(canvas: Canvas, shadow: Field, strength: float) -> None:
    """Darken without hiding: what lies in the shade is still there, and a little bluer."""
    canvas.picture *= 1.0 - dye(shadow, (strength, 0.97 * strength, 0.92 * strength))


def _sagging(random: Random) -> Line:
    """A cable across the whole tile."""
    t = np.linspace(-0.1, 1.1, 40)
    left, right = random.uniform(0.0, TILE, 2).tolist()
    sag = random.uniform(-40.0, 60.0)
    points = np.stack([t * TILE, left + (right - left) * t + sag * 4.0 * t * (1.0 - t)], axis=1)
    return Line(points if random.random() < 0.5 else points[:, ::-1], np.full(40, 1.0))


def cable_shadow(canvas: Canvas, random: Random, _: Surfaces) -> None:
    """A cable or a railing out of the picture casts a line."""
    line = _sagging(random)
    thrown = coverage([Line(line.points, line.widths * random.uniform(1.0, 9.0))])
    _shade(canvas, soften(thrown, random.uniform(0.5, 2.5)), random.uniform(0.25, 0.6))


def branch_shadow(canvas: Canvas, random: Random, _: Surfaces) -> None:
    """Twigs and leaves out of the picture cast their pattern."""
    lines = []
    heading = random.uniform(0.0, 2.0 * math.pi)
    root = np.array((128.0 - 170.0 * math.cos(heading), 128.0 - 170.0 * math.sin(heading))) + random.normal(0, 40, 2)
    tip = root + 300.0 * np.array((math.cos(heading), math.sin(heading)))
    trunk = jagged(random, (root[0], root[1]), (tip[0], tip[1]), 0.07)
    lines.append(Line(trunk, np.linspace(random.uniform(4.0, 10.0), 1.0, len(trunk))))
    for at in random.integers(20, 120, int(random.integers(4, 10))):
        way = heading + random.choice([-1.0, 1.0]) * random.uniform(0.4, 1.1)
        length = random.uniform(40.0, 110.0)
        x, y = trunk[at]
        twig = jagged(random, (x, y), (x + length * math.cos(way), y + length * math.sin(way)), 0.08)
        lines.append(Line(twig, np.linspace(random.uniform(1.5, 4.0), 0.5, len(twig))))
    thrown = coverage(lines)
    if random.random() < 0.6:
        thrown = np.maximum(thrown, smoothstep(cut(random, "cloud", 1.2) + 0.8 * cut(random, "broad"), 0.9, 1.1))
    _shade(canvas, soften(thrown, random.uniform(0.8, 3.0)), random.uniform(0.25, 0.6))


def wires(canvas: Canvas, random: Random, _: Surfaces) -> None:
    """One to three thin cables in front of the concrete, and their shadow."""
    dark = random.random() < 0.75
    for _number in range(int(random.integers(1, 4))):
        line = _sagging(random)
        wide = random.uniform(1.0, 5.0)
        covers = coverage([Line(line.points, line.widths * wide)])
        _shade(canvas, soften(shifted(covers, (-6.0 * canvas.light[0], -6.0 * canvas.light[1])), 1.2), 0.4)
        tone = random.uniform(14.0, 70.0) if dark else random.uniform(150.0, 220.0)
        canvas.lay(covers, (tone, tone, tone))


def pipe(canvas: Canvas, random: Random, _: Surfaces) -> None:
    """A drain or a conduit, straight and round, with clamps."""
    x, y = grid()
    upright = random.random() < 0.7
    across, along = (x, y) if upright else (y, x)
    radius = float(np.clip(canvas.px(random.uniform(12.0, 60.0)), 5.0, 45.0))
    tilt = random.normal(0.0, 0.03)
    u = (across - random.uniform(30.0, TILE - 30.0) + tilt * (along - 128.0)) * np.float32(1.0 / radius)
    covers = 1.0 - smoothstep(np.abs(u), 1.0 - 0.6 / radius, 1.0 + 0.6 / radius)
    drop = radius * random.uniform(0.3, 0.9)
    _shade(canvas, soften(shifted(covers, (-drop * canvas.light[0], -drop * canvas.light[1])), 2.0), 0.5)
    light = 0.45 + 0.5 * np.sqrt(np.clip(1.0 - u * u, 0.0, 1.0)) + 0.35 * u * canvas.light[0 if upright else 1]
    clamp = np.exp(-(((along - random.uniform(0.0, TILE)) / max(0.25 * radius, 2.0)) ** 4))
    light = light * (1.0 - 0.3 * clamp) * (1.0 + 0.04 * cut(random, "streak"))
    face = dye(np.clip(light, 0.1, 1.5), pick(random, PIPES, 0.9 * canvas.exposure, 1.1 * canvas.exposure))
    canvas.lay(covers, np.clip(face, 4.0, 250.0))


def twigs_and_leaves(canvas: Canvas, random: Random, _: Surfaces) -> None:
    """A plant reaches into the picture from a side."""
    x, y = grid()
    way = random.uniform(0.0, 2.0 * math.pi)
    side = ((x - 128.0) * math.cos(way) + (y - 128.0) * math.sin(way)) * np.float32(1.0 / 128.0)
    zoom = random.uniform(0.5, 2.0)
    picture = zoomed(random, foliage(), zoom).astype(np.float32)
    covers = smoothstep(side + 0.45 * cut(random, "cloud", zoom) - random.uniform(0.2, 0.8), 0.0, 0.04)
    _shade(canvas, soften(shifted(covers, (-5.0 * canvas.light[0], -5.0 * canvas.light[1])), 2.5), 0.45)
    canvas.lay(covers, picture * np.float32(random.uniform(0.9, 1.5)))


def litter(canvas: Canvas, random: Random, _: Surfaces) -> None:
    """Fallen leaves, twigs and grit on a deck."""
    lines = []
    for _number in range(int(random.integers(1, 9))):
        here = random.uniform(0.0, TILE, 2)
        there = here + random.normal(0.0, 12.0, 2)
        points = jagged(random, (here[0], here[1]), (there[0], there[1]), 0.05)
        leaf = np.sin(np.linspace(0.1, math.pi - 0.1, len(points))) * random.uniform(1.0, 8.0)
        lines.append(Line(points, leaf))
    covers = coverage(lines)
    _shade(canvas, soften(shifted(covers, (-2.0 * canvas.light[0], -2.0 * canvas.light[1])), 1.0), 0.4)
    tone = pick(random, ((120.0, 86.0, 48.0), (86.0, 60.0, 36.0), (140.0, 120.0, 60.0), (88.0, 92.0, 44.0)), 0.6, 1.2)
    canvas.lay(covers, dye(1.0 + 0.15 * cut(random, "rough"), tone))


def edge(canvas: Canvas, random: Random, surfaces: Surfaces) -> None:
    """The concrete ends: behind its arris is something else, or a darker face."""
    x, y = grid()
    way = random.uniform(0.0, 2.0 * math.pi) if random.random() < 0.4 else random.choice([0.0, 1.57, 3.14, 4.71])
    way += random.normal(0.0, 0.08)
    side = (x - 128.0) * math.cos(way) + (y - 128.0) * math.sin(way) + 0.5 * cut(random, "cloud")
    side -= random.uniform(10.0, 105.0)
    if random.random() < 0.6:
        _, behind = surfaces.scene(random, canvas.mm_per_px, canvas.light)
    else:
        behind = canvas.picture * np.float32(random.choice([0.35, 0.5, 0.65, 1.25]))
    arris = np.exp(-((side / random.uniform(1.0, 4.0)) ** 2)) * random.uniform(-0.5, 0.3)
    canvas.picture *= rgb(1.0 + arris)
    canvas.lay(smoothstep(side, -0.8, 0.8), np.clip(behind, 2.0, 252.0))


def verge(canvas: Canvas, random: Random, _: Surfaces) -> None:
    """Grass or bushes along the concrete, over its edge and with bare patches: green, and no algae."""
    x, y = grid()
    way = random.uniform(0.0, 2.0 * math.pi)
    side = (x - 128.0) * math.cos(way) + (y - 128.0) * math.sin(way)
    side += random.uniform(4.0, 30.0) * cut(random, "broad") + random.uniform(1.0, 8.0) * cut(random, "rough")
    covers = smoothstep(side - random.uniform(-70.0, 90.0), -random.uniform(1.0, 14.0), 1.0)
    _shade(canvas, soften(shifted(covers, (-3.0 * canvas.light[0], -3.0 * canvas.light[1])), 2.0), 0.4)
    canvas.lay(covers, painted(str(random.choice(GREENS)), random, canvas.mm_per_px, canvas.light))


OCCLUDERS: dict[str, Occluder] = {
    "cable_shadow": cable_shadow,
    "branch_shadow": branch_shadow,
    "wires": wires,
    "pipe": pipe,
    "leaves_in_front": twigs_and_leaves,
    "litter": litter,
    "edge": edge,
    "verge": verge,
}
