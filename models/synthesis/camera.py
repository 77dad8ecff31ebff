"""What light and a drone's camera do to the scene: sun from a side, shadow, blur, noise, white balance and JPEG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from models.synthesis.fields import TILE, Field, Picture, Random, Spectrum, cut, dye, rgb
from models.synthesis.shapes import Vector, grid, smoothstep


@dataclass(frozen=True)
class Camera:
    """How sharp this shot is: `defocus` is the sigma of the blur and `motion` the length of the smear, in px."""

    defocus: float
    motion: float

    @property
    def spread(self) -> float:
        """Width of what the camera makes of a point, in px (full width at half height)."""
        return math.hypot(2.36 * self.defocus, self.motion)


def draw_camera(random: Random) -> Camera:
    """Most shots are sharp, some a little soft, few were taken while turning."""
    defocus = random.uniform(0.3, 0.6) if random.random() < 0.65 else random.uniform(0.6, 1.4)
    return Camera(defocus, random.uniform(2.0, 5.0) if random.random() < 0.1 else 0.0)


def shoot(random: Random, scene: Picture, light: Vector, camera: Camera) -> NDArray[np.uint8]:
    """The scene as the drone would have stored it, uint8[TILE, TILE, 3]."""
    lit = rgb(_illumination(random, light))
    lit *= scene
    lit = _sensor(random, _sharpness(random, lit, camera))
    table = _development(random, float(lit.mean()))
    developed = cv2.LUT(np.clip(lit, 0.0, 255.0, out=lit).astype(np.uint8), table)
    return _jpeg(random, np.asarray(developed, dtype=np.uint8))


@cache
def _radius() -> NDArray[np.float32]:
    """Squared distance from the middle of the tile, 1 at the corners."""
    x, y = grid()
    half = TILE / 2.0
    return (((x - half) ** 2 + (y - half) ** 2) / (2.0 * half * half)).astype(np.float32)


def _illumination(random: Random, light: Vector) -> Field:
    """Uneven light as a factor of each pixel: nearer the light brighter, sometimes the edge of a shadow."""
    x, y = grid()
    side = (light[0] * (x - TILE / 2.0) + light[1] * (y - TILE / 2.0)) * np.float32(1.0 / TILE)
    factor = 1.0 + random.uniform(0.0, 0.3) * side + random.uniform(0.0, 0.04) * cut(random, "broad")
    if random.random() < 0.3:
        factor -= random.uniform(0.05, 0.25) * _radius()
    if random.random() < 0.12:
        factor *= _shadow_edge(random)
    return factor


def _shadow_edge(random: Random) -> Field:
    """Half of the tile in the shadow of something large; the edge is as soft as the thing is far away."""
    x, y = grid()
    angle = random.uniform(0.0, 2.0 * math.pi)
    distance = math.cos(angle) * (x - TILE / 2.0) + math.sin(angle) * (y - TILE / 2.0) - random.uniform(-80.0, 80.0)
    if random.random() < 0.5:
        distance += random.uniform(2.0, 20.0) * cut(random, "broad")
    soft = random.uniform(1.0, 14.0)
    return 1.0 - random.uniform(0.25, 0.6) * smoothstep(distance, -soft, soft)


def _sharpness(random: Random, picture: Picture, camera: Camera) -> Picture:
    """Defocus and smear, then what the camera's own sharpening makes of them."""
    side = 3 if camera.defocus < 0.5 else 5 if camera.defocus < 0.9 else 7
    soft: Picture = cv2.GaussianBlur(picture, (side, side), camera.defocus)
    if camera.motion:
        soft = cv2.filter2D(soft, -1, _smear(camera.motion, random.uniform(0.0, math.pi)))
    if random.random() < 0.4:
        strength = random.uniform(0.2, 0.9)
        softer: Picture = cv2.GaussianBlur(soft, (5, 5), 1.2)
        softer *= strength
        soft *= 1.0 + strength
        soft -= softer
    return soft


def _smear(length: float, angle: float) -> NDArray[np.float32]:
    """Kernel of a straight movement by `length` px."""
    kernel = np.zeros((9, 9), np.float32)
    reach = (length * math.cos(angle) / 2.0, length * math.sin(angle) / 2.0)
    ends = [tuple(round(16.0 * (4.0 + sign * value)) for value in reach) for sign in (-1.0, 1.0)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_8, shift=4)
    return kernel / kernel.sum()


def _sensor(random: Random, picture: Picture) -> Picture:
    """Grain of the sensor, finer or coarser by what its noise filter left, and a little of it in colour."""
    sigma = random.gamma(2.0, 1.2)
    spectrum: Spectrum = "white" if random.random() < 0.5 else "grain"
    picture += rgb(sigma * cut(random, spectrum))
    if random.random() < 0.3:
        cast = random.normal(0.0, 0.35 * sigma, 3)
        picture += dye(cut(random, "white", 2.0), (float(cast[0]), float(cast[1]), float(cast[2])))
    return picture


def _development(random: Random, mean: float) -> NDArray[np.uint8]:
    """Exposure, contrast, gamma and white balance as a table uint8[1, 256, 3]; the camera meters on the `mean`."""
    aim = min(max(0.5 * mean + 70.0 + random.normal(0.0, 24.0), 66.0), 200.0)
    levels = np.linspace(0.0, 1.0, 256) * (aim / max(mean, 8.0))
    levels = levels ** random.uniform(0.82, 1.2)
    middle = aim / 255.0
    levels = (levels - middle) * random.uniform(0.8, 1.25) + middle
    warmth = random.normal(0.0, 0.035)
    balance = np.array([1.0 + warmth, 1.0 + random.normal(0.0, 0.012), 1.0 - warmth])
    return np.clip(levels[:, None] * balance * 255.0, 0.0, 255.0).astype(np.uint8)[None]


def _jpeg(random: Random, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stored and read again, mostly with halved colour as cameras do."""
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if random.random() < 0.7 else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422
    options = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(60, 97)), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    stored = cv2.imencode(".jpg", picture, options)[1]
    return np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), dtype=np.uint8)
