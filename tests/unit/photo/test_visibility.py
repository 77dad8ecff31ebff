"""Sharp concrete can be judged, blurred and dark concrete cannot: on the sample photos themselves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream.photo import pixels, visibility
from stream.photo.header import read_header
from stream.photo.visibility import Visibility

FLIGHT = Path(__file__).parents[2] / "data" / "flight"
TILE = 256
Picture = NDArray[np.uint8]


def photo(name: str) -> Picture:
    data = (FLIGHT / name).read_bytes()
    header = read_header(data, max_pixels=10**8)
    return pixels.decode(data, header, np.empty(pixels.buffer_bytes(header), dtype=np.uint8))


def seen(image: Picture) -> Visibility:
    ys, xs = (np.unique(np.append(np.arange(0, side - TILE, TILE), side - TILE)) for side in image.shape[:2])
    return visibility.inspect(image, ys, xs, TILE)


DECK, WALL = photo("deck-7036.jpg")[:1536, :2048], photo("wall-7072.jpg")[1024:2560, :2048]
DRONE = photo("DJI_0026.JPG")


@pytest.mark.parametrize("image", [DECK, WALL, DRONE], ids=["deck", "wall", "drone"])
def test_a_sharp_photo_is_not_called_blurred_or_dark(image: Picture) -> None:
    found = seen(image)
    assert not found.blurred.any()
    assert not found.dark.any()


@pytest.mark.parametrize("image", [DECK, WALL, DRONE], ids=["deck", "wall", "drone"])
def test_a_defocused_photo_is_called_blurred(image: Picture) -> None:
    assert seen(cv2.GaussianBlur(image, (0, 0), 4.0).astype(np.uint8)).blurred.mean() > 0.98


@pytest.mark.parametrize("turned", [False, True], ids=["sideways", "up and down"])
def test_a_photo_from_a_moving_camera_is_called_blurred(turned: bool) -> None:
    path = np.full((1, 21), 1 / 21, dtype=np.float32)
    for image in (DECK, WALL):
        moved = cv2.filter2D(image, -1, path.T if turned else path).astype(np.uint8)
        assert seen(moved).blurred.mean() > 0.6


def test_only_the_blurred_part_is_called_blurred() -> None:
    image = WALL.copy()
    image[:, 1024:] = cv2.GaussianBlur(image[:, 1024:], (0, 0), 5.0)
    found = seen(image).blurred
    assert not found[:, :4].any()
    assert found[:, 4:].all()


def test_a_photo_in_the_dark_is_called_dark() -> None:
    night = (WALL // 12).astype(np.uint8)
    assert seen(night).dark.all()
    assert seen(np.zeros_like(WALL)).dark.all()


def test_what_is_burnt_out_shows_nothing_and_is_not_called_sharp() -> None:
    assert seen(np.full((512, 512, 3), 255, dtype=np.uint8)).blurred.all()


@pytest.mark.parametrize("shape", [(256, 256), (300, 517), (1000, 271), (2250, 999)])
def test_every_tile_gets_an_answer_whatever_the_size_of_the_photo(shape: tuple[int, int]) -> None:
    grain = np.random.default_rng(0).integers(60, 200, (*shape, 3)).astype(np.uint8)
    found = seen(grain)
    assert found.dark.shape == found.blurred.shape == (-(-shape[0] // TILE), -(-shape[1] // TILE))
    assert found.luminance == pytest.approx(130, abs=4)
    assert not found.blurred.any()


def test_luminance_and_sharpness_belong_to_their_tile() -> None:
    image = np.zeros((1024, 768, 3), dtype=np.uint8)
    image[512:768, 256:512] = np.random.default_rng(1).integers(100, 200, (256, 256, 3))
    found = seen(image)
    expected = np.zeros((4, 3))
    expected[2, 1] = 150
    assert found.luminance == pytest.approx(expected, abs=2)
    assert (found.sharpness > 10).sum() == 1
    assert found.sharpness.argmax() == 2 * 3 + 1
