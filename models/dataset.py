"""Labelled tiles: the manifest that lists them, the split that never cuts a photo in two, and the pixels."""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
TILE_COLUMNS = ("image", "group")
CONVERTED = ("sdnet", "damage", "quay", "scene")
"""The sources that models/sources converts, each with rules and a licence of its own."""
UNNAMED = "photos"
"""The source of groups that name none."""
CELLS = {"1": 1.0, "0": 0.0, "": np.nan}


class ManifestError(ValueError):
    """Data that cannot be used, with the file, the line if there is one, and what is wrong."""


@dataclass(frozen=True)
class Manifest:
    """Labelled tiles, in the order of the file.

    `labels` is float32[n, classes]: 1 present, 0 absent, NaN unknown. `groups` names what must never be split: a photo,
    a patch of wall, a structure. `images` are absolute paths.
    """

    classes: tuple[str, ...]
    images: tuple[Path, ...]
    groups: tuple[str, ...]
    labels: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sources(self) -> NDArray[np.str_]:
        """str[n]: where each tile comes from, as its group says."""
        return np.array([source_of(group) for group in self.groups], dtype=np.str_)

    def take(self, rows: NDArray[np.bool_]) -> Manifest:
        """The rows where the mask (bool[n]) is true, in the same order."""
        kept = np.flatnonzero(rows)
        return Manifest(
            self.classes, tuple(self.images[i] for i in kept), tuple(self.groups[i] for i in kept), self.labels[kept]
        )


