"""What water carries: rust that runs down from steel, and lime that runs out of cracks and joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.synthesis.canvas import FAINT, Canvas
from models.synthesis.cracks import crack_lines, draw_crack
from models.synthesis.fields import TILE, Field, Random, choose, cut, dye, mix, pick, rgb, tint
from models.synthesis.shapes import around, blob, coverage, relief, run_down, smoothstep, soften, sway

# Factors on what lies beneath: rust is thin and the concrete shows through.
RUSTS = ((0.90, 0.66, 0.42), (0.84, 0.56, 0.30), (0.74, 0.50, 0.33), (0.95, 0.80, 0.56))
SOLID_RUSTS = ((186.0, 104.0, 44.0), (150.0, 84.0, 42.0), (204.0, 132.0, 62.0), (122.0, 66.0, 36.0))
DARK_RUSTS = ((0.52, 0.28, 0.14), (0.42, 0.25, 0.17), (0.62, 0.33, 0.12))
LIMES = ((226.0, 224.0, 218.0), (214.0, 210.0, 200.0), (220.0, 212.0, 194.0), (232.0, 234.0, 234.0))


@dataclass(frozen=True)
class Seep:
    """Where lime comes out (`source`, 0 to 1), and the crack it comes from: what that covers, its width in px or 0."""

    source: Field
    line: Field
    width: float = 0.0


def spots(random: Random, radius: float) -> Field:
    """A few ragged wet spots, float32[TILE, TILE] of 0 to 1."""
    found = np.zeros((TILE, TILE), np.float32)
    for _ in range(int(random.integers(1, 4))):
        centre = (random.uniform(15.0, TILE - 15.0), random.uniform(0.0, 0.65 * TILE))
        size = radius * random.uniform(0.5, 1.5)
        found = np.maximum(found, blob(random, centre, (size * random.uniform(0.7, 2.2), size), 0.0, 1.0))
    return found * smoothstep(cut(random, "rough", 1.3), -1.2, 0.5)


def seam(canvas: Canvas, random: Random, strength: float = 1.0) -> Field:
    """Paint a level joint and say where it leaks, float32[TILE, TILE] of 0 to 1."""
    rows = np.arange(TILE, dtype=np.float32)[:, None] - random.uniform(4.0, TILE / 2.0)
    slope = random.normal(0.0, 0.04) * (np.arange(TILE, dtype=np.float32)[None, :] - TILE / 2.0)
    away = rows + slope + 0.4 * cut(random, "cloud")
    groove = np.exp(-((away / random.uniform(0.8, 2.0)) ** 2))
    shade = 1.0 - strength * random.uniform(0.15, 0.55) * groove + 0.3 * relief(groove, canvas.light)
    canvas.picture *= rgb(shade)
    wet = np.interp(np.arange(TILE), np.linspace(0, TILE, 12), random.uniform(-0.4, 1.2, 12))
    return np.exp(-((away / 2.5) ** 2)) * np.clip(wet, 0.0, 1.0).astype(np.float32)


def paint_rust(canvas: Canvas, random: Random, source: Field) -> None:
    """Rust that bleeds out round its source and runs down from it; the concrete shows through."""
    halo = np.clip(soften(source, random.uniform(2.5, 9.0)) * random.uniform(1.0, 2.0), 0.0, 1.0)
    length = random.uniform(15.0, 90.0)
    veil = soften(run_down(random, np.maximum(halo, 0.8 * source), length, 0.35), random.uniform(2.0, 4.5))
    threads = run_down(random, source, 1.3 * length, 0.9) * smoothstep(cut(random, "streak"), -0.6, 1.4)
    alpha = np.maximum(np.maximum(0.85 * halo, veil * random.uniform(0.5, 0.9)), soften(threads, 0.8))
    alpha *= 0.9 + 0.18 * cut(random, "rough", 1.3) + 0.14 * cut(random, "streak")
    alpha = np.clip(alpha * random.uniform(0.95, 1.3), 0.0, 1.0)
    here = around(alpha >= FAINT)
    alpha, below = alpha[here], canvas.picture[here]
    light, dark = tint(below, pick(random, RUSTS)), tint(below, pick(random, DARK_RUSTS))
    thick = np.clip(1.1 * alpha * alpha + 0.12 * cut(random, "cloud")[here], 0.0, 1.0)
    target = mix(light, dark, thick)
    solid = dye(1.0 + 0.1 * cut(random, "rough")[here], pick(random, SOLID_RUSTS, canvas.exposure, canvas.exposure))
    solid -= target
    solid *= np.float32(random.uniform(0.2, 0.55))
    target += solid
    canvas.lay_defect("corrosion_stain", alpha, target, hides=False, at=here)


def rust_source(canvas: Canvas, random: Random) -> Field:
    """Where steel lies just below the skin: a nail, a bar's end, a leaking joint (painted), or a whole rusty patch."""
    kind = choose(random, ("spots", "seam", "patch", "wire"), (0.45, 0.2, 0.2, 0.15))
    if kind == "seam":
        return seam(canvas, random)
    if kind == "patch":
        return smoothstep(cut(random, "broad") + 0.35 * cut(random, "rough", 1.5), random.uniform(0.6, 1.1), 1.9)
    if kind == "wire":
        return np.clip(coverage(crack_lines(random, random.uniform(1.0, 3.0))), 0.0, 1.0) * smoothstep(
            cut(random, "broad"), 0.0, 1.0
        )
    return spots(random, max(canvas.px(random.uniform(4.0, 18.0)), 4.0))


