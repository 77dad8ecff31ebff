"""A day on a box with every command of spanwatch: `python -m tests.system.every_command FOLDER` says which it used."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from typer.testing import CliRunner

from stream.cli.app import app

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
PHOTOS = ("damage-10388.jpg", "damage-10170.jpg")
QUICK = ("--threads", "1", "--rounds", "1", "--seconds", "0")
runner = CliRunner()


class Day:
    """One box: its settings are in the environment, what it keeps in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used = ["site", "worker", "findings"]  # the site is the two roles as processes of its own
        self.card = folder / "card"
        self.card.mkdir()
        for name in PHOTOS:
            (self.card / name).symlink_to(DATA / "flight" / name)
        (self.card / "torn.jpg").write_bytes((DATA / "flight" / PHOTOS[0]).read_bytes()[:5000])

    def __call__(self, command: str, *words: str | Path, refused: bool = False) -> list[dict[str, Any]]:
        """Run a command; what it says, where it says it as JSON."""
        done = runner.invoke(app, [*command.removesuffix(" photos").split(), *map(str, words)])
        assert done.exit_code == (2 if refused else 0), f"{command}: {done.output}{done.exception!r}"
        self.used.append(command)
        return [json.loads(line) for line in done.stdout.splitlines()] if "--json" in words else []

    def line(self) -> None:
        """One photo without a line; photos in; a site that answers them; what people do with the answers."""
        self("run", self.card / PHOTOS[1], "--out", self.folder / "out")
        self("upload photos", self.card, "--asset", "bridge", "--flight", "f1", "--outbox", self.folder / "outbox")
        site = subprocess.Popen([sys.executable, "-m", "stream", "site"], stderr=subprocess.PIPE)
        try:
            alert = self._first_alert()
        finally:
            site.send_signal(signal.SIGTERM)
            _, said = site.communicate()
        assert site.returncode == 0, said.decode()
        self("results", "--json")
        self("alerts show", alert, "--json")
        for verdict in ("ack", "confirm", "reopen", "dismiss"):
            self(f"alerts {verdict}", alert, "--who", "me", "--why", "seen")
        (dead,) = self("dead list", "--json")
        self("dead show", dead["frame_id"])
        self("dead retry", dead["frame_id"])
        self("upload correct", "f1", "--asset", "other bridge", "--outbox", self.folder / "outbox")
        self("gc", "--dry-run", "--json")
        self("doctor", "--json")
        for command in ("create", "describe", "acls"):
            self(f"topics {command}", refused=True)  # an embedded log has none to make

    def _first_alert(self) -> str:
        """Wait until a photo has become an alert, and every photo has its answer."""
        follow = ["--follow", "--json"]
        with subprocess.Popen([sys.executable, "-m", "stream", "alerts", *follow], stdout=subprocess.PIPE) as alerts:
            assert alerts.stdout is not None
            first = json.loads(alerts.stdout.readline())["alert_id"]
            alerts.kill()
        with subprocess.Popen([sys.executable, "-m", "stream", "results", *follow], stdout=subprocess.PIPE) as results:
            assert results.stdout is not None
            for _ in PHOTOS:
                results.stdout.readline()
            results.kill()
        return str(first)

    def releases(self) -> None:
        """A model made elsewhere comes, runs, is measured, leaves."""
        foreign = DATA / "foreign"
        made_elsewhere = ("--onnx", foreign / "small.onnx", "--taxonomy", foreign / "taxonomy.toml", "--id", "small.1")
        self("release import", *made_elsewhere)
        self("release list", "--json")
        self("release show", "small.1")
        self("release verify", "small.1")
        self("release export", "small.1", self.folder / "small.tar")
        self("release promote", "small.1")
        self("engine build", *QUICK, "--json")
        self("engine check", "--threads", "1", "--json")
        self("engine bench", *QUICK, "--only", "openvino f32", "--batch", "4", "--json")
        self("release rollback")

    def data(self) -> None:
        """Pictures become a manifest, and a release is judged on it."""
        random = np.random.default_rng(1)
        for number in range(8000, 8012):
            path = self.folder / f"data/sdnet/decks/{('clean', 'cracked')[number % 2]}/{number}-1.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), random.integers(0, 255, (256, 256, 3), dtype=np.uint8))
        made = self.folder / "made"
        self("data convert", self.folder / "data", "--out", made)
        self("data stats", made / "manifest.csv")
        self("data split", made / "manifest.csv", "--out", made)
        self("data preview", "--out", self.folder / "sheet.png")
        self("evaluate", made / "manifest.csv", "--out", self.folder / "page")

    def benchmarks(self) -> None:
        """Each benchmark in a run as small as it gets."""
        saved = self.folder / "saved"
        self("bench ingest", "--photos", self.card, "--frames", "1", "--repeats", "1", "--save", saved)
        small = ("--release", "small.1", "--precision", "f32")
        large = self.folder / "large"  # enough tiles for one call of the engine
        large.mkdir()
        (large / "deck.jpg").symlink_to(DATA / "flight" / "deck-7036.jpg")
        once = ("--frames", "1", "--repeats", "1", "--no-search")
        self("bench pipeline", *small, "--photos", large, *once, "--save", saved)
        latency = ("--burst", "2", "--unloaded", "1", "--seconds", "0.1", "--repeats", "1", "--loads", "30")
        self("bench latency", *small, "--photos", self.card, "--only", "damage-10388*", *latency)
        self("bench memory", *small, "--photos", self.card, "--only", "damage-10388*", "--large", "1", "--many", "8")
        readme = self.folder / "README.md"
        readme.write_text((ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
        self("bench report", "--results", saved, "--readme", readme)


def main(folder: Path) -> None:
    day = Day(folder)
    day.line()
    day.releases()
    day.data()
    day.benchmarks()
    sys.stdout.write(json.dumps(day.used))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