def read_manifest(path: Path, classes: Sequence[str] | None = None) -> Manifest:
    """Read a CSV of `image,group,<class>...`, strictly; a class without a column is unknown everywhere.

    `classes` gives the order of the labels; None takes the columns of the file as they stand.

    Raises ManifestError, with the file and the line: a column of no class, a row of another length than the header, an
    image that is listed twice or does not exist, no group, a cell that is not 1, 0 or empty; a file without rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _parse(path, file, classes)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: not a manifest that can be read: {error}") from error


def _parse(path: Path, file: TextIO, classes: Sequence[str] | None) -> Manifest:
    reader = csv.reader(file)
    columns = next(reader, [])
    names = tuple(columns[2:] if classes is None else classes)
    _check_columns(path, columns, names)
    folder = path.resolve().parent
    lines: dict[Path, int] = {}
    groups: list[str] = []
    labels: list[list[float]] = []
    for row in reader:
        if not row:
            continue
        where = f"{path}:{reader.line_num}"
        if len(row) != len(columns):
            raise ManifestError(f"{where}: {len(row)} cells, but the header names {len(columns)} columns")
        cells = dict(zip(columns, row, strict=True))
        image = _image(where, folder, cells["image"])
        if image in lines:
            raise ManifestError(f"{where}: {cells['image']} is already listed in line {lines[image]}; keep one row")
        if not cells["group"].strip():
            raise ManifestError(f"{where}: no group; name the photo or structure that {cells['image']} comes from")
        lines[image] = reader.line_num
        groups.append(cells["group"].strip())
        labels.append([_cell(where, cells.get(name, "")) for name in names])
    if not groups:
        raise ManifestError(f"{path}: there is no row below the header")
    return Manifest(names, tuple(lines), tuple(groups), np.array(labels, np.float32).reshape(len(groups), len(names)))


def _check_columns(path: Path, columns: Sequence[str], classes: Sequence[str]) -> None:
    known = (*TILE_COLUMNS, *classes)
    if missing := [name for name in TILE_COLUMNS if name not in columns]:
        raise ManifestError(f"{path}:1: missing columns {missing}; a manifest begins with image,group,<class>,...")
    if tuple(columns[:2]) != TILE_COLUMNS and set(classes) & set(TILE_COLUMNS):
        raise ManifestError(f"{path}:1: the first two columns are image,group, not {','.join(columns[:2])}")
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ManifestError(f"{path}:1: columns named twice: {twice}")
    for name in columns:
        if name not in known:
            close = difflib.get_close_matches(name, classes, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; the classes are {', '.join(classes)}"
            raise ManifestError(f"{path}:1: column {name!r} is of no class{hint}")


def _image(where: str, folder: Path, text: str) -> Path:
    if not text:
        raise ManifestError(f"{where}: no image; give its path, relative to the manifest")
    image = Path(os.path.normpath(folder / text))
    if not image.is_file():
        raise ManifestError(f"{where}: the picture {text} does not exist (looked for {image})")
    return image


def _cell(where: str, text: str) -> float:
    try:
        return CELLS[text.strip()]
    except KeyError:
        raise ManifestError(f"{where}: a label is 1, 0 or empty, not {text!r}") from None


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the CSV that `read_manifest` reads; image paths become relative to the file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*TILE_COLUMNS, *manifest.classes])
        for image, group, row in zip(manifest.images, manifest.groups, manifest.labels, strict=True):
            writer.writerow([os.path.relpath(image, path.parent), group, *_texts(row)])


def _texts(labels: NDArray[np.float32]) -> list[str]:
    return ["" if np.isnan(value) else str(int(value)) for value in labels]


# What the hash of a name does not decide, and why. Everything here was fixed before anything was trained on it.
ASSIGNED: tuple[tuple[str, Part], ...] = (
    # One whole camera location of the quay is kept away from training.
    ("quay/h1/", "test"),
    # Few photos show bars or stains, and a hash would put all of them on one side: shared out by what they show.
    ("damage/10170", "test"),
    ("damage/10388", "test"),
    ("damage/10484", "test"),
    ("damage/10498", "test"),
    ("damage/10409", "validation"),
    ("damage/10611", "validation"),
    ("damage/", "train"),
    # Photos that overlap are few, large groups (sources/patches.py): without this no wall would be tested, no deck
    # validated.
    ("sdnet/walls/7072", "test"),
    ("sdnet/walls/7074", "test"),
    ("sdnet/decks/7013", "validation"),
)


@dataclass(frozen=True)
class Split:
    """Which part a group belongs to: the same answer on every machine, whatever else the manifest holds.

    `assigned` names prefixes of groups and where they go whatever the hash says; the first that fits counts. Shares are
    of the groups; what neither takes is for training. A smaller test share gives a subset of a larger one's test part.

    Raises ValueError for shares that are negative or together more than 1.
    """

    test_share: float = 0.13
    validation_share: float = 0.07
    salt: str = "spanwatch-4"
    assigned: tuple[tuple[str, Part], ...] = ASSIGNED

    def __post_init__(self) -> None:
        if min(self.test_share, self.validation_share) < 0 or self.test_share + self.validation_share > 1:
            raise ValueError(f"shares of {self.test_share} and {self.validation_share} are no parts of a whole")

    def part(self, group: str) -> Part:
        """Where the group belongs; its name alone decides."""
        for prefix, part in self.assigned:
            if group.startswith(prefix):
                return part
        place = _place(self.salt, group)
        if place < self.test_share:
            return "test"
        return "validation" if place < self.test_share + self.validation_share else "train"

    def apply(self, manifest: Manifest) -> dict[Part, Manifest]:
        """The three parts of a manifest; a part may be empty."""
        parts = np.array([self.part(group) for group in manifest.groups])
        return {part: manifest.take(parts == part) for part in PARTS}


def _place(salt: str, name: str) -> float:
    """Where a name falls between 0 and 1, evenly and always in the same place."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{name}".encode()).digest()[:8], "big") / 2.0**64


def source_of(group: str) -> str:
    """Where a group's tiles come from: its word before the slash; without one UNNAMED, since it is a photo's name.

    A converted source stays what it is without a slash too: its licence does.
    """
    first, slash, _ = group.partition("/")
    return first if slash or first in CONVERTED else UNNAMED


