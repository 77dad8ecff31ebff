"""From the folders the pictures came in to one manifest; what a source does not label stays unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.dataset import Manifest, ManifestError, write_manifest
from models.release import Credit
from models.sources import damage, quay, scenes, sdnet
from models.sources.cutting import Labelled
from models.sources.duplicates import Pair, merge_groups, near_duplicates
from models.sources.labels import WIDTHS, Visible

# Whom to name for what a release was trained on, by its source.
CREDITS = {
    "sdnet": Credit(
        name="SDNET2018",
        licence="CC BY 4.0",
        credit="Maguire, Dorafshan, Thomas, Utah State University 2018, doi 10.15142/T3TD19",
    ),
    "damage": Credit(
        name="MDMCS: A Benchmark Dataset for Multi-Damage Monitoring of Concrete Structures",
        licence="CC BY 4.0",
        credit="Mendeley Data, doi 10.17632/6x4dzzrs2h.2",
    ),
    "quay": Credit(
        name="Quay cracks in drone frames",
        licence="CC BY-SA 4.0",
        credit="Daisuke Yoshida Laboratory, Osaka Metropolitan University (Sensors 2025, 25, 4325)",
    ),
    "scene": Credit(
        name="Drone frames and textures without defects",
        licence="CC0 1.0, BSD-2-Clause, public domain",
        credit="Caliterra and Brighton aerial frames; ambientCG, Poly Haven, OSM wiki texture library",
    ),
}


@dataclass(frozen=True)
class Converted:
    """What a conversion gave: the manifest and where it was written, and the pairs of tiles whose groups it merged."""

    path: Path
    manifest: Manifest
    duplicates: tuple[Pair, ...]
    dropped: tuple[str, ...]
    """What the sources label and no class is named after."""


def convert(data: Path, out: Path, classes: tuple[str, ...], widths: Mapping[str, float] = WIDTHS) -> Converted:
    """Write `out/manifest.csv` and the tiles cut from larger pictures under `out/tiles`.

    `data` holds any of the folders sdnet, sdnet_more, concrete_damage, quay_cracks, drone_frames and textures. Labels
    of classes that are not in `classes` are dropped. `widths` (class -> px) are the smallest visible widths of the
    taxonomy: less of a defect makes a tile unknown. Groups that show the same picture twice become one.

    Raises ManifestError if there is none of these folders, or for what in them cannot be understood.
    """
    cut = out / "tiles"
    cut.mkdir(parents=True, exist_ok=True)
    rules = {name: Visible.of_width(width) for name, width in {**WIDTHS, **widths}.items()}
    found = list(_tiles(data, cut, rules))
    if not found:
        raise ManifestError(f"{data}: no tiles in it; it holds folders such as sdnet/decks/cracked or concrete_damage")
    manifest = _manifest(found, classes)
    pairs = near_duplicates(manifest)
    manifest = merge_groups(manifest, pairs)
    path = out / "manifest.csv"
    write_manifest(path, manifest)
    dropped = {name for tile in found for name in tile.labels}.difference(classes)
    return Converted(path, manifest, tuple(pairs), tuple(sorted(dropped)))


def _tiles(data: Path, cut: Path, rules: Mapping[str, Visible]) -> Iterator[Labelled]:
    yield from sdnet.tiles(data / "sdnet")
    yield from sdnet.tiles(data / "sdnet_more")
    yield from quay.tiles(data / "quay_cracks", rules)
    yield from damage.tiles(data / "concrete_damage", cut, rules)
    yield from scenes.frames(data / "drone_frames", cut)
    yield from scenes.textures(data / "textures", cut)


def _manifest(found: list[Labelled], classes: tuple[str, ...]) -> Manifest:
    labels = [[_number(tile.labels.get(name)) for name in classes] for tile in found]
    return Manifest(
        classes,
        tuple(tile.image.resolve() for tile in found),
        tuple(tile.group for tile in found),
        np.array(labels, dtype=np.float32).reshape(len(found), len(classes)),
    )


def _number(verdict: int | None) -> float:
    return np.nan if verdict is None else float(verdict)
