"""What a run learns from: the parts of a manifest, and what its composed tiles are painted on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.dataset import Manifest, ManifestError, Part, Split, folds
from models.sources.scenes import texture_group, texture_kinds
from models.synthesis import Composed, Composer, Surfaces
from models.taxonomy import Taxonomy

SCENES = "scene"
"""The source of pictures that show no concrete, or none alone."""
SHARE_ALIKE = "quay"
"""The source whose tiles stay out of a release's own files, because its licence would reach them."""
CLEAN_TILES = 2000
"""Real tiles without a defect that composed ones are painted on: enough to vary, few enough to keep in memory."""
VALIDATION_OF_FOLD = 0.1
"""Share of a fold's other groups that calibration and thresholds come from."""
UNSEEN_TILES, UNSEEN_FROM = 600, 1 << 40
"""Composed tiles that choose thresholds where no photo can, and the first of their numbers."""


def parts_of(manifest: Manifest, fold: tuple[int, int] | None) -> dict[Part, Manifest]:
    """Training, validation and test parts; of fold (number from 1, folds) the test part is that fold's.

    Raises:
        ManifestError: there is no such fold, there are fewer groups than folds, or a part would be empty or hold no
            tile that may be put into a release.
    """
    if fold is None:
        return _none_wanting(Split().apply(manifest))
    number, count = fold
    if not 1 <= number <= count:
        raise ManifestError(f"fold {number}/{count}: folds are numbered from 1 to {count}")
    rest, test = folds(manifest, count)[number - 1]
    inner = Split(test_share=0.0, validation_share=VALIDATION_OF_FOLD, assigned=()).apply(rest)
    return _none_wanting({"train": inner["train"], "validation": inner["validation"], "test": test})


def _none_wanting(split: dict[Part, Manifest]) -> dict[Part, Manifest]:
    for part, rows in split.items():
        if not len(rows):
            raise ManifestError(
                f"no tile for the {part} part: groups are shared out whole, by their names; more photos, or groups "
                "that are smaller, such as a photo instead of a flight, make every part likely to get one"
            )
        if part != "validation":
            demand_shippable(rows, f"the {part} part")
    return split


def demand_shippable(manifest: Manifest, whose: str) -> None:
    """Refuse tiles of which a release could carry none.

    Raises:
        ManifestError: all of them are of the source that stays out.
    """
    if not shippable(manifest).any():
        raise ManifestError(
            f"all tiles of {whose} are of {SHARE_ALIKE!r}; a release carries some tiles, and the licence of these "
            "would reach the whole of it: add photos of another source"
        )


def shippable(manifest: Manifest) -> NDArray[np.bool_]:
    """bool[n]: the tiles that may be put into a release's files."""
    return np.asarray(manifest.sources != SHARE_ALIKE, dtype=bool)


def composer_of(split: Mapping[Part, Manifest], taxonomy: Taxonomy, textures: Path | None, seed: int) -> Composer:
    """Paints on textures of a folder and on sound tiles, none of them of the validation or test part.

    Raises:
        ManifestError: the folder holds no list of textures.
    """
    train = split["train"]
    surfaces = Surfaces.from_folder(textures, _to_paint_on(split, textures)) if textures else Surfaces.procedural()
    chosen = np.random.default_rng(seed).permutation(sound(train))[:CLEAN_TILES]
    return Composer(taxonomy.names, surfaces.with_tiles([train.images[row] for row in chosen]), seed, taxonomy.widths)


def _to_paint_on(split: Mapping[Part, Manifest], textures: Path) -> set[str]:
    """Groups of the textures that are in the training part; all, if the manifest was made without this folder.

    One that the manifest does not name, beside others that it does, is a copy of a picture by another name, whose group
    may be held back.
    """
    groups = {texture_group(image) for image in texture_kinds(textures / "textures")}
    known = {group for part in split.values() for group in part.groups}
    return groups & set(split["train"].groups) if groups & known else groups


def sound(manifest: Manifest) -> NDArray[np.intp]:
    """Rows that may pass for sound concrete: free of every class that their source labels, without a doubtful one.

    What a source never labels is taken for absent: whoever photographs walls for cracks would have seen a spall. Scenes
    are no concrete.
    """
    sources = manifest.sources
    found = np.zeros(len(manifest), dtype=bool)
    for source in np.unique(sources[sources != SCENES]):
        here = sources == source
        labelled = ~np.isnan(manifest.labels[here]).all(axis=0)
        found[here] = labelled.any() & (manifest.labels[here][:, labelled] == 0).all(axis=1)
    return np.flatnonzero(found)


def unseen(composer: Composer | None) -> list[Composed]:
    """Composed tiles of numbers that no training reaches."""
    return [] if composer is None else [composer.compose(UNSEEN_FROM + number) for number in range(UNSEEN_TILES)]
