"""`spanwatch evaluate` judges the shipped release on real tiles, and refuses a manifest before it starts an engine."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from stream.cli.app import app

ROOT = Path(__file__).parents[2]
FLIGHT = ROOT / "tests/data/flight"
PHOTOS = ("damage-10170.jpg", "damage-10388.jpg", "damage-10484.jpg", "wall-7072.jpg", "deck-7036.jpg")


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def cut(folder: Path, sides: tuple[int, ...] = (256,)) -> list[dict[str, str]]:
    """Four tiles of each of five photos; close-ups of damage show spalling, the deck and the wall do not."""
    rows = []
    for photo in PHOTOS:
        pixels = cv2.imread(str(FLIGHT / photo))
        for number in range(4):
            side = sides[number % len(sides)]
            name = f"{Path(photo).stem}-{number}.jpg"
            corner = 200 + number // 2 * 256, 200 + number % 2 * 256
            tile = pixels[corner[0] : corner[0] + 256, corner[1] : corner[1] + 256]
            cv2.imwrite(str(folder / name), cv2.resize(tile, (side, side)))
            spalled = "1" if photo.startswith("damage") else "0"
            crack = "" if photo.startswith("damage") else "0"
            rows.append({"image": name, "group": photo, "crack": crack, "spalling": spalled, "algae": "0"})
    return rows


@pytest.mark.slow
def test_the_shipped_release_is_judged_on_tiles_of_several_sizes(tmp_path: Path) -> None:
    manifest = write(tmp_path / "test.csv", cut(tmp_path, (256, 300, 200, 256)))
    command = [sys.executable, "-m", "stream", "evaluate", str(manifest), "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar for a program
    told = json.loads(done.stdout)
    spalling, crack = told["classes"]["spalling"], told["classes"]["crack"]
    assert (spalling["positives"], spalling["negatives"], spalling["groups"]) == (12, 8, 5)
    low, high = spalling["auroc_interval"]
    assert 0.7 < low <= spalling["auroc"] <= high <= 1.0
    assert spalling["recall"] > 0.5 and spalling["review"]["recall"] >= spalling["recall"]
    assert (crack["positives"], crack["negatives"], crack["auroc"], crack["recall"]) == (0, 8, None, None)
    rebar = told["classes"]["exposed_rebar"]  # the manifest has no column for it
    assert (rebar["positives"], rebar["negatives"], rebar["unknown"], rebar["ap"]) == (0, 0, 20, None)
    assert told["macro"]["classes"] == 1 and told["macro"]["auroc"] == spalling["auroc"]
    assert told["release"] and told["precision"] == "f32" and told["clean"]["review_tiles"]["of"] == 8
    assert json.loads((tmp_path / "out/evaluation.json").read_text()) == told
    assert "Worst mistakes" in (tmp_path / "out/evaluation.html").read_text(encoding="utf-8")


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["evaluate", *arguments])
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return " ".join(done.output.split())


def test_a_manifest_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path) -> None:
    rows = cut(tmp_path)
    assert "nowhere.csv" in refused(str(tmp_path / "nowhere.csv"))
    assert "rust" in refused(str(write(tmp_path / "column.csv", [{**rows[0], "rust": "1"}])))
    missing = write(tmp_path / "missing.csv", [*rows, {**rows[0], "image": "gone.jpg"}])
    assert "gone.jpg" in refused(str(missing))
    (tmp_path / "notes.jpg").write_text("not a picture")
    unreadable = write(tmp_path / "unreadable.csv", [*rows, {**rows[0], "image": "notes.jpg"}])
    assert "notes.jpg" in refused(str(unreadable))


def test_a_release_or_a_precision_that_is_not_there_is_refused(tmp_path: Path) -> None:
    manifest = str(write(tmp_path / "test.csv", cut(tmp_path)[:2]))
    assert "no-such-release" in refused(manifest, "--release", "no-such-release")
    assert "f64" in refused(manifest, "--precision", "f64")
    assert "test.csv" in refused(manifest, "--out", manifest)