def folds(manifest: Manifest, k: int, salt: str = "spanwatch-folds") -> list[tuple[Manifest, Manifest]]:
    """Cross-validation: k pairs of (train, test), each group tested exactly once and never on both sides of a pair.

    The groups of one source that show the same classes are dealt out like cards, in the order of their hashes, so that
    every fold gets its share of the rare ones. Neither the order of the rows nor their number changes anything.

    Raises ValueError if there are fewer groups than folds, or fewer than two folds.
    """
    groups = np.array(manifest.groups)
    names = sorted(set(manifest.groups))
    if not 2 <= k <= len(names):
        raise ValueError(f"{k} folds of {len(names)} groups: there are at least 2 folds, and a group for each")

    def card(name: str) -> tuple[str, tuple[bool, ...], float]:
        shows = tuple(bool(shown) for shown in (manifest.labels[groups == name] == 1).any(axis=0))
        return source_of(name), shows, _place(salt, name)

    fold_of = {name: number % k for number, name in enumerate(sorted(names, key=card))}
    fold = np.array([fold_of[name] for name in manifest.groups])
    return [(manifest.take(fold != number), manifest.take(fold == number)) for number in range(k)]


def digest(manifest: Manifest) -> str:
    """SHA-256 of everything training sees, in hex: classes, and of each row the picture's bytes, group and labels.

    Where the pictures lie does not matter; their order does: it decides what a seeded run draws. Raises OSError.
    """
    whole = hashlib.sha256(json.dumps(manifest.classes).encode())
    for image, group, row in zip(manifest.images, manifest.groups, manifest.labels, strict=True):
        picture = hashlib.sha256(image.read_bytes()).hexdigest()
        whole.update(json.dumps([picture, group, *_texts(row)]).encode())
    return whole.hexdigest()


def digest_of(files: Sequence[Path]) -> str:
    """SHA-256 of the bytes of some files in their order, in hex. Raises OSError."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


@dataclass(frozen=True)
class Count:
    """How many tiles of one source show a class, do not, or are not labelled for it; and of how many groups."""

    source: str
    defect: str
    positives: int
    negatives: int
    unknown: int
    groups: int
    positive_groups: int


def counts(manifest: Manifest) -> Iterator[Count]:
    """One Count per source and class, sources in the order of their first tile."""
    groups = np.array(manifest.groups)
    sources = manifest.sources
    for source in dict.fromkeys(sources.tolist()):
        here = sources == source
        for name, labels in zip(manifest.classes, manifest.labels[here].T, strict=True):
            shown = labels == 1
            yield Count(
                source,
                name,
                positives=int(shown.sum()),
                negatives=int((labels == 0).sum()),
                unknown=int(np.isnan(labels).sum()),
                groups=len(set(groups[here])),
                positive_groups=len(set(groups[here][shown])),
            )


def read_tile(path: Path, size: int | None = None) -> NDArray[np.uint8]:
    """One picture as uint8 RGB [H, W, 3], made `size` x `size` px if given.

    Raises ManifestError for what cannot be read whole: a JPEG that ends early is refused, not filled with grey.
    """
    try:
        picture = _decode(path.read_bytes())
    except (OSError, ValueError, cv2.error) as error:
        raise ManifestError(f"{path}: not a picture that can be read: {error}") from error
    if size is not None and picture.shape[:2] != (size, size):
        shrinks = picture.shape[0] * picture.shape[1] > size * size
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, (size, size), interpolation=way), dtype=np.uint8)
    return np.ascontiguousarray(picture)


def _decode(data: bytes) -> NDArray[np.uint8]:
    if data[:3] == b"\xff\xd8\xff":
        picture = simplejpeg.decode_jpeg(data, "RGB", strict=True)
        if b"Exif" not in data[:64]:
            return np.asarray(picture, dtype=np.uint8)
    # OpenCV knows the other formats, and turns a JPEG as its EXIF says.
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if found is None:
        raise ValueError("unknown format, or damaged")
    return np.asarray(found, dtype=np.uint8)
