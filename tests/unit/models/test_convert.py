"""A source's labels become present, absent or unknown; and unknown never turns into absent on the way."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from models.dataset import Manifest, ManifestError, read_manifest, source_of
from models.sources.convert import CREDITS, convert
from models.sources.labels import WIDTHS, Box, Visible, labels_of_boxes, labels_of_mask
from models.sources.patches import PATCHES, patch_of
from models.sources.quay import read_yolo
from models.taxonomy import load_taxonomy

SHIPPED = Path(__file__).parents[3] / "configs" / "taxonomy.toml"
CLASSES = ("crack", "spalling", "algae")
RULE = {"spall": Visible(width_px=3, area_px=20)}
VALUES = {"spall": 1}
ORDER = {0: 0, None: 1, 1: 2}
MASKS = arrays.arrays(np.uint8, (12, 16), elements=st.sampled_from([0, 1, 1]))
BOXES = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h),
    st.floats(-30, 60),
    st.floats(-30, 60),
    st.floats(0.1, 60),
    st.floats(0.1, 60),
)


def picture(path: Path, height: int = 256, width: int = 256, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), value, np.uint8))
    return path


def of_mask(mask: NDArray[np.uint8]) -> int | None:
    return labels_of_mask(mask, VALUES, RULE)["spall"]


def of_boxes(*boxes: Box) -> int | None:
    return labels_of_boxes({"spall": boxes}, RULE, (40, 50))["spall"]


@given(MASKS, MASKS)
def test_more_of_a_defect_never_makes_it_less_present(mask: NDArray[np.uint8], more: NDArray[np.uint8]) -> None:
    assert ORDER[of_mask(mask | more)] >= ORDER[of_mask(mask)]


@given(MASKS)
def test_a_mirrored_or_turned_mask_says_the_same(mask: NDArray[np.uint8]) -> None:
    for other in (mask[::-1], mask[:, ::-1], mask.T, np.rot90(mask)):
        assert of_mask(np.ascontiguousarray(other)) == of_mask(mask)


@given(MASKS)
def test_absent_is_said_of_a_mask_without_a_single_pixel_and_of_no_other(mask: NDArray[np.uint8]) -> None:
    assert (of_mask(mask) == 0) == (not mask.any())


@given(MASKS, st.integers(2, 255))
def test_pixels_of_other_classes_change_nothing(mask: NDArray[np.uint8], other: int) -> None:
    assert of_mask(np.where(mask == 0, other, mask).astype(np.uint8)) == of_mask(mask)


@given(MASKS, st.integers(1, 6), st.integers(1, 120), st.integers(0, 3), st.integers(0, 60))
def test_a_stricter_rule_never_finds_more(
    mask: NDArray[np.uint8], width: int, area: int, wider: int, larger: int
) -> None:
    lax, strict = Visible(width, area), Visible(width + wider, area + larger)
    verdicts = [labels_of_mask(mask, VALUES, {"spall": rule})["spall"] for rule in (strict, lax)]
    assert ORDER[verdicts[0]] <= ORDER[verdicts[1]]


@pytest.mark.parametrize(
    ("height", "width", "verdict"),
    [(3, 7, 1), (3, 6, None), (2, 16, None), (5, 4, 1), (0, 0, 0), (1, 1, None), (12, 16, 1)],
)
def test_present_needs_both_the_area_and_the_width(height: int, width: int, verdict: int | None) -> None:
    mask = np.zeros((12, 16), np.uint8)
    mask[:height, :width] = 1
    assert of_mask(mask) == verdict


def test_a_class_that_the_masks_do_not_name_has_no_verdict() -> None:
    assert labels_of_mask(np.ones((8, 8), np.uint8), VALUES, RULE).keys() == {"spall"}


@given(st.lists(BOXES, max_size=4), BOXES)
def test_one_more_box_never_makes_a_class_less_present(boxes: list[Box], more: Box) -> None:
    assert ORDER[of_boxes(*boxes, more)] >= ORDER[of_boxes(*boxes)]


@given(st.lists(BOXES, max_size=4))
def test_mirrored_boxes_say_the_same(boxes: list[Box]) -> None:
    # In quarters of a pixel, so that mirroring is exact.
    drawn = [Box(*(round(4 * side) / 4 for side in box)) for box in boxes]
    assert of_boxes(*drawn) == of_boxes(*(Box(50 - box.right, box.top, 50 - box.left, box.bottom) for box in drawn))


@pytest.mark.parametrize(
    ("box", "verdict"),
    [
        (Box(0, 0, 10, 10), 1),
        (Box(0, 0, 10, 2), None),  # too narrow
        (Box(0, 0, 4, 4), None),  # too small
        (Box(-11, 0, 10, 10), None),  # more than half of it lies outside, perhaps all of the defect
        (Box(-9, 0, 10, 10), 1),
        (Box(50, 0, 60, 10), 0),  # only touches
        (Box(60, 0, 70, 10), 0),
        (Box(49.5, 39.5, 70, 70), None),
    ],
)
def test_a_box_counts_by_what_of_it_lies_in_the_tile(box: Box, verdict: int | None) -> None:
    assert of_boxes(box) == verdict


def test_boxes_of_the_yolo_format_become_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0 0.5 0.25 0.5 0.5\n\n0 0.5 0.5 1 1\n")
    found = read_yolo(tmp_path / "a.txt", ("crack",), (100, 200))
    assert found == {"crack": [Box(50, 0, 150, 50), Box(0, 0, 200, 100)]}


@pytest.mark.parametrize(
    "line", ["0 0.5 0.5 0.1", "1 0.5 0.5 0.1 0.1", "0 0.5 0.5 x 0.1", "0 50 0.5 0.1 0.1", "0 0.5 0.5 0 0.1"]
)
def test_a_wrong_box_is_refused_with_the_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(ManifestError, match=r"a\.txt:2"):
        read_yolo(tmp_path / "a.txt", ("crack",), (100, 200))


def test_the_widths_are_those_of_the_shipped_taxonomy() -> None:
    assert {one.name: one.min_width_px for one in load_taxonomy(SHIPPED).defects} == WIDTHS


def test_a_class_needs_its_smallest_width_over_a_length_of_80_pixels() -> None:
    assert Visible.of_width(3.0) == Visible(width_px=3, area_px=240)
    assert Visible.of_width(0.4) == Visible(width_px=1, area_px=80)


def every_source(data: Path) -> Path:
    """A small folder in the shape of the real one."""
    picture(data / "sdnet/walls/cracked/7001-3.jpg")
    picture(data / "sdnet/walls/clean/7002-4.jpg")
    picture(data / "sdnet/decks/clean/7035-1.jpg")  # overlaps with the next
    picture(data / "sdnet_more/decks/cracked/7036-1.jpg")
    picture(data / "sdnet_more/walls/clean/7999-1.jpg")
    picture(data / "quay_cracks/h1/MAX_0006_5m_11_10.jpg")
    (data / "quay_cracks/h1/MAX_0006_5m_11_10.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    picture(data / "quay_cracks/h1/MAX_0006_5m_2_3.jpg")  # a box file was forgotten: says nothing
    picture(data / "quay_cracks/h1/MAX_0006_5m_2_4.jpg")
    (data / "quay_cracks/h1/MAX_0006_5m_2_4.txt").write_text("\n")  # nor does an empty one
    picture(data / "drone_frames/brighton/DJI_1.JPG", 256, 512)
    picture(data / "textures/Concrete.jpg", 512, 256)
    picture(data / "textures/rusty.png", 256, 256)
    picture(data / "textures/Leak.png", 256, 256)
    kinds = {"Concrete.jpg": "concrete", "rusty.png": "rust", "Leak.png": "decal"}
    (data / "textures/index.csv").write_text("image,kind\n" + "".join(f"{n},{k}\n" for n, k in kinds.items()))
    damage(data, np.zeros((256, 384), np.uint8))
    return data


def damage(data: Path, mask: NDArray[np.uint8]) -> None:
    picture(data / "concrete_damage/images/1.jpg", *mask.shape)
    (data / "concrete_damage/masks").mkdir()
    cv2.imwrite(str(data / "concrete_damage/masks/1.png"), mask)


def table(found: Manifest) -> dict[str, set[tuple[int | None, ...]]]:
    rows: dict[str, set[tuple[int | None, ...]]] = {}
    for group, row in zip(found.groups, found.labels, strict=True):
        rows.setdefault(group, set()).add(tuple(None if np.isnan(value) else int(value) for value in row))
    return rows


def test_conversion_says_present_absent_and_unknown_only_where_the_source_does(tmp_path: Path) -> None:
    done = convert(every_source(tmp_path / "data"), tmp_path / "out", CLASSES)
    assert table(done.manifest) == {
        "sdnet/walls/7001": {(1, None, None)},
        "sdnet/walls/7002": {(0, None, None)},
        "sdnet/decks/7036": {(0, None, None), (1, None, None)},
        "sdnet_more/walls/7999": {(0, None, None)},
        "quay/h1/MAX_0006_5m": {(1, None, None)},
        "damage/1": {(0, 0, None)},
        "scene/brighton": {(0, 0, 0)},
        "scene/Concrete": {(0, 0, None)},
        "scene/rusty": {(0, 0, None)},
    }
    assert len(done.manifest) == 6 + 2 + 2 + 2 + 1  # two tiles of the damage photo, the frame and the first texture
    assert {source_of(group).removesuffix("_more") for group in done.manifest.groups} <= CREDITS.keys()


def test_metal_and_rust_are_unknown_for_stains_and_bars_and_concrete_is_not(tmp_path: Path) -> None:
    done = convert(every_source(tmp_path / "data"), tmp_path / "out", ("corrosion_stain", "exposed_rebar"))
    rows = table(done.manifest)
    assert rows["scene/rusty"] == {(None, None)} and rows["scene/Concrete"] == {(0, 0)}


def test_what_was_written_reads_as_what_was_returned(tmp_path: Path) -> None:
    done = convert(every_source(tmp_path / "data"), tmp_path / "out", CLASSES)
    read = read_manifest(done.path, CLASSES)
    assert read.images == done.manifest.images and read.groups == done.manifest.groups
    np.testing.assert_array_equal(read.labels, done.manifest.labels)


def test_converting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    data = every_source(tmp_path / "data")
    one, other = (convert(data, tmp_path / name, CLASSES) for name in ("one", "other"))
    assert one.path.read_bytes() == other.path.read_bytes()
    tiles = [sorted((tmp_path / name / "tiles").iterdir()) for name in ("one", "other")]
    assert [path.read_bytes() for path in tiles[0]] == [path.read_bytes() for path in tiles[1]]


def test_frames_of_two_flights_with_one_name_are_different_tiles(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for flight, name in (("north", "DJI_0001.jpg"), ("south", "DJI_0001.jpg"), ("south", "DJI_0001.JPG")):
        path = picture(tmp_path / "data/drone_frames" / flight / name)
        cv2.imwrite(str(path), random.integers(0, 255, (512, 512, 3), np.uint8))
    done = convert(tmp_path / "data", tmp_path / "out", CLASSES)
    assert len(set(done.manifest.images)) == 12 and set(done.manifest.groups) == {"scene/north", "scene/south"}
    assert not done.duplicates and len({image.read_bytes() for image in done.manifest.images}) == 12
    assert read_manifest(done.path).images == done.manifest.images


def test_no_photo_is_in_two_patches() -> None:
    for place, patches in PATCHES.items():
        photos = " ".join(patches).split()
        assert len(photos) == len(set(photos)) and {patch_of(place, one) for one in photos} <= set(photos)
    assert patch_of("walls", "7036") is None  # a number means another photo elsewhere


def test_a_sliver_of_damage_at_a_tiles_border_is_unknown_and_not_absent(tmp_path: Path) -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[:2, :20] = 4  # 40 pixels of spalling
    mask[100:110, :] = 1  # 2560 pixels of crack
    damage(tmp_path / "data", mask)
    assert table(convert(tmp_path / "data", tmp_path / "out", CLASSES).manifest) == {"damage/1": {(1, None, None)}}


def test_a_taxonomy_that_sees_finer_calls_more_present(tmp_path: Path) -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[:6, :100] = 4
    damage(tmp_path / "data", mask)
    verdicts = [
        convert(tmp_path / "data", tmp_path / name, ("spalling",), widths).manifest.labels[0, 0]
        for name, widths in {"coarse": {"spalling": 12.0}, "fine": {"spalling": 5.5}}.items()
    ]
    assert np.isnan(verdicts[0]) and verdicts[1] == 1.0


@pytest.mark.parametrize(
    ("mask", "complaint"),
    [
        (np.full((256, 256), 7, np.uint8), r"1\.png: values \[7\] are of no class"),
        (np.zeros((100, 256), np.uint8), r"1\.png: 256 x 100 px, its photo 256 x 256"),
        (np.zeros((256, 256, 3), np.uint8), r"1\.png: not a mask of one byte a pixel"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(tmp_path: Path, mask: NDArray[np.uint8], complaint: str) -> None:
    damage(tmp_path / "data", np.zeros((256, 256), np.uint8))
    cv2.imwrite(str(tmp_path / "data/concrete_damage/masks/1.png"), mask)
    with pytest.raises(ManifestError, match=complaint):
        convert(tmp_path / "data", tmp_path / "out", CLASSES)


def test_a_missing_mask_a_strange_folder_and_an_empty_place_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "a/concrete_damage/images/1.jpg")
    picture(tmp_path / "b/sdnet/decks/maybe/1-1.jpg")
    picture(tmp_path / "c/textures/x.jpg")
    (tmp_path / "d").mkdir()
    for place, complaint in {
        "a": r"1\.png: not a mask",
        "b": "maybe",
        "c": r"index\.csv",
        "d": "no tiles in it",
    }.items():
        with pytest.raises(ManifestError, match=complaint):
            convert(tmp_path / place, tmp_path / "out", CLASSES)
