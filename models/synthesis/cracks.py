"""Cracks: broken lines of a physical width that branch, dark inside, with the light on the lip that faces it."""

from __future__ import annotations

import math

import numpy as np

from models.synthesis.canvas import Canvas
from models.synthesis.fields import TILE, Field, Random, choose, crackle, cut, rgb, zoomed
from models.synthesis.shapes import Line, Vector, coverage, jagged, shifted, smoothstep, soften, wobble

NARROWEST_MM, WIDEST_MM = 0.2, 10.0


def paint_crack(canvas: Canvas, random: Random) -> Field:
    """Paint one crack or a net of them; returns what it covers, for what may run out of it."""
    width = _width_px(canvas, random)
    covered = _net(random, width) if random.random() < 0.1 else coverage(crack_lines(random, width))
    draw_crack(canvas, random, covered, width)
    return covered


def _width_px(canvas: Canvas, random: Random) -> float:
    """A width the camera could see, most often a hairline, held to what cracks measure in millimetres."""
    wanted = math.exp(random.uniform(math.log(0.75), math.log(7.0))) * canvas.mm_per_px
    return canvas.px(min(max(wanted, NARROWEST_MM), WIDEST_MM))


def crack_lines(random: Random, width: float) -> list[Line]:
    """The crack and its branches; it crosses the tile, or ends in it."""
    angle = random.uniform(0.0, math.pi)
    middle = random.uniform(0.2, 0.8, 2) * TILE
    reach = 200.0 if random.random() < 0.7 else random.uniform(45.0, 120.0)
    start = (middle[0] - reach * math.cos(angle), middle[1] - reach * math.sin(angle))
    after = 200.0 if random.random() < 0.8 else reach
    end = (middle[0] + after * math.cos(angle), middle[1] + after * math.sin(angle))
    trunk = _line(random, start, end, width, (reach < 200.0, after < 200.0))
    lines = [trunk]
    for _ in range(choose(random, (0, 1, 2, 3), (0.45, 0.3, 0.15, 0.1))):
        at = int(random.integers(30, 100))
        side = angle + float(random.choice([-1.0, 1.0])) * random.uniform(0.3, 1.2)
        length = random.uniform(40.0, 160.0)
        x, y = trunk.points[at]
        tip = (x + length * math.cos(side), y + length * math.sin(side))
        lines.append(_line(random, (x, y), tip, width * random.uniform(0.4, 0.8), (False, True)))
    return lines


def _line(random: Random, start: Vector, end: Vector, width: float, tapers: tuple[bool, bool]) -> Line:
    """One broken line; `tapers` says whether its start and its end run out to nothing."""
    points = jagged(random, start, end, random.uniform(0.08, 0.22))
    widths = width * wobble(random, len(points), 40, 0.35, 1.5 if width > 3.0 else 1.3)
    along = np.linspace(0.0, 1.0, len(points))
    if tapers[0]:
        widths = widths * np.minimum(1.0, 0.12 + 2.5 * along)
    if tapers[1]:
        widths = widths * np.minimum(1.0, 0.12 + 2.5 * (1.0 - along))
    return Line(points, widths)


def _net(random: Random, width: float) -> Field:
    """Map cracking: a net of fine lines, in patches."""
    zoom = random.uniform(0.5, 1.3)
    distance = zoomed(random, crackle(), zoom) * np.float32(zoom)
    fine = min(width, 2.5) * (0.9 + 0.25 * cut(random, "cloud"))
    broad = cut(random, "broad")
    patch = smoothstep(broad - broad.mean(), -0.5, 0.3)
    return np.clip(0.5 * fine - distance + 0.5, 0.0, 1.0) * patch


def draw_crack(canvas: Canvas, random: Random, covered: Field, width: float) -> None:
    """Darken what the crack covers by its depth; chip its edges if it is wide, and light the lip."""
    if width > 2.5:
        covered = _chipped(random, covered, width)
    depth = random.uniform(0.45, 0.75) if width < 2.0 else random.uniform(0.65, 0.92)
    depth_here = np.clip(depth * (1.0 + 0.16 * cut(random, "cloud") + 0.1 * cut(random, "rough")), 0.0, 0.96)
    lip = np.clip(shifted(covered, (-1.2 * canvas.light[0], -1.2 * canvas.light[1])) - covered, 0.0, 1.0)
    bright = random.uniform(0.0, 0.28)
    target = canvas.picture * rgb(np.where(covered > 0.5 * lip, 1.0 - depth_here, 1.0 + bright))
    canvas.lay_defect("crack", np.maximum(covered, lip if bright > 0.1 else 0.0), target, hides=False)
    canvas.widen("crack", width)


def _chipped(random: Random, covered: Field, width: float) -> Field:
    """The edges broken by noise, as wide cracks have them."""
    soft = soften(covered, 0.25 * width)
    rough = soft + 0.42 * cut(random, "rough", max(1.0, width / 4.0)) * (4.0 * soft * (1.0 - soft))
    return smoothstep(rough, 0.3, 0.3 + 1.2 / width)
