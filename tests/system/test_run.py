"""`spanwatch run`: photos in, files that people open out; a second call finds everything answered."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stream.messages import DeadFrame, Result, decode
from tests import badphotos

ROOT = Path(__file__).parents[2]


def spanwatch_run(folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream", "run", *map(str, options)]
    return subprocess.run(command, cwd=folder, env=None, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.slow
def test_a_run_writes_results_dead_frames_overlays_geojson_and_a_report(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for photo in sorted((ROOT / "tests/data/flight").glob("damage-*.jpg"))[:2]:
        shutil.copy(photo, photos)
    (photos / "cut.jpg").write_bytes(badphotos.truncated_jpeg())
    (photos / "notes.txt").write_bytes(badphotos.text())
    before = {path.name: path.read_bytes() for path in photos.iterdir()}

    done = spanwatch_run(ROOT, photos, "--out", out, "--asset", "pier", "--json")
    assert done.returncode == 3, done.stderr  # done, but some are dead or refused
    told = json.loads(done.stdout)
    assert (told["results"], told["dead"], len(told["refused"])) == (2, 1, 1)
    results = [decode(line, Result) for line in (out / "results.jsonl").read_bytes().splitlines()]
    (dead,) = [decode(line, DeadFrame) for line in (out / "dead.jsonl").read_bytes().splitlines()]
    assert {result.frame.asset for result in results} == {"pier"} and dead.reason == "truncated"
    assert json.loads((out / "findings.geojson").read_text())["type"] == "FeatureCollection"
    report = (out / "report.html").read_text()
    with_findings = [result for result in results if result.regions]
    assert with_findings and len(list((out / "overlays").glob("*.jpg"))) == len(with_findings)
    assert all(path.name in report for path in (out / "overlays").glob("*.jpg")) and "cut.jpg" in report
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before  # no photo is touched

    again = spanwatch_run(ROOT, photos, "--out", out, "--asset", "pier", "--json")
    assert again.returncode == 3, again.stderr
    assert [decode(line, Result) for line in (out / "results.jsonl").read_bytes().splitlines()] == results


@pytest.mark.slow
def test_a_run_without_photos_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = spanwatch_run(ROOT, tmp_path / "empty", "--out", tmp_path / "out")
    assert done.returncode == 2 and "no photos there" in done.stderr and "Traceback" not in done.stderr
