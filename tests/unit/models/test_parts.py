"""What composed tiles are painted on was neither held back for validation and test, nor anything but sound concrete."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.dataset import Manifest, ManifestError, Part, Split, source_of
from models.taxonomy import load_taxonomy
from models.training.parts import composer_of, parts_of, shippable, sound

CLASSES = ("crack", "spalling")
LABELS = st.sampled_from([0.0, 1.0, np.nan])


@given(st.lists(st.tuples(st.sampled_from(["sdnet/1", "damage/1", "scene/lawn"]), LABELS, LABELS), min_size=1))
def test_sound_tiles_are_free_of_all_that_their_source_labels(rows: list[tuple[str, float, float]]) -> None:
    labels = np.array([row[1:] for row in rows], np.float32)
    groups = tuple(row[0] for row in rows)
    manifest = Manifest(CLASSES, tuple(Path(str(number)) for number in range(len(rows))), groups, labels)
    chosen = set(sound(manifest).tolist())
    for number, (group, row) in enumerate(zip(groups, labels, strict=True)):
        mates = labels[[source_of(other) == source_of(group) for other in groups]]
        labelled = [column for column in range(2) if not np.isnan(mates[:, column]).all()]
        free = bool(labelled) and all(row[column] == 0 for column in labelled)
        assert (number in chosen) == (free and source_of(group) != "scene")


def textures(folder: Path, names: Sequence[str]) -> None:
    """`folder/textures` with a picture of plain concrete by each name."""
    (folder / "textures").mkdir()
    for name in names:
        cv2.imwrite(str(folder / "textures" / f"{name}.png"), np.full((256, 256, 3), 90, np.uint8))
    lines = "".join(f"{name}.png,concrete\n" for name in names)
    (folder / "textures" / "index.csv").write_text("image,kind\n" + lines)


def of_groups(folder: Path, groups: Sequence[str]) -> dict[Part, Manifest]:
    """The parts of a manifest that has one sound tile of each group."""
    images = tuple(folder / f"{number}-{group.replace('/', '-')}.jpg" for number, group in enumerate(groups))
    return parts_of(Manifest(CLASSES, images, tuple(groups), np.zeros((len(groups), 2), np.float32)), None)


def painted_on(split: dict[Part, Manifest], folder: Path) -> tuple[set[str], set[Path]]:
    """Groups of the textures, and tiles, that the composer of these parts paints on."""
    surfaces = composer_of(split, load_taxonomy(Path("configs/taxonomy.toml")), folder, seed=1).surfaces
    return {f"scene/{file.stem}" for file in surfaces.files}, set(surfaces.tiles)


WALLS = [f"wall{number}" for number in range(12)]
DECKS = [f"deck/{number}" for number in range(30)]


def test_nothing_that_is_held_back_is_painted_on(tmp_path: Path) -> None:
    textures(tmp_path, WALLS)
    split = of_groups(tmp_path, [*(f"scene/{name}" for name in WALLS), *DECKS])
    used, tiles = painted_on(split, tmp_path)
    held_back = {*split["validation"].groups, *split["test"].groups}
    assert used == {f"scene/{name}" for name in WALLS} - held_back
    assert held_back & {f"scene/{name}" for name in WALLS}
    assert tiles and tiles <= set(split["train"].images)


def test_a_copy_of_a_texture_by_another_name_is_not_painted_on(tmp_path: Path) -> None:
    textures(tmp_path, WALLS)
    held_back, copy = "scene/wall0", "scene/wall2"
    assert [Split().part(group) for group in (held_back, copy)] == ["test", "train"]
    # Found to be the same picture, both are of the group with the smaller name: the manifest names no other.
    split = of_groups(tmp_path, [*(f"scene/{name}" for name in WALLS if f"scene/{name}" != copy), *DECKS])
    used, _ = painted_on(split, tmp_path)
    assert used and not used & {held_back, copy}


def test_textures_that_the_manifest_was_made_without_are_all_painted_on(tmp_path: Path) -> None:
    textures(tmp_path, WALLS)
    used, _ = painted_on(of_groups(tmp_path, ["scene/flight", *DECKS]), tmp_path)
    assert used == {f"scene/{name}" for name in WALLS}


def test_a_part_of_tiles_that_no_release_may_carry_is_refused() -> None:
    groups = (*(f"deck/{number}" for number in range(30)), *(f"quay/{number}" for number in range(30)))
    images = tuple(Path(group) for group in groups)
    labels = np.zeros((len(groups), 2), np.float32)
    assert set(parts_of(Manifest(CLASSES, images, groups, labels), None)) == {"train", "validation", "test"}
    with pytest.raises(ManifestError, match="all tiles of the train part are of 'quay'; a release"):
        parts_of(Manifest(CLASSES, images[30:], groups[30:], labels[30:]), None)
    two = Manifest(CLASSES, images[:3], ("quay", "quay/1", "deck/1"), labels[:3])
    assert shippable(two).tolist() == [False, False, True]
