"""Algae and moss: green to black where water stays, below ledges, at the foot, in hollows and along joints."""

from __future__ import annotations

import numpy as np

from models.synthesis.canvas import Canvas
from models.synthesis.fields import TILE, Field, Random, choose, cut, dye, heap, mix, pick, rgb, tint
from models.synthesis.shapes import around, grid, relief, run_down, smoothstep, soften
from models.synthesis.stains import seam

# Factors on what lies beneath, for the thin film; colours of its own, where it is thick.
FILMS = (
    (0.52, 0.62, 0.30),
    (0.60, 0.68, 0.36),
    (0.42, 0.50, 0.32),
    (0.34, 0.38, 0.28),
    (0.74, 0.78, 0.42),
    (0.46, 0.54, 0.42),
)
THICK = ((46.0, 56.0, 26.0), (34.0, 40.0, 26.0), (62.0, 72.0, 34.0), (28.0, 31.0, 24.0), (52.0, 62.0, 44.0))
MOSSES = ((66.0, 80.0, 30.0), (88.0, 98.0, 40.0), (48.0, 60.0, 30.0))


def paint_algae(canvas: Canvas, random: Random, wet: Field) -> None:
    """A film that darkens the concrete to green or nearly black, sometimes with cushions of moss on it."""
    speckle = 0.16 * cut(random, "grain") + 0.22 * cut(random, "rough", random.uniform(1.0, 2.0))
    alpha = smoothstep(wet + speckle * random.uniform(0.5, 1.3), 0.0, random.uniform(0.5, 1.0))
    here = around(alpha)
    below = canvas.picture[here]
    thin, other = tint(below, pick(random, FILMS)), tint(below, pick(random, FILMS))
    film = mix(thin, other, smoothstep(cut(random, "cloud")[here], -0.8, 0.8))
    crust = dye(1.0 + 0.16 * cut(random, "rough", 1.2)[here], pick(random, THICK, canvas.exposure, canvas.exposure))
    thickness = random.uniform(0.2, 0.85) * smoothstep(
        wet[here] + 0.4 * cut(random, "cloud")[here] + 0.3 * cut(random, "rough")[here], 0.3, 1.2
    )
    target = np.maximum(mix(film, crust, thickness), 2.0)
    canvas.lay_defect("algae", alpha[here] * random.uniform(0.8, 0.97), target, at=here)
    if random.random() < 0.35:
        _moss(canvas, random, wet)


def where_water_stays(canvas: Canvas, random: Random) -> Field:
    """How wet each pixel is: about 1 in the middle of it, 0 and less where it is dry; a joint that leaks is painted."""
    _, y = grid()
    patch = cut(random, "broad")
    kind = choose(random, ("foot", "patch", "runs", "seam"), (0.25, 0.35, 0.25, 0.15))
    if kind == "foot":
        rise = (y - random.uniform(90.0, 210.0)) * np.float32(1.0 / random.uniform(30.0, 90.0))
        return np.clip(rise, -2.0, 0.9) + 0.25 * patch + 0.25 * cut(random, "streak")
    if kind == "patch":
        return 0.6 * patch + 0.3 * cut(random, "cloud") + random.uniform(0.1, 0.8)
    if kind == "seam":
        return 3.2 * soften(seam(canvas, random), random.uniform(4.0, 9.0)) + 0.25 * patch - 0.05
    above = np.zeros((TILE, TILE), np.float32)
    wet = np.interp(np.arange(TILE), np.linspace(0, TILE, 10), random.uniform(-0.2, 1.4, 10))
    above[:2] = np.clip(wet, 0.0, 1.0)
    run = run_down(random, above, random.uniform(60.0, 250.0), 0.6)
    return 1.3 * soften(run, 3.0) + 0.22 * cut(random, "streak") + 0.15 * patch - 0.1


def _moss(canvas: Canvas, random: Random, wet: Field) -> None:
    """Cushions where it is wettest, with light and shade of their own."""
    _, height = heap(random, max(canvas.px(random.uniform(8.0, 25.0)), 5.0))
    height = soften(height, 1.5) + 0.3 * cut(random, "rough")
    alpha = smoothstep(0.8 * wet + 0.4 * height + 0.35 * cut(random, "cloud"), 0.9, 1.25)
    shade = np.clip(
        0.8 + 0.25 * height + 0.5 * relief(2.0 * height, canvas.light) + 0.1 * cut(random, "grain"), 0.2, 1.6
    )
    green = pick(random, MOSSES, 0.8 * canvas.exposure, 1.1 * canvas.exposure)
    canvas.lay_defect("algae", alpha, tint(rgb(shade), green))
