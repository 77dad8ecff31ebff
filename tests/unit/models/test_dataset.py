"""Manifests are read strictly, and a photo never stands on two sides of the split."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.convert import convert
from models.dataset import Manifest, ManifestError, Split, read_manifest, read_tile, write_manifest

CLASSES = ("crack", "spalling")


def picture(path: Path, height: int = 256, width: int = 256, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), value, np.uint8))
    return path


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    labels = np.array([[1, np.nan], [0, 1]], np.float32)
    images = (tmp_path / "a.png", tmp_path / "sub" / "b.png")
    write_manifest(tmp_path / "m.csv", Manifest(CLASSES, images, ("p", "q"), labels))
    found = read_manifest(tmp_path / "m.csv", CLASSES)
    assert [path.resolve() for path in found.images] == [path.resolve() for path in images]
    assert found.groups == ("p", "q")
    np.testing.assert_array_equal(found.labels, labels)


def test_a_class_without_a_column_is_unknown_everywhere(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,group,spalling\na.png,p,0\n")
    labels = read_manifest(tmp_path / "m.csv", CLASSES).labels
    assert np.isnan(labels[0, 0]) and labels[0, 1] == 0.0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("image,group,crak\na.png,p,1\n", "crak"),
        ("image,crack\na.png,1\n", "group"),
        ("image,group,crack\na.png,p,yes\n", ":2: a label is 1, 0 or empty"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ManifestError, match=complaint):
        read_manifest(tmp_path / "m.csv", CLASSES)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=30), st.text(max_size=4))
def test_a_group_is_never_split_and_never_moves(groups: list[str], salt: str) -> None:
    images = tuple(Path(str(i)) for i in range(2 * len(groups)))
    labels = np.zeros((len(images), 1), np.float32)
    both = Manifest(("crack",), images, tuple(groups + groups), labels)
    parts = Split(salt=salt).apply(both)
    seen = [set(part.groups) for part in parts.values()]
    assert sum(len(names) for names in seen) == len(set(groups))
    assert sum(len(part) for part in parts.values()) == len(images)
    assert all(Split(salt=salt).part(group) == name for name, part in parts.items() for group in part.groups)


def test_the_shares_of_the_split_are_about_what_was_asked_for() -> None:
    split = Split()
    parts = [split.part(f"site/{i}") for i in range(5000)]
    assert parts.count("test") / 5000 == pytest.approx(0.2, abs=0.02)
    assert parts.count("validation") / 5000 == pytest.approx(0.1, abs=0.02)


def test_a_whole_camera_location_is_kept_for_the_test() -> None:
    assert {Split().part(f"quay/h1/MAX_{i}") for i in range(50)} == {"test"}


def test_a_picture_of_another_size_is_resized_and_one_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert read_tile(picture(tmp_path / "a.png", 300, 200), 256).shape == (256, 256, 3)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(ManifestError, match=r"b\.png"):
        read_tile(tmp_path / "b.png")


def test_conversion_says_present_absent_and_unknown_only_where_the_source_does(tmp_path: Path) -> None:
    data = tmp_path / "data"
    picture(data / "sdnet/walls/cracked/7001-3.jpg")
    picture(data / "sdnet/walls/clean/7002-4.jpg")
    picture(data / "quay_cracks/h1/MAX_1_2_3.jpg")
    (data / "quay_cracks/h1/MAX_1_2_3.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    picture(data / "textures/Concrete.jpg", 512, 256)
    found = read_manifest(convert(data, tmp_path / "out", CLASSES), CLASSES)
    table = {
        group: [None if np.isnan(x) else int(x) for x in row]
        for group, row in zip(found.groups, found.labels, strict=True)
    }
    assert table["sdnet/walls/7001"] == [1, None] and table["sdnet/walls/7002"] == [0, None]
    assert table["quay/h1/MAX_1"] == [1, None]
    assert table["scene/Concrete"] == [0, 0]
    assert len(found) == 5  # two textures tiles, one of each photo


def test_a_sliver_of_damage_at_a_tiles_border_is_unknown_and_not_absent(tmp_path: Path) -> None:
    data = tmp_path / "data"
    picture(data / "concrete_damage/images/1.jpg", 256, 256)
    mask = np.zeros((256, 256), np.uint8)
    mask[:2, :20] = 4  # 40 pixels of spalling
    mask[100:110, :] = 1  # 2560 pixels of crack
    (data / "concrete_damage/masks").mkdir()
    cv2.imwrite(str(data / "concrete_damage/masks/1.png"), mask)
    found = read_manifest(convert(data, tmp_path / "out", CLASSES), CLASSES)
    assert found.labels[0, 0] == 1.0 and np.isnan(found.labels[0, 1])
