"""The table of a card's gather gives exactly the tiles of the worker's grid; the kernel copies exactly those bytes."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.engines.gpu.gather import ENTRY, ROWS, SOURCE, THREADS, PlacedImage, PlacedTile, blocks, check_side, fill
from models.engines.protocol import EngineError
from stream.worker.tiling import Tiling, tile

FLIGHT = Path(__file__).parents[3] / "data" / "flight"
CUDA_ON_THE_HOST = """
struct Index { unsigned int x, y; };
static Index blockIdx, threadIdx, blockDim;
#define __global__
%s
extern "C" void run(const Entry *table, unsigned int side, unsigned char *target,
                    unsigned int x, unsigned int y, unsigned int threads)
{
    blockDim.x = threads;
    for (blockIdx.y = 0; blockIdx.y < y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < x; ++blockIdx.x)
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
                gather(table, side, target);
}
"""


def table_of(photo: PlacedImage, tiling: Tiling, rows: int | None = None) -> NDArray[np.void]:
    corners = [PlacedTile(photo, int(y), int(x)) for y in tiling.ys for x in tiling.xs]
    table = np.zeros(rows or len(corners), dtype=ENTRY)
    fill(table, corners, tiling.grid.tile_px)
    return table


@given(st.integers(32, 300), st.integers(32, 300), st.integers(0, 8))
def test_the_table_gives_exactly_the_tiles_of_the_grid(height: int, width: int, overlap: int) -> None:
    tiling = tile(width, height, 32, overlap)
    pixels = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3)
    table = table_of(PlacedImage(height, width, 0), tiling)
    offsets = np.arange(32 * 3, dtype=np.uint64)
    for (y, x), entry in zip([(y, x) for y in tiling.ys for x in tiling.xs], table, strict=True):
        # Byte for byte: an address is a byte's number in the photo, and every byte here is worth its number.
        found = entry["source"] + entry["pitch"] * np.arange(32, dtype=np.uint64)[:, None] + offsets
        np.testing.assert_array_equal(found.reshape(32, 32, 3), pixels[y : y + 32, x : x + 32])


def test_further_rows_repeat_the_last_tile() -> None:
    table = table_of(PlacedImage(64, 64, 4096), tile(64, 64, 32), rows=6)
    assert table[4:].tolist() == [table[3].item()] * 2


@pytest.mark.parametrize(("y", "x"), [(-1, 0), (0, -1), (33, 0), (0, 33)])
def test_a_tile_that_hangs_over_the_edge_is_refused(y: int, x: int) -> None:
    with pytest.raises(EngineError, match="not inside its image of 64x64"):
        fill(np.zeros(1, dtype=ENTRY), [PlacedTile(PlacedImage(64, 64, 0), y, x)], 32)


@pytest.mark.parametrize("side", [30, 33])
def test_tiles_whose_rows_are_not_whole_words_are_refused(side: int) -> None:
    with pytest.raises(EngineError, match="multiple of 4"):
        check_side(side)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler here to run the kernel's source on the CPU")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "gather.cpp").write_text(CUDA_ON_THE_HOST % SOURCE, encoding="utf-8")
    options = ["-O1", "-shared", "-fPIC", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-static-libubsan"]
    subprocess.run([compiler, *options, "-o", folder / "gather.so", folder / "gather.cpp"], check=True)
    return ctypes.CDLL(str(folder / "gather.so"))


@pytest.mark.parametrize("name", ["damage-10388.jpg", "damage-10170.jpg"])
@pytest.mark.parametrize("side", [256, 252, 64])
def test_the_kernels_source_cuts_real_photos_into_their_tiles(kernel: ctypes.CDLL, name: str, side: int) -> None:
    photo = np.ascontiguousarray(cv2.imread(str(FLIGHT / name))[:, :-1])  # an odd width: tiles start at any byte
    tiling = tile(photo.shape[1], photo.shape[0], side, 12)
    table = table_of(PlacedImage(*photo.shape[:2], photo.ctypes.data), tiling)
    found = np.full((len(table), side, side, 3), 7, dtype=np.uint8)
    x, y = blocks(len(table), side)
    assert x * ROWS >= side
    kernel.run(ctypes.c_void_p(table.ctypes.data), side, ctypes.c_void_p(found.ctypes.data), x, y, THREADS)
    expected = [photo[y : y + side, x : x + side] for y in tiling.ys for x in tiling.xs]
    np.testing.assert_array_equal(found, expected)
