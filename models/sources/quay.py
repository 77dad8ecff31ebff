"""Drone tiles of harbour quays, with YOLO boxes round the cracks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from models.dataset import ManifestError, read_tile
from models.sources.cutting import Labelled
from models.sources.labels import Box, Visible, labels_of_boxes
from models.sources.patches import patch_of

NAMES = ("crack",)
"""Class numbers of the box files, in order."""


def tiles(folder: Path, rules: Mapping[str, Visible]) -> Iterator[Labelled]:
    """Tiles lie as `<place>/<frame>_<row>_<column>.jpg` with a box file beside them; overlapping frames are a group.

    A tile without boxes says nothing: the source holds only tiles with cracks, so its boxes are missing, not its crack.
    Raises ManifestError for a box file that cannot be understood.
    """
    for image in sorted(folder.glob("*/*.jpg")):
        boxes = image.with_suffix(".txt")
        if boxes.exists() and boxes.read_text(encoding="utf-8").strip():
            height, width = read_tile(image).shape[:2]
            frame = re.sub(r"_\d+_\d+$", "", image.stem)
            place = image.parent.name
            labels = labels_of_boxes(read_yolo(boxes, NAMES, (height, width)), rules, (height, width))
            yield Labelled(image, f"quay/{place}/{patch_of(place, frame) or frame}", labels)


def read_yolo(path: Path, names: tuple[str, ...], size: tuple[int, int]) -> dict[str, list[Box]]:
    """Class -> boxes in px of a picture of `size` (height, width), from lines `number x y width height`.

    The centre and the sides are shares of the picture (the text format of the YOLO family). Raises ManifestError with
    the line that is wrong.
    """
    found: dict[str, list[Box]] = {name: [] for name in names}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            name, box = _box(f"{path}:{number}", line.split(), names, size)
            found[name].append(box)
    return found


def _box(where: str, words: list[str], names: tuple[str, ...], size: tuple[int, int]) -> tuple[str, Box]:
    try:
        name = dict(enumerate(names))[int(words[0])]
        x, y, width, height = (float(word) for word in words[1:])
    except (ValueError, KeyError):
        numbers = f"0 to {len(names) - 1}" if len(names) > 1 else "0"
        raise ManifestError(f"{where}: a box is `class x y width height`, class {numbers}, not {words}") from None
    if not (0 <= x <= 1 and 0 <= y <= 1 and 0 < width <= 1 and 0 < height <= 1):
        raise ManifestError(f"{where}: centre and sides of a box are shares of the picture, between 0 and 1")
    right, bottom = x + width / 2, y + height / 2
    return name, Box((right - width) * size[1], (bottom - height) * size[0], right * size[1], bottom * size[0])
