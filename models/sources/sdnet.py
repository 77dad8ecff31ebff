"""SDNET2018: tiles of handheld photos of decks, walls and pavements, each looked at for cracks and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.dataset import ManifestError
from models.sources.cutting import Labelled
from models.sources.patches import patch_of

VERDICTS = {"cracked": 1, "clean": 0}


def tiles(folder: Path) -> Iterator[Labelled]:
    """Tiles lie as `<kind>/<clean|cracked>/<photo>-<n>.jpg`; every class but crack is unknown.

    A group is a photo, or all photos that overlap: these may lie in both sdnet and sdnet_more, and count as sdnet.
    Raises ManifestError for a folder that is neither clean nor cracked.
    """
    for image in sorted(folder.glob("*/*/*.jpg")):
        kind, verdict = image.parts[-3:-1]
        if verdict not in VERDICTS:
            raise ManifestError(f"{image}: tiles lie in folders named cracked or clean, not {verdict!r}")
        photo = image.stem.rpartition("-")[0] or image.stem
        patch = patch_of(kind, photo)
        group = f"sdnet/{kind}/{patch}" if patch else f"{folder.name}/{kind}/{photo}"
        yield Labelled(image, group, {"crack": VERDICTS[verdict]})
