"""`spanwatch run`: photos in, files that people open out; a second call finds everything answered."""

from __future__ import annotations

import json
import shutil
import signal
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


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["photos", "--out", "out", "--config", "none.toml"], "cannot read the configuration none.toml"),
        (["[/b] there", "--out", "out"], "no such file or folder: [/b] there"),
        (["photos", "--out", "photos/out"], "photos/out lies in photos: what is written there would be read as photos"),
        (["overlays", "--out", "."], "overlays holds what a run into . draws, not photos"),
        (["photos", "--out", "file/out"], "cannot write to file/out: Not a directory"),
    ],
)
def test_what_a_run_cannot_do_is_said_before_it_begins(tmp_path: Path, options: list[str], complaint: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "overlays").mkdir()
    (tmp_path / "file").touch()
    done = spanwatch_run(tmp_path, *options)
    assert done.returncode == 2 and complaint in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"file", "overlays", "photos"}


@pytest.mark.slow
def test_settings_that_no_tile_can_have_blame_no_photo(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(ROOT / "tests/data/flight/damage-10170.jpg", tmp_path / "photos/[draft] :100: 1.jpg")
    (tmp_path / "one.toml").write_text("[worker]\noverlap_px = 256\n")
    for _ in range(4):  # a frame that is open in three crashes would be dead
        done = spanwatch_run(tmp_path, "photos", "--out", "out", "--config", "one.toml")
        assert done.returncode == 2 and "worker.overlap_px is less than the side of a tile, 256 px" in done.stderr
    done = spanwatch_run(tmp_path, "photos", "--out", "out")
    assert done.returncode == 0 and "[draft]" in done.stdout and ":100:" in done.stdout


def test_a_run_that_is_told_to_stop_says_so_and_ends_with_1(tmp_path: Path) -> None:
    folder = ROOT / "tests/data/flight"
    command = [sys.executable, "-m", "stream", "run", str(folder), "--out", str(tmp_path / "out"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while not list((tmp_path / "out").glob("overlays/*")) and process.poll() is None:
            pass
        process.send_signal(signal.SIGTERM)
        told = json.loads(process.communicate(timeout=120)[0])
    assert process.returncode == 1 and told["stopped"] is True
