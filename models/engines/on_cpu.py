"""What the engines for CPUs have in common: they speak for one release, keep the picture as it is, and copy tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from models.engines.protocol import HostImage, Image, Pixels, Scores, Tile, check_image, gather
from models.release import Release


class OnCpu:
    """The part of models/engines/protocol.py that does not depend on who does the arithmetic."""

    def __init__(self, release: Release) -> None:
        self._release = release

    @property
    def classes(self) -> tuple[str, ...]:
        """Those of the release."""
        return self._release.names

    @property
    def tile_size(self) -> int:
        """That of the release, in pixels."""
        return self._release.tile_size

    @property
    def release(self) -> str:
        """Id of the release."""
        return self._release.id

    def admit(self, image: Pixels) -> Image:
        """Keep the array; nothing is copied."""
        check_image(image, self.tile_size)
        return HostImage(image)

    def evict(self, image: Image) -> None:
        """The array is freed when the last reference to the image is gone."""

    def _room(self, tiles: int) -> Scores:
        """Where the scores of so many tiles go."""
        shape = self._release.architecture
        return Scores(
            np.empty((tiles, shape.classes), dtype=np.float32), np.empty((tiles, shape.width), dtype=np.float32)
        )

    def _batches(self, tiles: Sequence[Tile], size: int) -> Iterator[tuple[slice, Pixels]]:
        """Copies of up to `size` tiles at a time, uint8[n, side, side, 3], and which rows they are."""
        for start in range(0, len(tiles), size):
            part = tiles[start : start + size]
            pixels = np.empty((len(part), self.tile_size, self.tile_size, 3), dtype=np.uint8)
            gather(part, pixels)
            yield slice(start, start + len(part)), pixels
