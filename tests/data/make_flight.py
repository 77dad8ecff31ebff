"""Make the sample flight again: `python tests/data/make_flight.py --source DIR`, with the data sets README.md names.

The photos are those that `models.dataset.Split` keeps for testing, so the shipped model has not learned from them; the
two exceptions are said in README.md. Whole photos are put together from their tiles, which changes them: they are
encoded again at quality 95 and say so in their EXIF.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base

HERE = Path(__file__).parent
COLS = 18
TILE_PX = 256
QUALITY = 95
ASSEMBLED = {"deck-7036.jpg": ("decks", "7036"), "wall-7072.jpg": ("walls", "7072")}
COPIED = {
    "DJI_0025.JPG": "drone_frames/brighton/DJI_0025.JPG",
    "DJI_0026.JPG": "drone_frames/brighton/DJI_0026.JPG",
    "IMG_9391.jpg": "drone_frames/caliterra/IMG_9391.jpg",
    "damage-10170.jpg": "concrete_damage/images/10170.jpg",
    "damage-10388.jpg": "concrete_damage/images/10388.jpg",
    "damage-10484.jpg": "concrete_damage/images/10484.jpg",
    "damage-10498.jpg": "concrete_damage/images/10498.jpg",
}
LICENCES = {
    "brighton-LICENSE": "drone_frames/brighton/LICENSE",
    "caliterra-license.html": "drone_frames/caliterra/license.html",
}


def assemble(folder: Path, photo: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One photo from its tiles, uint8 [H, W, 3], and which cells of its 18-column grid are cracked, bool [rows, 18]."""
    tiles: dict[int, tuple[Path, bool]] = {}
    for verdict in ("cracked", "clean"):
        for path in (folder / verdict).glob(f"{photo}-*.jpg"):
            tiles[int(path.stem.split("-")[1])] = (path, verdict == "cracked")
    rows, rest = divmod(len(tiles), COLS)
    if not tiles or rest or sorted(tiles) != list(range(1, len(tiles) + 1)):
        raise SystemExit(f"{folder}: the tiles of photo {photo} are not a whole grid of {COLS} columns")
    picture = np.empty((rows * TILE_PX, COLS * TILE_PX, 3), dtype=np.uint8)
    cracked = np.empty((rows, COLS), dtype=np.bool_)
    for number, (path, has_crack) in tiles.items():
        row, col = divmod(number - 1, COLS)
        with Image.open(path) as tile:
            pixels = np.asarray(tile.convert("RGB"))
        picture[row * TILE_PX : (row + 1) * TILE_PX, col * TILE_PX : (col + 1) * TILE_PX] = pixels
        cracked[row, col] = has_crack
    return picture, cracked


def description(kind: str, photo: str) -> Image.Exif:
    exif = Image.Exif()
    exif[Base.ImageDescription] = (
        f"SDNET2018 {kind} photo {photo}, put together from its {TILE_PX} px tiles, encoded again at quality {QUALITY}"
    )
    exif[Base.Copyright] = "Maguire, Dorafshan, Thomas, Utah State University 2018, CC BY 4.0, doi 10.15142/T3TD19"
    return exif


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source", type=Path, required=True, help="folder with sdnet, drone_frames and concrete_damage"
    )
    source: Path = parser.parse_args().source
    flight, licences = HERE / "flight", HERE / "licences"
    flight.mkdir(exist_ok=True)
    licences.mkdir(exist_ok=True)
    with (HERE / "truth.csv").open("w", newline="", encoding="utf-8") as file:
        truth = csv.writer(file, lineterminator="\n")
        truth.writerow(["photo", "row", "col", "crack"])
        for name, (kind, photo) in ASSEMBLED.items():
            picture, cracked = assemble(source / "sdnet" / kind, photo)
            Image.fromarray(picture).save(flight / name, quality=QUALITY, exif=description(kind, photo))
            truth.writerows([name, row, col, int(has_crack)] for (row, col), has_crack in np.ndenumerate(cracked))
    for target, origin in COPIED.items():
        shutil.copyfile(source / origin, flight / target)
    for target, origin in LICENCES.items():
        shutil.copyfile(source / origin, licences / target)


if __name__ == "__main__":
    main()
