"""Drone frames and textures that show no defect, as examples of everything else a camera sees."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

from models.dataset import ManifestError, read_tile
from models.sources.cutting import TILE, Labelled, corners, save

ABSENT = ("crack", "spalling", "exposed_rebar", "corrosion_stain", "efflorescence")
"""What these pictures do not show, by our judgement: nobody has labelled them. On textures algae is unknown, since moss
is everywhere; the flights go over lawns, trees and bare ground, where what is green is a plant."""

RUSTY = frozenset({"metal", "rust", "caliterra"})
"""Kinds of textures and flights with rust or bars lying about, where these two are unknown as well."""

NOT_SURFACES = ("decal", "decal-alpha")
TILES_PER_PICTURE = 48


def frames(folder: Path, cut: Path) -> Iterator[Labelled]:
    """Frames lie as `<flight>/<frame>.jpg`; they overlap, so a flight is a group."""
    for source in sorted([*folder.glob("*/*.jpg"), *folder.glob("*/*.JPG")]):
        flight = source.parent.name
        yield from _tiles(source, f"scene/{flight}", flight, cut, (*ABSENT, "algae"))


def textures(folder: Path, cut: Path) -> Iterator[Labelled]:
    """Every texture of the folder, each a group; nothing if there is no such folder. Raises ManifestError."""
    if not folder.is_dir():
        return
    for name, kind in sorted(texture_kinds(folder).items()):
        yield from _tiles(folder / name, texture_group(name), kind, cut, ABSENT)


def texture_kinds(folder: Path) -> dict[str, str]:
    """Image and kind of every texture that the folder's `index.csv` lists, in its order, but decals.

    Raises ManifestError if there is no index, or one without the columns `image` and `kind`.
    """
    index = folder / "index.csv"
    if not index.exists():
        raise ManifestError(f"{index} is missing: it lists the textures, with the columns image and kind")
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:
            kinds = {row["image"]: row["kind"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise ManifestError(f"{index}: a list of textures has the columns image and kind: {error!r}") from error
    return {image: kind for image, kind in kinds.items() if kind not in NOT_SURFACES}


def texture_group(image: str) -> str:
    """The group of the texture that `index.csv` lists as `image`."""
    return f"scene/{Path(image).stem}"


def _tiles(source: Path, group: str, kind: str, cut: Path, shows_no: tuple[str, ...]) -> Iterator[Labelled]:
    """A few tiles of a picture without defects, always the same ones: those whose names hash lowest."""
    picture = read_tile(source)
    absent = [name for name in shows_no if kind not in RUSTY or name not in {"exposed_rebar", "corrosion_stain"}]
    places = corners(picture.shape[0], picture.shape[1], TILE)
    places.sort(key=lambda place: hashlib.sha256(f"{source.name}:{place}".encode()).digest())
    for y, x in places[:TILES_PER_PICTURE]:
        # Every flight begins to count its frames anew.
        name = f"scene-{source.parent.name}-{source.name}-{y}-{x}.jpg"
        image = save(picture[y : y + TILE, x : x + TILE], cut / name)
        yield Labelled(image, group, dict.fromkeys(absent, 0))
