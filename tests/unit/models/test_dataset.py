"""Manifests are read strictly, and a photo never stands on two sides of the split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.dataset import (
    Manifest,
    ManifestError,
    Split,
    counts,
    digest,
    folds,
    read_manifest,
    read_tile,
    write_manifest,
)
from models.sources.patches import patch_of

CLASSES = ("crack", "spalling")
NAMES = st.text(min_size=1, max_size=12)
GROUPS = st.lists(NAMES, min_size=1, max_size=30)
SHARES = st.floats(0.0, 0.5)


def picture(path: Path, height: int = 256, width: int = 256, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), value, np.uint8))
    return path


def listing(groups: Sequence[str], labels: Sequence[Sequence[float]] | None = None) -> Manifest:
    """A manifest whose pictures nobody opens."""
    rows = np.array(labels if labels is not None else [[0.0]] * len(groups), np.float32)
    images = tuple(Path(f"/{number}.jpg") for number in range(len(groups)))
    return Manifest(CLASSES[: rows.shape[1]], images, tuple(groups), rows)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    labels = np.array([[1, np.nan], [0, 1]], np.float32)
    images = (picture(tmp_path / "a, with comma.png"), picture(tmp_path / "sub" / "b.png"))
    write_manifest(tmp_path / "m.csv", Manifest(CLASSES, images, ("p", 'q "quoted"'), labels))
    for classes in (CLASSES, None):
        found = read_manifest(tmp_path / "m.csv", classes)
        assert found.classes == CLASSES and found.images == images and found.groups == ("p", 'q "quoted"')
        np.testing.assert_array_equal(found.labels, labels)


def test_a_manifest_written_elsewhere_still_finds_its_pictures(tmp_path: Path) -> None:
    manifest = Manifest(CLASSES, (picture(tmp_path / "data/a.png"),), ("p",), np.zeros((1, 2), np.float32))
    (tmp_path / "other/place").mkdir(parents=True)
    write_manifest(tmp_path / "other/place/m.csv", manifest)
    assert "../../data/a.png" in (tmp_path / "other/place/m.csv").read_text()
    assert read_manifest(tmp_path / "other/place/m.csv").images == manifest.images


def test_a_class_without_a_column_is_unknown_everywhere(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text("image,group,spalling\na.png,p,0\n")
    labels = read_manifest(tmp_path / "m.csv", CLASSES).labels
    assert np.isnan(labels[0, 0]) and labels[0, 1] == 0.0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("image,group,crak\na.png,p,1\n", r"m\.csv:1: column 'crak' is of no class; did you mean 'crack'"),
        ("image,group,weight\na.png,p,1\n", r":1: column 'weight' is of no class; the classes are crack, spalling"),
        ("image,group,crack,crack\na.png,p,1,1\n", r":1: columns named twice: \['crack'\]"),
        ("image,crack\na.png,1\n", r":1: missing columns \['group'\]"),
        ("image;group;crack\na.png;p;1\n", ":1: missing columns"),
        ("", ":1: missing columns"),
        ("image,group,crack\n", "no row below the header"),
        ("image,group,crack\na.png,p,1\nb.png,p,yes\n", ":3: a label is 1, 0 or empty, not 'yes'"),
        ("image,group,crack\na.png,p,1\nb.png,p,0.5\n", ":3: a label is 1, 0 or empty"),
        ("image,group,crack\na.png,p\n", ":2: 2 cells, but the header names 3"),
        ("image,group,crack\na.png,p,1,0\n", ":2: 4 cells, but the header names 3"),
        ("image,group,crack\na.png,p,1\n\n./a.png,q,0\n", r":4: \./a\.png is already listed in line 2"),
        ("image,group,crack\na.png, ,1\n", ":2: no group"),
        ("image,group,crack\n,p,1\n", ":2: no image"),
        ("image,group,crack\na.png,p,1\nc.png,p,1\n", r":3: the picture c\.png does not exist"),
        ("image,group,crack\n.,p,1\n", ":2: the picture . does not exist"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_line(tmp_path: Path, text: str, complaint: str) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ManifestError, match=complaint):
        read_manifest(tmp_path / "m.csv", CLASSES)


def test_a_manifest_that_is_no_text_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"image,group\n\xff\xfe,p\n")
    for name in ("m.csv", "nowhere.csv"):
        with pytest.raises(ManifestError, match=name):
            read_manifest(tmp_path / name, CLASSES)


def test_a_manifest_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "m.csv").write_bytes("\ufeffimage,group,crack\r\na.png,Brücke,1\r\n".encode())
    assert read_manifest(tmp_path / "m.csv", CLASSES).groups == ("Brücke",)


@given(GROUPS, SHARES, SHARES, st.text(max_size=4))
def test_a_group_is_never_on_both_sides(groups: list[str], test: float, validation: float, salt: str) -> None:
    manifest = listing(groups + groups)
    parts = Split(test, validation, salt).apply(manifest)
    assert sum(len(set(part.groups)) for part in parts.values()) == len(set(groups))
    assert sorted(image for part in parts.values() for image in part.images) == sorted(manifest.images)


@given(GROUPS, GROUPS, SHARES, SHARES)
def test_adding_rows_moves_no_group(groups: list[str], more: list[str], test: float, validation: float) -> None:
    split = Split(test, validation)
    before, after = split.apply(listing(groups)), split.apply(listing(more + groups))
    for name, part in before.items():
        assert set(part.groups) <= set(after[name].groups)


@given(NAMES.map("sdnet/walls/{}".format), st.floats(0.13, 1.0))
def test_a_smaller_test_part_is_a_subset_of_a_larger_one(group: str, larger: float) -> None:
    if Split().part(group) == "test" and group not in {prefix for prefix, _ in Split().assigned}:
        assert Split(larger, 0.0).part(group) == "test"


def was_tested(kind: str, photo: str) -> bool:
    """Whether the split that this one replaces, by photo and with a fifth for the test, tested on any of its tiles."""
    before = Split(0.2, 0.1, assigned=(("sdnet/walls/7072", "test"),))
    return "test" in {before.part(f"{folder}/{kind}/{photo}") for folder in ("sdnet", "sdnet_more")}


def test_nothing_is_tested_of_which_no_photo_was_was_tested() -> None:
    names = {kind: [f"{n}" for n in range(7001, 7141)] for kind in ("decks", "walls")}
    names["pavements"] = [f"{n:03d}" for n in range(1, 105)]
    tested = set()
    for kind, photos in names.items():
        for patch, members in {patch_of(kind, one) or one: [] for one in photos}.items():
            members += [one for one in photos if (patch_of(kind, one) or one) == patch]
            if Split().part(f"sdnet/{kind}/{patch}") == "test":
                tested.add(kind)
                assert any(was_tested(kind, one) for one in members), f"{kind}/{patch}"
    assert tested == {"decks", "walls", "pavements"}


def test_the_shares_of_the_split_are_about_what_was_asked_for() -> None:
    parts = [Split().part(f"site/{i}") for i in range(5000)]
    assert parts.count("test") / 5000 == pytest.approx(0.13, abs=0.02)
    assert parts.count("validation") / 5000 == pytest.approx(0.07, abs=0.02)


@pytest.mark.parametrize("shares", [(0.7, 0.4), (-0.1, 0.1)])
def test_shares_that_are_no_parts_of_a_whole_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="no parts of a whole"):
        Split(*shares)


def test_a_whole_camera_location_is_kept_for_the_test() -> None:
    assert {Split().part(f"quay/h1/MAX_{i}") for i in range(50)} == {"test"}


@given(st.lists(st.tuples(NAMES, st.sampled_from([0.0, 1.0, float("nan")])), min_size=5, max_size=40), st.data())
def test_every_group_is_tested_in_exactly_one_fold_and_never_trained_on_there(
    rows: list[tuple[str, float]], data: st.DataObject
) -> None:
    manifest = listing([group for group, _ in rows], [[label] for _, label in rows])
    groups = set(manifest.groups)
    if len(groups) < 2:
        return
    k = data.draw(st.integers(2, len(groups)))
    pairs = folds(manifest, k)
    assert len(pairs) == k
    for train, test in pairs:
        assert not set(train.groups) & set(test.groups)
        assert len(train) + len(test) == len(manifest)
    assert sorted(image for _, test in pairs for image in test.images) == sorted(manifest.images)
    sizes = [len(set(test.groups)) for _, test in pairs]
    assert sum(sizes) == len(groups) and max(sizes) - min(sizes) <= 1


def test_folds_do_not_depend_on_the_order_of_the_rows() -> None:
    groups = [f"site/{n % 7}" for n in range(30)]
    one, other = folds(listing(groups), 3), folds(listing(groups[::-1]), 3)
    assert [set(test.groups) for _, test in one] == [set(test.groups) for _, test in other]


def test_each_fold_gets_its_share_of_the_few_photos_that_show_a_rare_class() -> None:
    groups = [f"damage/{n}" for n in range(18)]
    pairs = folds(listing(groups, [[float(n < 6)] for n in range(18)]), 3)
    assert [int(test.labels.sum()) for _, test in pairs] == [2, 2, 2]


@pytest.mark.parametrize("k", [1, 3])
def test_more_folds_than_groups_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="of 2 groups"):
        folds(listing(["a", "b"]), k)


def test_counts_tell_present_absent_and_unknown_by_source_and_class() -> None:
    nan = float("nan")
    groups = ["site/1", "site/1", "site/2", "other/9"]
    found = list(counts(listing(groups, [[1, nan], [1, 0], [0, nan], [nan, 1]])))
    table = [(c.source, c.defect, c.positives, c.negatives, c.unknown, c.groups, c.positive_groups) for c in found]
    assert table == [
        ("site", "crack", 2, 1, 0, 2, 1),
        ("site", "spalling", 0, 1, 2, 2, 0),
        ("other", "crack", 0, 0, 1, 1, 0),
        ("other", "spalling", 1, 0, 0, 1, 1),
    ]


def test_photos_whose_groups_name_no_source_are_of_one() -> None:
    found = listing(["IMG_1", "IMG_2", "site/1"], [[1.0], [0.0], [0.0]])
    assert found.sources.tolist() == ["photos", "photos", "site"]
    assert [(count.source, count.groups) for count in counts(found)] == [("photos", 2), ("site", 1)]


def test_the_digest_follows_pictures_labels_and_groups_but_not_where_they_lie(tmp_path: Path) -> None:
    def manifest(folder: str, value: int = 100, group: str = "p", label: float = 1.0) -> Manifest:
        image = picture(tmp_path / folder / "a.png", value=value)
        return Manifest(("crack",), (image,), (group,), np.array([[label]], np.float32))

    same = {digest(manifest("here")), digest(manifest("there"))}
    assert len(same) == 1
    others = {
        digest(manifest("x", value=101)),
        digest(manifest("x", group="q")),
        digest(manifest("x", label=0.0)),
        digest(manifest("x", label=np.nan)),
    }
    assert len(others) == 4 and not others & same


@pytest.mark.parametrize("shape", [(300, 200), (64, 64), (256, 512)])
def test_a_picture_of_another_size_is_resized(tmp_path: Path, shape: tuple[int, int]) -> None:
    tile = read_tile(picture(tmp_path / "a.png", *shape), 256)
    assert tile.shape == (256, 256, 3) and tile.dtype == np.uint8 and set(np.unique(tile)) == {100}


def test_a_tile_is_rgb_whatever_the_format(tmp_path: Path) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 2] = 200  # OpenCV writes BGR
    for name in ("a.png", "a.jpg", "a.webp"):
        cv2.imwrite(str(tmp_path / name), red)
        assert np.abs(read_tile(tmp_path / name).astype(int)[32, 32] - (200, 0, 0)).max() < 4


def test_a_picture_that_cannot_be_read_whole_is_named_and_never_filled_with_grey(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "whole.jpg"), noise)
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "words.png").write_bytes(b"no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("half.jpg", "words.png", "empty.png", "nowhere.png"):
        with pytest.raises(ManifestError, match=name.replace(".", r"\.")):
            read_tile(tmp_path / name)
