"""No command speaks to another machine, unless its transport is one: every command is used once, and watched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.test_commands import LEAVES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
NEED_TORCH = {"pretrain", "train"}
"""tests/learn/test_course.py watches these two in the same way."""


def watched(folder: Path, *command: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run Python in a process that may speak to nobody; what it said, and to whom it or its children tried to speak."""
    (folder / "keys").mkdir(parents=True)
    log = folder / "connections"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPANWATCH_")}
    settings = {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "watched"), str(ROOT)]),
        "CONNECTIONS_LOG": str(log),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_STATE_HOME": str(folder / "state"),
        "SPANWATCH_TRANSPORT": f"local:{folder / 'log'}",
        "SPANWATCH_ENGINE__STORE": str(folder / "store"),
        "SPANWATCH_ENGINE__TRUSTED_KEYS": str(folder / "keys"),
        "SPANWATCH_ENGINE__PRECISION": "f32",  # measuring is what the engine commands do
        "SPANWATCH_METRICS__WORKER_PORT": "0",
        "SPANWATCH_METRICS__FINDINGS_PORT": "0",
    }
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=ROOT, env={**clean, **settings}
    )
    return done, log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_no_command_speaks_to_another_machine(tmp_path: Path) -> None:
    done, spoken_to = watched(tmp_path / "box", "-m", "tests.system.every_command", str(tmp_path / "box"))
    assert spoken_to == [], done.stderr
    assert done.returncode == 0, done.stderr
    used = set(json.loads(done.stdout.splitlines()[-1]))
    assert used | NEED_TORCH == {" ".join(leaf) for leaf in LEAVES}


def test_the_watch_sees_a_command_that_does_speak(tmp_path: Path) -> None:
    topics = ("-m", "stream", "topics", "describe", "--transport", "kafka://192.0.2.1:9092")
    done, spoken_to = watched(tmp_path / "box", *topics)
    assert done.returncode != 0
    assert any("192.0.2.1" in line for line in spoken_to)
