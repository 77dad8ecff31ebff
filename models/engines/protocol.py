"""What every engine promises: a picture is admitted once, a tile is a corner in it, scores come back in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class EngineError(Exception):
    """The engine cannot do what was asked; the message names the engine's release and precision where they matter."""


class Image:
    """A picture an engine has admitted; sides in pixels. Two admissions are two images, even of the same pixels."""

    __slots__ = ("height", "width")

    def __init__(self, height: int, width: int) -> None:
        self.height = height
        self.width = width


class HostImage(Image):
    """One whose pixels, uint8 RGB [height, width, 3], stay where they were."""

    __slots__ = ("pixels",)

    def __init__(self, pixels: Pixels) -> None:
        super().__init__(pixels.shape[0], pixels.shape[1])
        self.pixels = pixels


class Tile(NamedTuple):
    """The square of an admitted image with its top left corner at (y, x), in pixels; its side is `Engine.tile_size`."""

    image: Image
    y: int
    x: int


class Scores(NamedTuple):
    """Of one forward pass, row i for tile i: `probabilities` float32[n, classes] and `embeddings` float32[n, dim].

    A class the release was not trained for has a column too; it means nothing.
    """

    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32]


class Pending(Protocol):
    """A call that an engine has begun with."""

    @property
    def done(self) -> bool:
        """Whether `wait` returns at once."""

    def wait(self) -> Scores:
        """Its scores; raises EngineError if there are none."""


class Done:
    """A call whose scores are there."""

    done = True

    def __init__(self, scores: Scores) -> None:
        self._scores = scores

    def wait(self) -> Scores:
        """The scores."""
        return self._scores


class Engine(Protocol):
    """One release, compiled for one piece of hardware at one precision.

    Rule: one thread at a time calls an engine (models/runner.py owns it). Trap: two threads inside `infer` would fill
    the same input tensors, and nothing would fail; the scores would be wrong.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the columns of `Scores.probabilities`."""

    @property
    def tile_size(self) -> int:
        """Side of a tile in pixels."""

    @property
    def release(self) -> str:
        """Id of the release whose weights these are."""

    @property
    def precision(self) -> str:
        """What the bulk of the arithmetic really runs in: `f32`, `bf16`, ..."""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Tiles per request that run without waste, ascending; calls of any length are taken and cut into these."""

    def admit(self, image: Pixels) -> Image:
        """Take a picture, uint8 RGB [H, W, 3], both sides at least a tile; raises EngineError otherwise.

        Rule: leave the array alone until `evict`. Trap: a CPU engine keeps the array itself, not a copy; a buffer that
        is reused too early changes the tiles that still wait.
        """

    def infer(self, tiles: Sequence[Tile]) -> Scores:
        """Scores of the tiles, in their order; they may come from several images and there may be none.

        Rule: a tile lies wholly inside its image, else EngineError. Trap: the last column of a photo is no exception;
        it overlaps its neighbour instead of hanging over the edge.
        """

    def start(self, tiles: Sequence[Tile]) -> Pending:
        """Begin what `infer` does; an engine that needs the caller's processor for it has done it when this returns.

        Rule: wait for calls in the order they were begun. Trap: a picture that is evicted, or an engine that is closed,
        before its last call was waited for takes the tiles away from under the card.
        """

    def evict(self, image: Image) -> None:
        """Forget a picture and free what it held; evicting twice is allowed.

        Rule: evict after the scores of its last tile have come back. Trap: an image nobody evicts is a leak of tens of
        megabytes that the CPU engine does not show and the GPU engine does.
        """

    def close(self) -> None:
        """Free everything; the engine must not be used afterwards. Closing twice is allowed."""


def check_image(image: Pixels, tile_size: int) -> None:
    """Raise EngineError unless the array can be cut into tiles: uint8[H, W, 3], both sides at least `tile_size`."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise EngineError(f"an image is uint8[H, W, 3], not {image.dtype}{list(image.shape)}")
    if min(image.shape[:2]) < tile_size:
        raise EngineError(f"an image of {image.shape[1]}x{image.shape[0]} px holds no tile of {tile_size} px")


def check_inside(image: Image, y: int, x: int, size: int) -> None:
    """Raise EngineError for a tile that is not wholly inside its image: a copy would take less, or what is beside."""
    if not (0 <= y <= image.height - size and 0 <= x <= image.width - size):
        raise EngineError(f"the tile at y={y} x={x} is not inside its image of {image.width}x{image.height} px")


def gather(tiles: Sequence[Tile], out: Pixels) -> None:
    """Copy each tile's pixels to its row of `out`, uint8[n, size, size, 3]: the only copy of a pixel on its way.

    Raises EngineError for a tile that does not lie wholly inside its image, or whose image another engine has admitted.
    """
    size = out.shape[1]
    for row, (image, y, x) in zip(out, tiles, strict=True):
        check_inside(image, y, x, size)
        if not isinstance(image, HostImage):
            raise EngineError("the tile's image was admitted by another engine")
        row[...] = image.pixels[y : y + size, x : x + size]