def paint_lime(canvas: Canvas, random: Random, seep: Seep) -> None:
    """White to grey lime: a crust where it comes out, veils and icicle-like runs below it."""
    band = np.clip(
        soften(sway(random, seep.source, 4.0), random.uniform(1.5, 6.0)) * random.uniform(2.0, 4.0), 0.0, 1.0
    )
    lumps = 0.32 * cut(random, "rough", 1.6) + 0.34 * cut(random, "cloud")
    crust = smoothstep(band + lumps * (band > 0.02), random.uniform(0.2, 0.45), random.uniform(0.6, 0.95))
    length = random.uniform(12.0, 100.0)
    run = run_down(random, band, length, 0.8) * smoothstep(cut(random, "streak"), -1.2, 1.2)
    veil = soften(run_down(random, band, length, 0.4), 3.0) * random.uniform(0.1, 0.6)
    alpha = np.maximum(
        np.maximum(crust * random.uniform(0.75, 0.97), soften(run, 0.9) * random.uniform(0.5, 1.0)), veil
    )
    alpha = np.clip(alpha * (0.95 + 0.1 * cut(random, "rough")), 0.0, 0.97)
    here = around(alpha >= FAINT)
    thickness = crust[here] * (1.0 + 0.6 * cut(random, "rough", 1.2)[here])
    shade = 0.97 + random.uniform(0.06, 0.25) * relief(3.0 * thickness, canvas.light)
    shade += 0.025 * cut(random, "grain")[here]
    target = tint(rgb(np.clip(shade, 0.5, 1.1)), pick(random, LIMES, canvas.exposure, canvas.exposure))
    if random.random() < 0.3:
        mix(target, tint(target, (0.86, 0.72, 0.5)), 0.8 * smoothstep(cut(random, "broad", 1.3)[here], 0.2, 1.6))
    canvas.lay_defect("efflorescence", alpha[here], np.clip(target, 0.0, 252.0, out=target), at=here)
    if seep.width and random.random() < 0.4:
        draw_crack(canvas, random, seep.line, seep.width)


def lime_source(canvas: Canvas, random: Random) -> Seep:
    """A few spots, a leaking joint or a crack; joint and crack are painted, and very bright concrete is made damp."""
    if canvas.exposure > 1.05:  # lime shows where the concrete is damp or dark
        canvas.picture *= np.float32(random.uniform(0.6, 0.85))
    chance = random.random()
    if chance < 0.2:
        found = spots(random, max(canvas.px(random.uniform(5.0, 25.0)), 5.0))
        return Seep(found, found)
    if chance < 0.4:
        found = seam(canvas, random)
        return Seep(found, found)
    width = random.uniform(0.8, 2.5)
    line = coverage(crack_lines(random, width))
    seen = random.random() < 0.6
    if seen:
        draw_crack(canvas, random, line, width)
    wet = smoothstep(cut(random, "broad", 1.2), -1.3, 0.3)
    return Seep(np.clip(2.0 * line, 0.0, 1.0) * wet, line, width if seen else 0.0)
