"""What every engine of a release says in the same words: whose scores these are, and where they go."""

from __future__ import annotations

import numpy as np

from models.engines.protocol import Scores
from models.release import Release


class OfRelease:
    """The part of models/engines/protocol.py that a release alone decides."""

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

    def _room(self, tiles: int) -> Scores:
        """Where the scores of so many tiles go."""
        shape = self._release.architecture
        return Scores(
            np.empty((tiles, shape.classes), dtype=np.float32), np.empty((tiles, shape.width), dtype=np.float32)
        )
