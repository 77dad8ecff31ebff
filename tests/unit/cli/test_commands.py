"""Every command explains itself, and one that is used wrongly ends with 2 and says what to write instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stream.cli.app import app

runner = CliRunner()
COMMANDS = {
    "run",
    "upload",
    "worker",
    "findings",
    "results",
    "alerts",
    "dead",
    "release",
    "doctor",
    "site",
    "gc",
    "topics",
    "bench",
    "data",
    "evaluate",
    "pretrain",
    "train",
    "engine",
}


def leaves(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all commands that do something."""
    subcommands = getattr(command, "commands", None)
    if not subcommands:
        return [path]
    return [leaf for name, sub in subcommands.items() for leaf in leaves(sub, (*path, name))]


LEAVES = leaves(typer.main.get_command(app))


def command_at(path: tuple[str, ...]) -> Any:
    found: Any = typer.main.get_command(app)
    for name in path:
        found = found.commands[name]
    return found


CONFIGURED = [path for path in LEAVES if any("--config" in one.opts for one in command_at(path).params)]


def test_the_commands_are_those_that_are_promised() -> None:
    assert {leaf[0] for leaf in LEAVES} == COMMANDS


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    shown = runner.invoke(app, [*path, "--help"])
    assert shown.exit_code == 0
    assert "Example: spanwatch" in " ".join(shown.output.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["results", "--transport", "carrier-pigeon"],
        ["dead", "list", "--config", "/nowhere/edge.toml"],
        ["release", "show", "no-such-release"],
        ["run", "/nowhere/photos", "--out", "unused"],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_2_and_a_sentence_instead_of_a_traceback(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(app, arguments)
    assert done.exit_code == 2
    assert "spanwatch:" in done.output and "Traceback" not in done.output


@pytest.mark.parametrize("path", CONFIGURED, ids=" ".join)
def test_a_configuration_that_is_not_there_is_misuse_to_every_command(path: tuple[str, ...], tmp_path: Path) -> None:
    words = [*path, "--config", str(tmp_path / "none.toml")]
    for one in command_at(path).params:
        if one.required:
            name = [] if one.param_type_name == "argument" else [one.opts[0]]
            words += [*name, str(tmp_path)]
    done = runner.invoke(app, words)
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit)


def test_dead_list_of_an_empty_log_says_so(tmp_path: Path) -> None:
    done = runner.invoke(app, ["dead", "list", "--transport", f"local:{tmp_path}/log"])
    assert done.exit_code == 0 and "No dead frames" in done.output


def test_doctor_tells_every_part_and_what_to_do(tmp_path: Path) -> None:
    done = runner.invoke(app, ["doctor", "--json", "--transport", f"local:{tmp_path}/log"])
    lines = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    assert {line["what"] for line in lines} == {
        "python", "processor", "memory", "decoder", "release", "engine", "gpu", "disk", "log",
    }  # fmt: skip
    assert all(line["do"] for line in lines if line["verdict"] == "bad")
    assert done.exit_code == (1 if any(line["verdict"] == "bad" for line in lines) else 0)


def test_doctor_opens_the_log_that_is_there_and_makes_none(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/log.sqlite").write_bytes(b"no database" * 100)
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    verdicts = {}
    for name in ("bad", "file", "empty", "none"):
        done = runner.invoke(app, ["doctor", "--json", "--transport", f"local:{tmp_path / name}"])
        (log,) = [one for one in map(json.loads, done.stdout.splitlines()) if one["what"] == "log"]
        verdicts[name] = log["verdict"]
    assert verdicts == {"bad": "bad", "file": "bad", "empty": "note", "none": "note"}
    assert not list((tmp_path / "empty").iterdir()) and not (tmp_path / "none").exists()


def test_version() -> None:
    assert runner.invoke(app, ["--version"]).output.startswith("spanwatch 0.")
