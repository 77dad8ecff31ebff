"""The picture in the report: the whole frame, with colours where the regions are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stream.messages import Region
from stream.photo import overlay

GREY = np.full((600, 1200, 3), 128, dtype=np.uint8)


def region(defect: str, box: tuple[int, int, int, int], score: float = 0.9) -> Region:
    x0, y0, x1, y1 = box
    return Region(defect=defect, score=score, cell=(0, 0), polygon=((x0, y0), (x1, y0), (x1, y1), (x0, y1)), tiles=1)


def opened(data: bytes) -> NDArray[np.int64]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB")).astype(np.int64)


def test_a_region_is_tinted_and_outlined_in_its_colour_and_the_rest_is_left() -> None:
    found = opened(overlay.draw(GREY, [region("crack", (300, 200, 700, 500))], []))
    inside, outside = found[350, 500], found[350, 900]
    assert inside[0] > 140
    assert inside[2] < 120
    assert np.abs(outside - 128).max() <= 2
    assert np.abs(found[350, 300] - overlay.COLOURS["crack"]).max() < 60


def test_the_whole_frame_is_scaled_and_regions_with_it() -> None:
    found = opened(
        overlay.draw(np.tile(GREY, (4, 4, 1)), [region("algae", (2400, 0, 4799, 2399))], [], max_side_px=600)
    )
    assert found.shape == (300, 600, 3)
    assert found[150, 450, 1] > found[150, 450, 0] + 10
    assert np.abs(found[150, 150] - 128).max() <= 2


def test_a_small_photo_is_not_blown_up() -> None:
    assert opened(overlay.draw(GREY[:20, :30], [region("crack", (0, 0, 29, 19))], ["x"])).shape == (20, 30, 3)


def test_overlapping_regions_show_through_each_other() -> None:
    both = [region("crack", (200, 200, 800, 500), 0.9), region("spalling", (200, 200, 800, 500), 0.8)]
    one = opened(overlay.draw(GREY, both[:1], []))[350, 500]
    two = opened(overlay.draw(GREY, both, []))[350, 500]
    assert two[2] > one[2] + 10
    assert two[0] > two[1]


def test_title_and_legend_darken_a_corner_each() -> None:
    found = opened(overlay.draw(GREY, [region("crack", (500, 200, 700, 400))], ["wall-7072.jpg", "12 May 2026"]))
    assert found[2, 2].mean() < 80
    assert found[-3, 2].mean() < 80
    assert np.abs(found[2, -3] - 128).max() <= 2


def test_the_legend_makes_way_for_a_finding_in_its_corner() -> None:
    found = opened(overlay.draw(GREY, [region("crack", (0, 450, 300, 599))], []))
    assert found[-3, -3].mean() < 80
    assert found[560, 100].mean() > 80


@pytest.mark.parametrize("box", [(0, 0, 10, 10), (1190, 0, 1199, 5), (1190, 590, 1199, 599), (0, 599, 1, 599)])
def test_labels_at_the_border_stay_inside(box: tuple[int, int, int, int]) -> None:
    found = opened(overlay.draw(GREY, [region("crack", box)], []))
    red = (found[..., 0] > 180) & (found[..., 1] < 110) & (found[..., 2] < 110)
    assert red.sum() > 1000  # the label's background, all of it in the picture


def test_nothing_found_leaves_the_photo_as_it_is() -> None:
    before = GREY.copy()
    assert np.abs(opened(overlay.draw(GREY, [], [])) - 128).max() <= 1
    overlay.draw(GREY, [region("crack", (0, 0, 500, 500))], ["title"])
    assert np.array_equal(GREY, before)


def test_a_class_of_another_taxonomy_has_a_colour_that_stays() -> None:
    assert overlay.colour("honeycombing") == overlay.colour("honeycombing")
    assert opened(overlay.draw(GREY, [region("honeycombing", (300, 200, 700, 500))], [])).shape == (600, 1200, 3)


def test_a_thumbnail_keeps_the_shape() -> None:
    assert opened(overlay.thumbnail(GREY, 320)).shape == (160, 320, 3)
