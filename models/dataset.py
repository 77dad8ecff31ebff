"""Labelled tiles: the manifest that lists them, the split that never cuts a photo in two, and the pixels."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


class ManifestError(ValueError):
    """A manifest that cannot be used, with the file and the line that is wrong."""


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

    def take(self, rows: NDArray[np.bool_]) -> Manifest:
        """The rows where the mask is true, in the same order."""
        kept = np.flatnonzero(rows)
        return Manifest(
            self.classes, tuple(self.images[i] for i in kept), tuple(self.groups[i] for i in kept), self.labels[kept]
        )


def read_manifest(path: Path, classes: Sequence[str]) -> Manifest:
    """Read a CSV of `image,group,<class>...`; a class without a column is unknown everywhere.

    Raises ManifestError for a column that is neither, and for a cell that is not 1, 0 or empty.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = tuple(reader.fieldnames or ())
        missing = {"image", "group"} - set(columns)
        strange = set(columns) - {"image", "group", *classes}
        if missing or strange:
            raise ManifestError(f"{path}: missing columns {sorted(missing)}, columns of no class {sorted(strange)}")
        images, groups, labels = [], [], []
        for row in reader:
            images.append(path.parent / row["image"])
            groups.append(row["group"])
            labels.append([_cell(row.get(name), path, reader.line_num) for name in classes])
    table = np.array(labels, dtype=np.float32).reshape(len(images), len(classes))
    return Manifest(tuple(classes), tuple(images), tuple(groups), table)


def _cell(text: str | None, path: Path, line: int) -> float:
    try:
        return {"1": 1.0, "0": 0.0, "": np.nan}[(text or "").strip()]
    except KeyError:
        raise ManifestError(f"{path}:{line}: a label is 1, 0 or empty, not {text!r}") from None


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the CSV that `read_manifest` reads; image paths become relative to the file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "group", *manifest.classes])
        for image, group, row in zip(manifest.images, manifest.groups, manifest.labels, strict=True):
            cells = ["" if np.isnan(value) else str(int(value)) for value in row]
            writer.writerow([os.path.relpath(image, path.parent), group, *cells])


# Few photos show bars or stains, and a hash would put all of them on one side: these were shared out by hand, by what
# they show and before anything was trained. The quay keeps one whole camera location (h1) away from training.
ASSIGNED: tuple[tuple[str, Part], ...] = (
    ("quay/h1/", "test"),
    ("damage/10170", "test"),
    ("damage/10388", "test"),
    ("damage/10484", "test"),
    ("damage/10498", "test"),
    ("damage/10409", "validation"),
    ("damage/10611", "validation"),
    ("damage/", "train"),
)


@dataclass(frozen=True)
class Split:
    """Which part a group belongs to: the same answer on every machine, whatever else the manifest holds.

    `assigned` names prefixes of groups and where they go whatever the hash says; the first that fits counts.
    """

    test_share: float = 0.2
    validation_share: float = 0.1
    salt: str = "spanwatch-4"
    assigned: tuple[tuple[str, Part], ...] = ASSIGNED

    def part(self, group: str) -> Part:
        """Where the group belongs; its name alone decides."""
        for prefix, part in self.assigned:
            if group.startswith(prefix):
                return part
        digest = hashlib.sha256(f"{self.salt}:{group}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2.0**64
        if place < self.test_share:
            return "test"
        return "validation" if place < self.test_share + self.validation_share else "train"

    def apply(self, manifest: Manifest) -> dict[Part, Manifest]:
        """The three parts of a manifest."""
        parts = np.array([self.part(group) for group in manifest.groups])
        return {part: manifest.take(parts == part) for part in PARTS}


def read_tile(path: Path, size: int | None = None) -> NDArray[np.uint8]:
    """One picture as uint8 RGB [H, W, 3], made `size` x `size` px if given; raises ManifestError if unreadable."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise ManifestError(f"{path}: not a picture that can be read")
    if size is not None and picture.shape[:2] != (size, size):
        shrinks = picture.shape[0] > size
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.ascontiguousarray(picture, dtype=np.uint8)
