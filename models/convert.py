"""From the folders the pictures came in to one manifest; what a source does not label stays unknown."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.dataset import Manifest, ManifestError, read_tile, write_manifest
from models.release import Credit

TILE = 256

# concrete_damage: mask value of a class, and how many pixels of a tile must carry it before we call it visible.
# A tile with fewer holds a sliver at its border that a person would not call either way: unknown, not absent.
DAMAGE_MASKS = {"crack": (1, 80), "exposed_rebar": (2, 400), "corrosion_stain": (3, 600), "spalling": (4, 1200)}
DAMAGE_SCALES = (1.0, 0.7, 0.5)

# What a drone frame or a texture shows for certain not to be there. A building site has bars and rust lying about, so
# those two stay unknown on its frames, and so they do on metal and rust.
SCENE_ABSENT = ("crack", "spalling", "exposed_rebar", "corrosion_stain", "efflorescence")
RUSTY_SCENES = ("caliterra", "metal_plate_02", "rusty_metal_05")
TILES_PER_SCENE = 48


# Whom to name for what a release was trained on, by the first word of a group.
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
class Labelled:
    """One labelled tile: where it is, what it must not be separated from, and what is known of it."""

    image: Path
    group: str
    labels: Mapping[str, int]


def convert(data: Path, out: Path, classes: tuple[str, ...]) -> Path:
    """Write `out/manifest.csv` and the tiles cut from larger pictures under `out/tiles`; returns the manifest's path.

    `data` holds any of the folders sdnet, sdnet_more, concrete_damage, quay_cracks, drone_frames and textures.
    Labels of classes that are not in `classes` are dropped.
    """
    cut = out / "tiles"
    cut.mkdir(parents=True, exist_ok=True)
    found = [
        *_sdnet(data / "sdnet"),
        *_sdnet(data / "sdnet_more"),
        *_quay(data / "quay_cracks"),
        *_damage(data / "concrete_damage", cut),
        *_frames(data / "drone_frames", cut),
        *_textures(data / "textures", cut),
    ]
    labels = np.array([[tile.labels.get(name, np.nan) for name in classes] for tile in found], dtype=np.float32)
    path = out / "manifest.csv"
    manifest = Manifest(
        classes,
        tuple(tile.image for tile in found),
        tuple(tile.group for tile in found),
        labels.reshape(len(found), len(classes)),
    )
    write_manifest(path, manifest)
    return path


def _sdnet(folder: Path) -> Iterator[Labelled]:
    """Tiles sorted by folder: <kind>/<clean|cracked>/<photo>-<n>.jpg. Only cracks were looked for."""
    for image in sorted(folder.glob("*/*/*.jpg")):
        kind, verdict = image.parts[-3:-1]
        photo = image.stem.split("-")[0]
        yield Labelled(image, f"{folder.name}/{kind}/{photo}", {"crack": int(verdict == "cracked")})


def _quay(folder: Path) -> Iterator[Labelled]:
    """Drone tiles with boxes round the cracks. Every tile has one; the boxes are too coarse to say more."""
    for image in sorted(folder.glob("*/*.jpg")):
        boxes = image.with_suffix(".txt")
        if boxes.exists() and boxes.read_text().strip():
            photo = re.sub(r"_\d+_\d+$", "", image.stem)
            yield Labelled(image, f"quay/{image.parent.name}/{photo}", {"crack": 1})


def _damage(folder: Path, cut: Path) -> Iterator[Labelled]:
    """Photos with a class for each pixel, cut at three scales, because nobody knows from how far they were taken."""
    for source in sorted((folder / "images").glob("*.jpg")):
        photo = read_tile(source)
        mask = _mask(folder / "masks" / f"{source.stem}.png")
        for scale in DAMAGE_SCALES:
            small = _scaled(photo, scale)
            size = (small.shape[1], small.shape[0])
            truth = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
            for y, x in _corners(small.shape[0], small.shape[1], TILE // 2):
                image = _save(small[y : y + TILE, x : x + TILE], cut / f"damage-{source.stem}-{scale}-{y}-{x}.jpg")
                part = truth[y : y + TILE, x : x + TILE]
                yield Labelled(image, f"damage/{source.stem}", _visible(part))


def _mask(path: Path) -> NDArray[np.uint8]:
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise ManifestError(f"{path}: not a picture that can be read")
    return np.asarray(mask, dtype=np.uint8)


def _visible(mask: NDArray[np.uint8]) -> dict[str, int]:
    labels = {}
    for name, (value, enough) in DAMAGE_MASKS.items():
        pixels = int(np.count_nonzero(mask == value))
        if pixels == 0 or pixels >= enough:
            labels[name] = int(pixels > 0)
    return labels


def _frames(folder: Path, cut: Path) -> Iterator[Labelled]:
    for source in sorted([*folder.glob("*/*.jpg"), *folder.glob("*/*.JPG")]):
        yield from _scene(source, f"scene/{source.parent.name}", cut)


def _textures(folder: Path, cut: Path) -> Iterator[Labelled]:
    for source in sorted([*folder.glob("*.jpg"), *folder.glob("*.png")]):
        if not source.stem.startswith("Leaking"):  # decals for composing, no surfaces
            yield from _scene(source, f"scene/{source.stem}", cut)


def _scene(source: Path, group: str, cut: Path) -> Iterator[Labelled]:
    """A few tiles of a picture without defects, always the same ones: those whose names hash lowest."""
    picture = read_tile(source)
    if min(picture.shape[:2]) < TILE:
        return
    absent = SCENE_ABSENT if not group.endswith(RUSTY_SCENES) else ("crack", "spalling")
    corners = list(_corners(picture.shape[0], picture.shape[1], TILE))
    corners.sort(key=lambda corner: hashlib.sha256(f"{source.name}:{corner}".encode()).digest())
    for y, x in corners[:TILES_PER_SCENE]:
        image = _save(picture[y : y + TILE, x : x + TILE], cut / f"scene-{source.stem}-{y}-{x}.jpg")
        yield Labelled(image, group, dict.fromkeys(absent, 0))


def _corners(height: int, width: int, step: int) -> Iterable[tuple[int, int]]:
    """Top left corners of whole tiles, `step` pixels apart, row by row; the last of a row ends at the border."""

    def along(length: int) -> list[int]:
        return sorted({*range(0, length - TILE + 1, step), length - TILE})

    return [(y, x) for y in along(height) for x in along(width)]


def _scaled(photo: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale == 1.0:
        return photo
    size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _save(tile: NDArray[np.uint8], path: Path) -> Path:
    cv2.imwrite(str(path), cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    return path
