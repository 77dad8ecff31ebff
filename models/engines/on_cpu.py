"""What the engines for CPUs have in common: they keep the picture as it is, and copy tiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from models.engines.of_release import OfRelease
from models.engines.protocol import Done, HostImage, Image, Pending, Pixels, Scores, Tile, check_image, gather


class OnCpu(OfRelease, ABC):
    """The part of models/engines/protocol.py that does not depend on who does the arithmetic."""

    @abstractmethod
    def infer(self, tiles: Sequence[Tile]) -> Scores:
        """See Engine.infer."""

    def start(self, tiles: Sequence[Tile]) -> Pending:
        """It takes the same cores as whoever asks: done at once."""
        return Done(self.infer(tiles))

    def admit(self, image: Pixels) -> Image:
        """Keep the array; nothing is copied."""
        check_image(image, self.tile_size)
        return HostImage(image)

    def evict(self, image: Image) -> None:
        """The array is freed when the last reference to the image is gone."""

    def _batches(self, tiles: Sequence[Tile], size: int) -> Iterator[tuple[slice, Pixels]]:
        """Copies of up to `size` tiles at a time, uint8[n, side, side, 3], and which rows they are."""
        for start in range(0, len(tiles), size):
            part = tiles[start : start + size]
            pixels = np.empty((len(part), self.tile_size, self.tile_size, 3), dtype=np.uint8)
            gather(part, pixels)
            yield slice(start, start + len(part)), pixels
