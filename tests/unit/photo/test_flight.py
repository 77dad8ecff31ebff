"""The sample flight is what its README says: photos the model has not learned from, with truth and credits."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from models.dataset import Split
from stream.photo.header import read_header

DATA = Path(__file__).parents[2] / "data"
PHOTOS = sorted((DATA / "flight").iterdir())


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.name)
def test_every_file_is_a_photo_with_credits(path: Path) -> None:
    assert read_header(path.read_bytes(), max_pixels=10**8).width >= 1080
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert path.name in readme or path.stem.removeprefix("damage") in readme


def test_truth_covers_the_grid_of_both_assembled_photos() -> None:
    with (DATA / "truth.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cells = {(row["photo"], int(row["row"]), int(row["col"])) for row in rows}
    names = ("deck-7036.jpg", "wall-7072.jpg")
    assert cells == {(name, row, col) for name in names for row in range(14) for col in range(18)}
    assert len(rows) == len(cells)
    cracked = {name: sum(row["crack"] == "1" for row in rows if row["photo"] == name) for name in names}
    assert cracked == {"deck-7036.jpg": 41, "wall-7072.jpg": 75}


def test_the_model_does_not_learn_from_the_concrete_in_it() -> None:
    groups = ["sdnet/decks/7036", "sdnet/walls/7072", *(f"damage/{n}" for n in ("10170", "10388", "10484", "10498"))]
    assert {Split().part(group) for group in groups} == {"test"}


def test_it_stays_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 25 * 1024 * 1024
