"""What composed tiles are painted on was neither held back for validation and test, nor anything but sound concrete."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.dataset import Manifest, ManifestError, source_of
from models.taxonomy import load_taxonomy
from models.training.parts import composer_of, parts_of, sound

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


def test_nothing_that_is_held_back_is_painted_on(tmp_path: Path) -> None:
    (tmp_path / "textures").mkdir()
    names = [f"wall{number}" for number in range(12)]
    for name in names:
        cv2.imwrite(str(tmp_path / "textures" / f"{name}.png"), np.full((256, 256, 3), 90, np.uint8))
    lines = "".join(f"{name}.png,concrete\n" for name in names)
    (tmp_path / "textures" / "index.csv").write_text("image,kind\n" + lines)
    groups = (*(f"scene/{name}" for name in names), *(f"deck/{number}" for number in range(30)))
    images = tuple(tmp_path / f"{group.replace('/', '-')}.jpg" for group in groups)
    manifest = Manifest(CLASSES, images, groups, np.zeros((len(groups), 2), np.float32))
    split = parts_of(manifest, None)
    composer = composer_of(split, load_taxonomy(Path("configs/taxonomy.toml")), tmp_path, seed=1)
    used = {f"scene/{file.stem}" for file in composer.surfaces.files}
    held_back = {*split["validation"].groups, *split["test"].groups}
    assert used == {f"scene/{name}" for name in names} - held_back
    assert held_back & {f"scene/{name}" for name in names}
    assert composer.surfaces.tiles and set(composer.surfaces.tiles) <= set(split["train"].images)


def test_a_part_of_tiles_that_no_release_may_carry_is_refused() -> None:
    groups = (*(f"deck/{number}" for number in range(30)), *(f"quay/{number}" for number in range(30)))
    images = tuple(Path(group) for group in groups)
    labels = np.zeros((len(groups), 2), np.float32)
    assert set(parts_of(Manifest(CLASSES, images, groups, labels), None)) == {"train", "validation", "test"}
    with pytest.raises(ManifestError, match="all tiles of the train part are of 'quay'; a release"):
        parts_of(Manifest(CLASSES, images[30:], groups[30:], labels[30:]), None)
