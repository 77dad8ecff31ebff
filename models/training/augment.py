"""What a tile may look like to the network while it learns: turned, nearer, darker, softer, compressed harder."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Random = np.random.Generator


def augment(tile: NDArray[np.uint8], size: int, random: Random) -> NDArray[np.uint8]:
    """A `size` x `size` px crop of a uint8[H, W, 3] tile, changed only in ways that leave its labels true."""
    tile = _crop(tile, size, random)
    tile = np.rot90(tile, k=int(random.integers(4)))
    if random.random() < 0.5:
        tile = tile[:, ::-1]
    tile = _light(np.ascontiguousarray(tile), random)
    if random.random() < 0.15:
        tile = np.asarray(cv2.GaussianBlur(tile, (0, 0), float(random.uniform(0.4, 1.2))), dtype=np.uint8)
    if random.random() < 0.25:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(35, 95))]
        tile = np.asarray(cv2.imdecode(cv2.imencode(".jpg", tile, quality)[1], cv2.IMREAD_COLOR), dtype=np.uint8)
    return tile


def _crop(tile: NDArray[np.uint8], size: int, random: Random) -> NDArray[np.uint8]:
    """A square of 78 to 100 % of the tile, resized: scale varies, and a defect at the border is rarely cut off."""
    whole = min(tile.shape[:2])
    side = round(whole * random.uniform(0.78, 1.0))
    y, x = (int(random.integers(length - side + 1)) for length in tile.shape[:2])
    part = tile[y : y + side, x : x + side]
    return np.asarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _light(tile: NDArray[np.uint8], random: Random) -> NDArray[np.uint8]:
    """Exposure, contrast, gamma and white balance, as one table of 256 values per channel."""
    levels = np.arange(256, dtype=np.float32) / 255.0
    levels = levels ** random.uniform(0.75, 1.33)
    levels = (levels - 0.5) * random.uniform(0.75, 1.3) + 0.5 + random.uniform(-0.12, 0.12)
    balance = random.uniform(0.94, 1.06, size=3)
    table = np.clip(levels[:, None] * balance * 255.0, 0.0, 255.0).astype(np.uint8)
    return np.asarray(cv2.LUT(tile, table.reshape(1, 256, 3)), dtype=np.uint8)
