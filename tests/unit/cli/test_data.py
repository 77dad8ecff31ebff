"""`spanwatch data` makes, counts and splits manifests, and says what is wrong with one in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from models.dataset import read_manifest
from stream.cli.app import app

TAXONOMY = str(Path(__file__).parents[3] / "configs" / "taxonomy.toml")
runner = CliRunner()


def grain(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Thirty photos of two tiles each; the first tile of 8001 is the first tile of 8000 again."""
    for photo in range(8000, 8030):
        grain(tmp_path / f"data/sdnet/decks/clean/{photo}-1.jpg", 8000 if photo == 8001 else photo)
        grain(tmp_path / f"data/sdnet/decks/cracked/{photo}-2.jpg", photo + 100)
    return tmp_path / "data"


def lines(*arguments: str) -> list[dict[str, Any]]:
    done = runner.invoke(app, ["data", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_converting_counts_and_names_the_copies(data: Path, tmp_path: Path) -> None:
    (done,) = lines("convert", str(data), "--out", str(tmp_path / "out"), "--taxonomy", TAXONOMY)
    assert done["tiles"] == 60 and done["groups"] == 29
    (copy,) = done["duplicates"]
    assert [Path(copy[name]).name for name in ("first", "second")] == ["8000-1.jpg", "8001-1.jpg"]
    crack = done["counts"][0]
    assert {key: crack[key] for key in ("source", "defect", "positives", "negatives", "unknown")} == {
        "source": "sdnet",
        "defect": "crack",
        "positives": 30,
        "negatives": 30,
        "unknown": 0,
    }
    assert lines("stats", done["manifest"])[0]["counts"] == done["counts"]


def test_the_parts_together_are_the_whole_and_read_from_where_they_were_written(data: Path, tmp_path: Path) -> None:
    (done,) = lines("convert", str(data), "--out", str(tmp_path / "out"), "--taxonomy", TAXONOMY)
    parts = lines("split", done["manifest"], "--out", str(tmp_path / "other/place"))
    assert [part["part"] for part in parts] == ["train", "validation", "test"]
    assert sum(part["tiles"] for part in parts) == 60
    train = read_manifest(tmp_path / "other/place/train.csv")
    assert len(train) == parts[0]["tiles"] and all(image.is_relative_to(data.resolve()) for image in train.images)


def test_a_person_gets_tables(data: Path, tmp_path: Path) -> None:
    arguments = ["convert", str(data), "--out", str(tmp_path / "out"), "--taxonomy", TAXONOMY]
    shown = runner.invoke(app, ["data", *arguments]).output
    assert "same picture, one group: 8000-1.jpg and 8001-1.jpg" in " ".join(shown.split())
    manifest = str(tmp_path / "out/manifest.csv")
    assert "60 tiles of 29 groups" in runner.invoke(app, ["data", "stats", manifest]).output
    shown = runner.invoke(app, ["data", "split", manifest, "--out", str(tmp_path / "parts")]).output
    assert "corrosion_stain" in shown and "validation" in shown


def test_labels_that_no_class_is_named_after_are_not_lost_in_silence(data: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "taxonomy.toml"
    wrong.write_text(Path(TAXONOMY).read_text().replace('"crack"', '"crakc"'))
    arguments = ["convert", str(data), "--out", str(tmp_path / "out"), "--taxonomy", str(wrong)]
    done = runner.invoke(app, ["data", *arguments])
    said = " ".join(done.stderr.split())
    assert "left out: labels of crack, which is no class of" in said and "mean it by crakc?" in said
    assert lines(*arguments)[0]["dropped"] == ["crack"]


def test_a_preview_is_a_picture(tmp_path: Path) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    done = runner.invoke(app, ["data", "preview", "--out", str(sheet), "--count", "3", "--taxonomy", TAXONOMY])
    assert done.exit_code == 0, done.output
    assert cv2.imread(str(sheet)).shape[1] > 2 * 256


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["stats", "@/nowhere.csv"], "nowhere.csv: not a manifest that can be read"),
        (["split", "@/wrong.csv", "--out", "@/parts"], "wrong.csv:2: a label is 1, 0 or empty, not 'yes'"),
        (["convert", "@/empty", "--out", "@/out", "--taxonomy", TAXONOMY], "empty: no tiles in it"),
        (["convert", "@/empty", "--out", "@/out", "--taxonomy", "@/no.toml"], "no.toml: name one with --taxonomy"),
        (["convert", "@/empty", "--out", "@/out", "--taxonomy", "@/wrong.csv"], "wrong.csv"),
        (["preview", "--data", "@/empty", "--out", "@/a.png"], "index.csv is missing"),
        (["preview", "--out", "@/sheet"], "sheet names no picture: let it end in .png, .jpg"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    grain(tmp_path / "a.jpg", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.csv").write_text("image,group,crack\na.jpg,p,yes\n")
    done = runner.invoke(app, ["data", *(one.replace("@", str(tmp_path)) for one in arguments)])
    assert done.exit_code == 2 and complaint in " ".join(done.output.split())
