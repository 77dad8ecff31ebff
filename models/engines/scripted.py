"""An engine for tests that computes its scores from pixel means, and fails, dies or lies when a tile tells it to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.engines.protocol import (
    Done,
    EngineError,
    HostImage,
    Image,
    Pending,
    Pixels,
    Scores,
    Tile,
    check_image,
    gather,
)

Colour = tuple[int, int, int]

EXIT_CODE = 70


@dataclass(frozen=True)
class Script:
    """What the engine is and what upsets it; a marker is the colour of a tile's top left pixel."""

    classes: tuple[str, ...] = ("crack", "spalling", "exposed_rebar", "corrosion_stain", "efflorescence", "algae")
    tile_size: int = 256
    release: str = "scripted.1"
    fail_on: Colour | None = None  # infer raises EngineError
    exit_on: Colour | None = None  # the process ends at once, as after a segmentation fault
    nan_on: Colour | None = None  # the tile's scores are not numbers


class ScriptedEngine:
    """Scores anybody can work out in their head.

    The probability of class c is the mean of channel c modulo 3, divided by 255, and halved for each full round of
    three channels: a pure red tile scores (1, 0, 0, 0.5, 0, 0). The embedding is the three means and three deviations.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.admitted: list[Image] = []
        self.calls: list[int] = []  # tiles of each call of infer
        self.closed = False

    @property
    def classes(self) -> tuple[str, ...]:
        """As scripted."""
        return self.script.classes

    @property
    def tile_size(self) -> int:
        """As scripted."""
        return self.script.tile_size

    @property
    def release(self) -> str:
        """As scripted."""
        return self.script.release

    @property
    def precision(self) -> str:
        """Always `f32`."""
        return "f32"

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Any length is as good as any other; 16 is what a real engine would say."""
        return (16,)

    def admit(self, image: Pixels) -> Image:
        """Keep the array."""
        self._check_open()
        check_image(image, self.tile_size)
        self.admitted.append(HostImage(image))
        return self.admitted[-1]

    def infer(self, tiles: Sequence[Tile]) -> Scores:
        """Scores as the class describes them, unless a marker says otherwise."""
        self._check_open()
        pixels = np.empty((len(tiles), self.tile_size, self.tile_size, 3), dtype=np.uint8)
        gather(tiles, pixels)
        self.calls.append(len(tiles))
        corners = pixels[:, 0, 0]
        if self._marked(corners, self.script.exit_on).any():
            os._exit(EXIT_CODE)
        if self._marked(corners, self.script.fail_on).any():
            raise EngineError("the script says that this batch fails")
        means = pixels.mean(axis=(1, 2), dtype=np.float64) / 255.0
        spread = pixels.std(axis=(1, 2), dtype=np.float64) / 255.0
        columns = np.arange(len(self.classes))
        probabilities = (means[:, columns % 3] / 2.0 ** (columns // 3)).astype(np.float32)
        probabilities[self._marked(corners, self.script.nan_on)] = np.nan
        return Scores(probabilities, np.concatenate([means, spread], axis=1).astype(np.float32))

    def start(self, tiles: Sequence[Tile]) -> Pending:
        """Done at once."""
        return Done(self.infer(tiles))

    def evict(self, image: Image) -> None:
        """Forget the image; `admitted` lists those that nobody has evicted."""
        self.admitted = [other for other in self.admitted if other is not image]

    def close(self) -> None:
        """From now on every call raises EngineError."""
        self.closed = True

    def _check_open(self) -> None:
        if self.closed:
            raise EngineError("the engine is closed")

    @staticmethod
    def _marked(corners: Pixels, marker: Colour | None) -> NDArray[np.bool_]:
        if marker is None:
            return np.zeros(len(corners), dtype=np.bool_)
        return np.asarray((corners == np.asarray(marker, dtype=np.uint8)).all(axis=1), dtype=np.bool_)
