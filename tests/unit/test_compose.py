"""The compose file stays true to the project: its commands exist, version and ports are ours, it says what it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer

from stream.cli.app import app
from stream.config import MetricsSection, load
from tests.kafka.broker import VERSION

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker/compose.yaml").read_text(encoding="utf-8")
COMMANDS = [json.loads(found) for found in re.findall(r"^    command: (\[.*\])$", TEXT, re.MULTILINE)]


def test_it_is_short_and_says_that_it_has_not_been_run() -> None:
    assert len(TEXT.splitlines()) <= 70
    assert "Not run here" in TEXT.partition("services:")[0]


def test_it_brings_up_the_broker_that_the_tests_run_on() -> None:
    assert re.findall(r"image: apache/kafka:(.*)", TEXT) == [VERSION]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:2]))
def test_its_commands_and_their_options_exist(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[arguments[0]]
        arguments = arguments[1:]
    settings = command.make_context("compose", list(arguments)).params
    assert settings["transport"] == "kafka://kafka:19092"


def test_there_are_two_commands_and_the_second_on_a_card_too() -> None:
    assert [arguments[0] for arguments in COMMANDS] == ["topics", "site", "site"]
    assert "/etc/spanwatch/edge-gpu.toml" in COMMANDS[2] and "profiles: [gpu]" in TEXT
    assert "capabilities: [gpu]" in TEXT


def test_every_target_that_it_builds_is_in_the_dockerfile() -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
    for target in re.findall(r"target: ([\w-]+)", TEXT):
        assert f" AS {target}\n" in dockerfile
    assert re.findall(r"--config\", \"/etc/spanwatch/([\w.-]+)", TEXT) == re.findall(
        r"/etc/spanwatch/([\w.-]+)\"", TEXT
    )
    for name in set(re.findall(r"/etc/spanwatch/([\w.-]+)", TEXT)):
        assert f"COPY configs/{name} " in dockerfile and (ROOT / "configs" / name).exists()


def test_its_variables_are_settings_and_its_configuration_loads() -> None:
    variables = dict(re.findall(r"(SPANWATCH_\w+): ([^}\s]+)", TEXT))
    assert load(ROOT / "configs/edge.toml", variables).kafka.blobs == "/var/lib/spanwatch/blobs"


def test_health_is_asked_where_the_worker_answers() -> None:
    assert f"http://127.0.0.1:{MetricsSection().worker_port}/readyz" in TEXT
