"""Cuts tiles out of photos on the card: the table that says from where, and the kernel that copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.engines.protocol import EngineError, Image, check_inside

ENTRY = np.dtype([("source", np.uint64), ("pitch", np.uint64)])
"""A row of the table: address of a tile's first byte, and bytes from one row of its photo to the next."""

THREADS = 256
ROWS = 8
"""Rows of a tile that one block of the kernel copies."""

SOURCE = (
    f"#define ROWS {ROWS}"
    + r"""
struct Entry { unsigned long long source, pitch; };

// Block (x, y): ROWS rows of tile y from row ROWS * x on. A tile starts anywhere in its photo: it is read byte by byte
// (neighbouring threads read neighbouring words, and the cache has the rest), and written as whole words.
extern "C" __global__ void gather(const Entry *table, unsigned int side, unsigned char *target)
{
    const Entry entry = table[blockIdx.y];
    const unsigned int words = side * 3 / 4;
    for (unsigned int row = ROWS * blockIdx.x; row < ROWS * (blockIdx.x + 1) && row < side; ++row) {
        const unsigned char *from = (const unsigned char *)entry.source + row * entry.pitch;
        unsigned int *to = (unsigned int *)(target + ((unsigned long long)blockIdx.y * side + row) * side * 3);
        for (unsigned int word = threadIdx.x; word < words; word += blockDim.x) {
            const unsigned char *bytes = from + 4 * word;
            to[word] = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (unsigned int)bytes[3] << 24;
        }
    }
}
"""
)
"""CUDA C++, compiled on the card's machine; the test compiles the same text with the host's compiler."""


class PlacedImage(Image):
    """A photo on the card: uint8[height, width, 3] from `address` on, its rows without gaps."""

    __slots__ = ("address",)

    def __init__(self, height: int, width: int, address: int) -> None:
        super().__init__(height, width)
        self.address = address


class PlacedTile(NamedTuple):
    """A tile of such a photo, with its top left corner at (y, x) in pixels."""

    image: PlacedImage
    y: int
    x: int


def fill(table: NDArray[Any], tiles: Sequence[PlacedTile], side: int) -> None:
    """Write where each tile is to the rows of the table, ENTRY[n]; further rows repeat the last tile, as padding.

    Raises EngineError for a tile that does not lie wholly inside its photo: the kernel would read what is beside it.
    """
    for row, (image, y, x) in enumerate(tiles):
        check_inside(image, y, x, side)
        pitch = image.width * 3
        table[row] = (image.address + y * pitch + x * 3, pitch)
    table[len(tiles) :] = table[len(tiles) - 1]


def check_side(side: int) -> None:
    """Raise EngineError for tiles whose rows are not whole words, which the kernel writes."""
    if side % 4:
        raise EngineError(f"tiles of {side} px: on a graphics card their side is a multiple of 4")


def blocks(tiles: int, side: int) -> tuple[int, int]:
    """How many blocks of `THREADS` threads the kernel is started with, (x, y)."""
    return -(-side // ROWS), tiles
