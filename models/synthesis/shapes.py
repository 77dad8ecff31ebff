"""Geometry of what is painted: jagged lines, torn blobs, runs that follow gravity, and relief under one light."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from models.synthesis.fields import TILE, Field, Part, Random, cut

Vector: TypeAlias = tuple[float, float]
"""x, y in px."""

FINE = 4
"""Lines are drawn this many times finer than the tile, so that a hairline of a third of a pixel is drawn as that."""

LANES = 16
"""Float32 numbers that a processor works on at once, at most."""


@dataclass(frozen=True)
class Line:
    """A jagged line: `points` float[n, 2] as x, y in px and `widths` float[n] in px."""

    points: NDArray[np.float64]
    widths: NDArray[np.float64]


@cache
def grid() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """x and y of every pixel as one row float32[1, TILE] and one column float32[TILE, 1]."""
    pixels = np.arange(TILE, dtype=np.float32)
    return pixels[None, :], pixels[:, None]


@cache
def _rows() -> NDArray[np.float32]:
    """y of every pixel, float32[TILE, TILE]."""
    return np.repeat(grid()[1], TILE, axis=1)


def smoothstep(field: Field, low: float, high: float) -> Field:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.subtract(field, low)
    t *= 1.0 / (high - low)
    np.clip(t, 0.0, 1.0, out=t)
    bend = t * -2.0
    bend += 3.0
    t *= t
    t *= bend
    return t


def around(field: Field) -> Part:
    """The rows and columns where the field is not 0, and at least one more on every side.

    The columns are whole groups of `LANES`: a filter rounds its last, odd columns in another way than the rest.
    """
    x, y, width, height = cv2.boundingRect((field != 0.0).view(np.uint8))
    left, right = max(x - 1, 0), min(x + width + 1, TILE)
    return np.s_[max(y - 1, 0) : y + height + 1, left - left % LANES : right + -right % LANES]


def jagged(random: Random, start: Vector, end: Vector, roughness: float) -> NDArray[np.float64]:
    """A broken line of 129 points between two, by midpoint displacement of `roughness` times the segment."""
    points = np.array([start, end], dtype=np.float64)
    for level in range(7):
        step = np.diff(points, axis=0)
        middle = points[:-1] + 0.5 * step
        push = random.normal(0.0, roughness * 0.94**level, (len(step), 1))
        middle += push * np.stack([-step[:, 1], step[:, 0]], axis=1)
        joined = np.empty((2 * len(points) - 1, 2))
        joined[0::2], joined[1::2] = points, middle
        points = joined
    return points


def wobble(random: Random, count: int, knots: int, low: float, high: float) -> NDArray[np.float64]:
    """`count` values that wander smoothly between `low` and `high`."""
    return np.interp(np.linspace(0.0, 1.0, count), np.linspace(0.0, 1.0, knots), random.uniform(low, high, knots))


def coverage(lines: list[Line]) -> Field:
    """How much of each pixel the lines cover, float32[TILE, TILE] from 0 to 1."""
    fine = np.zeros((TILE * FINE, TILE * FINE), np.uint8)
    for line in lines:
        places = np.round(line.points * FINE).astype(np.int32)
        exact = line.widths * FINE
        widths = np.maximum(np.round(exact), 1.0).astype(int)
        ends = [*np.flatnonzero(np.diff(widths)) + 1, len(widths) - 1]
        begin = 0
        for end in ends:
            if end > begin:
                grey = 255.0 * min(1.0, float(exact[begin]))
                cv2.polylines(fine, [places[begin : end + 1]], False, grey, int(widths[begin]))
            begin = int(end)
    half = cv2.resize(fine, (2 * TILE, 2 * TILE), interpolation=cv2.INTER_AREA)  # twice a half is 7 times as fast
    small = cv2.resize(half, (TILE, TILE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32) * np.float32(1.0 / 255.0)


def blob(random: Random, centre: Vector, radii: Vector, angle: float, tear: float) -> Field:
    """A torn round patch: 1 inside, 0 outside, an edge of one or two px; `tear` is how ragged it is, 0 to 1."""
    corners = 60
    turn = np.linspace(0.0, 2.0 * np.pi, corners, endpoint=False)
    reach = np.ones(corners)
    for order in range(2, 7):
        reach += random.normal(0.0, 0.2 / order) * np.cos(order * turn + random.uniform(0.0, 6.3))
    teeth = np.interp(turn, np.sort(random.uniform(0.0, 6.3, 22)), random.normal(0.0, 0.1, 22), period=6.3)
    reach = np.clip(reach + tear * teeth, 0.4, 1.6)
    x, y = np.cos(turn) * reach * radii[0], np.sin(turn) * reach * radii[1]
    cos, sin = math.cos(angle), math.sin(angle)
    outline = np.stack([centre[0] + cos * x - sin * y, centre[1] + sin * x + cos * y], axis=1)
    filled = np.zeros((TILE, TILE), np.float32)
    cv2.fillPoly(filled, [np.round(outline * 16.0).astype(np.int32)], 1.0, shift=4)
    soft = max(1, round(min(0.1 * min(radii) * tear, 6.0)))
    ragged: Field = np.asarray(cv2.blur(filled, (2 * soft + 1, 2 * soft + 1)))
    ragged += (0.28 * tear) * cut(random, "rough", 1.4) * (4.0 * ragged * (1.0 - ragged))
    edge = 0.5 / (2.0 * soft)
    return smoothstep(ragged, 0.5 - edge, 0.5 + edge)


def run_down(random: Random, source: Field, length: float, comb: float = 0.5) -> Field:
    """What flows down from `source` (0 to 1) and fades within about `length` px; every column runs its own length.

    `comb` is how much the lengths of neighbouring columns differ: 0 is a veil, 1 is single threads.
    """
    spacing = 3 if comb > 0.6 else 7
    knots = random.normal(0.0, comb, TILE // spacing + 1)
    reach = length * np.exp(np.interp(np.arange(TILE), np.arange(len(knots)) * spacing, knots))
    fade = np.exp(-1.0 / np.maximum(reach, 1.0)).astype(np.float32)
    flow = source.astype(np.float32)
    rows, columns = around(source)
    running, fade = flow[rows.start :, columns], fade[columns]
    above = np.empty_like(running)
    step = 1
    while step < len(running):
        np.multiply(running[:-step], fade**step, out=above[step:])
        np.maximum(running[step:], above[step:], out=running[step:])
        step *= 2
    return sway(random, flow, 3.0)


def sway(random: Random, field: Field, reach: float) -> Field:
    """The field pushed sideways by a slow noise of about `reach` px: nothing in nature runs down a ruler."""
    push = cut(random, "cloud", 1.0)
    push *= np.float32(reach)
    push += grid()[0]
    return np.asarray(cv2.remap(field, push, _rows(), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def relief(height: Field, light: Vector) -> Field:
    """How much brighter a slope is for facing the light: height in px, `light` the direction towards it."""
    x, y = light
    kernel = np.array([[x + y, 2 * y, y - x], [2 * x, 0, -2 * x], [x - y, -2 * y, -x - y]], np.float32) / 8.0
    return np.asarray(cv2.filter2D(np.ascontiguousarray(height, np.float32), -1, kernel))


def shifted(field: Field, by: Vector) -> Field:
    """The field moved by x, y px; what comes in from outside repeats the border."""
    matrix = np.array([[1.0, 0.0, by[0]], [0.0, 1.0, by[1]]], np.float32)
    moved = cv2.warpAffine(field, matrix, (TILE, TILE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved)


def soften(field: Field, sigma: float) -> Field:
    """Gaussian blur; a wide one is done on a quarter of the size, where it costs a sixteenth."""
    if sigma < 5.0:
        return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma))
    small = cv2.resize(field, (TILE // 4, TILE // 4), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / 4.0)
    return np.asarray(cv2.resize(small, (TILE, TILE), interpolation=cv2.INTER_LINEAR))
