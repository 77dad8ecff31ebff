"""`spanwatch engine` shows what runs here and why, in words and as JSON, and asks nobody on the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.report import load, with_tables
from stream.cli.app import app
from tests.unit.models.few_tiles import store_with_few_tiles

ROOT = Path(__file__).parents[3]

ALL_COMMANDS = """
import socket, sys
def refuse(self, address, *rest):
    sys.exit(f"connected to {address}")
socket.socket.connect = socket.socket.connect_ex = refuse
from stream.cli.app import app
quick = ["--rounds", "1", "--seconds", "0", "--json"]
for words in (
    ["build", *quick],
    ["check", "--json"],
    ["bench", "--only", "openvino f32", "--batch", "4", "--save", sys.argv[1], *quick],
):
    app(["engine", *words], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, object]], Path]:
    """What the three commands say, one after the other in a process that may not connect to anything."""
    folder = tmp_path_factory.mktemp("engine")
    done = subprocess.run(
        [sys.executable, "-c", ALL_COMMANDS, str(folder / "results")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(folder), **store_with_few_tiles(folder)},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], folder


def test_build_measures_and_check_and_the_workers_use_what_it_found(
    said: tuple[list[dict[str, object]], Path],
) -> None:
    (built, checked, _), folder = said
    assert {"engine": built["engine"], "precision": built["precision"]} == checked["in_use"]
    assert (folder / "spanwatch" / "engines.json").exists()
    results = checked["results"]
    assert isinstance(results, list)
    assert {one["precision"] for one in results if one["engine"] == "openvino"} == {"f32", "bf16", "int8"}
    assert [one["passed"] for one in results if (one["engine"], one["precision"]) == ("openvino", "f32")] == [True]


def test_bench_gives_a_program_what_it_compares_and_the_readme_its_table(
    said: tuple[list[dict[str, object]], Path],
) -> None:
    (_, _, measured), folder = said
    (result,) = measured["results"]  # type: ignore[misc, attr-defined]
    assert (result["engine"], result["precision"], result["batch"], result["passed"]) == ("openvino", "f32", 4, True)
    assert result["tiles_per_second"] > 0.0 and result["over_f32"] == 1.0
    assert result["megapixels_per_second"] == pytest.approx(result["tiles_per_second"] * 256**2 / 1e6, abs=0.01)
    assert {"processor", "cores", "versions"} <= measured["environment"].keys()  # type: ignore[attr-defined]
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    written = with_tables(readme, load(folder / "results"))
    assert "| openvino | f32 | 4 |" in written


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bench", "--batch", "four"], "--batch is whole numbers"),
        (["bench", "--batch", "0"], "--batch is numbers of tiles from 1 on"),
        (["check", "--release", "no-such-release"], "no release"),
    ],
)
def test_what_was_typed_wrongly_ends_with_2_and_what_to_write(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["engine", *arguments])
    assert done.exit_code == 2 and says in " ".join(done.stderr.split())
