"""Findings as a process that dies: after every numbered step and by SIGKILL, and still the same alerts byte for byte.

Run as a script it is that process: `test_findings.py FOLDER finish`, `FOLDER exit STEP COUNT`, `FOLDER lockstep`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from prometheus_client import CollectorRegistry

from stream.config import LocalSection
from stream.findings.service import Findings
from stream.messages import Alert, Decision, Result, decode
from stream.metrics import Metrics
from stream.transport.local import LocalTransport
from stream.transport.protocol import Transport
from tests.unit.findings.driving import PATIENCE_S, compacted, duty, lag, send, stop_after, work
from tests.unit.findings.made import SEVERITIES, decision, first_alert, region, result
from tests.unit.models.made_releases import Site, made_class

ROOT = Path(__file__).parents[2]
DIED = 70
T = TypeVar("T")


def on_log(folder: Path, use: Callable[[Transport], Awaitable[T]]) -> T:
    async def main() -> T:
        log = await LocalTransport.open(folder, LocalSection(partitions=3, min_free_bytes=0))
        try:
            return await use(log)
        finally:
            await log.close()

    return asyncio.run(main())


def recorded() -> list[Result | Decision]:
    """60 results over 3 assets, some of them clean, some with three alerts at once, some sent twice; and decisions."""
    shots = []
    for number in range(60):
        found = [region(name, 0.5 + number / 200, (number % 3, 0)) for name in sorted(SEVERITIES)[: number % 4]]
        shots.append(result(number, [*found, *found[:1]], asset=f"pier-{number % 3}"))
    said = [
        decision(
            first_alert(shot, "algae"), ("confirm", "dismiss", "ack")[turn % 3], second=turn, asset=shot.frame.asset
        )
        for turn, shot in enumerate(shot for shot in shots if shot.regions)
        if turn % 4 != 1
    ]
    said.append(decision("f" * 32, asset="pier-1"))
    return [*said[:5], *shots, *shots[10:20], *said, *said[:3]]


@pytest.fixture(scope="module")
def log_and_truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A recorded log that nobody has worked on, and the alerts of an undisturbed run on a copy of it."""
    folder = tmp_path_factory.mktemp("findings")
    on_log(folder / "recorded", lambda log: send(log, recorded()))
    shutil.copytree(folder / "recorded", folder / "undisturbed")
    on_log(folder / "undisturbed", lambda log: work(log, until=len(recorded())))
    truth = on_log(folder / "undisturbed", compacted)
    states = [decode(value, Alert).state for value in truth.values()]
    assert len(states) == 90
    assert set(states) == {"open", "acknowledged", "confirmed", "dismissed"}
    return folder / "recorded", truth


def child(folder: Path, *words: str | int) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, str(folder), *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


DEATHS = [(1, 1), (2, 1), (3, 1), (2, 2), (1, 20), (2, 21), (3, 22), (2, 25)]


@pytest.mark.slow
def test_deaths_after_every_step_end_in_the_bytes_of_an_undisturbed_run(
    tmp_path: Path, log_and_truth: tuple[Path, dict[str, bytes]]
) -> None:
    source, truth = log_and_truth
    shutil.copytree(source, tmp_path / "log")
    for step, count in DEATHS:
        with child(tmp_path / "log", "exit", step, count) as process:
            assert process.wait() == DIED, f"it should have died after step {step}, time {count}"
        assert on_log(tmp_path / "log", lag) > 0
    with child(tmp_path / "log", "finish") as process:
        assert process.wait() == 0
    assert on_log(tmp_path / "log", lag) == 0
    assert on_log(tmp_path / "log", compacted) == truth


@pytest.mark.slow
def test_kills_at_any_moment_end_in_the_bytes_of_an_undisturbed_run(
    tmp_path: Path, log_and_truth: tuple[Path, dict[str, bytes]]
) -> None:
    source, truth = log_and_truth
    shutil.copytree(source, tmp_path / "log")
    for steps in (1, 2, 11, 25, 40):
        with child(tmp_path / "log", "lockstep") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for _ in range(steps):
                assert process.stdout.readline()
                process.stdin.write(b"\n")
                process.stdin.flush()
            process.kill()  # on its way to the next step, or waiting there for leave to go on
            assert process.wait() == -9
        left = on_log(tmp_path / "log", lag)
        sys.stdout.write(f"killed after {steps} steps with {left} records open\n")
        assert left > 0
    with child(tmp_path / "log", "finish") as process:
        assert process.wait() == 0
    assert on_log(tmp_path / "log", compacted) == truth


def test_an_alert_confirmed_on_the_command_line_ends_confirmed(
    tmp_path: Path, log_and_truth: tuple[Path, dict[str, bytes]]
) -> None:
    # Here and not above: the processes of the other tests run this file, and all the commands are a lot to import.
    from typer.testing import CliRunner

    from stream.cli.alerts import alerts_app

    source, _ = log_and_truth
    folder = tmp_path / "log"
    shutil.copytree(source, folder)
    environment = {"SPANWATCH_LOCAL__PARTITIONS": "3"}
    on_log(folder, lambda log: work(log, until=len(recorded())))

    def spanwatch_alerts(*words: str) -> str:
        answer = CliRunner(env=environment).invoke(alerts_app, ["--transport", f"local:{folder}", *words])
        assert answer.exit_code == 0, answer.output
        return answer.stdout

    listed = [
        json.loads(line) for line in spanwatch_alerts("--state", "open", "--defect", "spalling", "--json").splitlines()
    ]
    assert [alert["defect"] for alert in listed] == ["spalling"] * len(listed)
    assert [alert["score"] for alert in listed] == sorted((alert["score"] for alert in listed), reverse=True)
    chosen = listed[0]["alert_id"]
    said = spanwatch_alerts("confirm", chosen[:12], "--who", "ada", "--why", "[seen] from the lift")
    assert "sent to findings as ada" in said

    on_log(folder, lambda log: work(log, until=1))
    (alert,) = [json.loads(line) for line in spanwatch_alerts("show", chosen, "--json").splitlines()]
    assert alert["state"] == "confirmed"
    assert [(step["who"], step["why"]) for step in alert["history"]] == [("ada", "[seen] from the lift")]
    shown = spanwatch_alerts("show", chosen)
    assert "47.50" in shown  # where the camera was comes from the results
    assert "[seen] from the lift" in shown


@pytest.mark.slow
def test_the_command_works_until_sigterm_and_ends_well(tmp_path: Path) -> None:
    shots = [result(number, [region()]) for number in range(3)]
    on_log(tmp_path / "log", lambda log: send(log, shots))
    settings = {
        "SPANWATCH_LOCAL__PARTITIONS": "3",
        "SPANWATCH_METRICS__FINDINGS_PORT": "0",
        **made_release(tmp_path),
    }
    command = [sys.executable, "-m", "stream", "findings", "--transport", f"local:{tmp_path / 'log'}"]
    with subprocess.Popen(command, env=os.environ | settings, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:

        async def three_alerts(log: Transport) -> None:
            seen = 0
            async with asyncio.timeout(PATIENCE_S):
                async for _ in log.read("alerts", follow=True):
                    seen += 1
                    if seen == len(shots):
                        return

        try:
            on_log(tmp_path / "log", three_alerts)
        finally:
            process.terminate()
            _, told = process.communicate()
        assert process.returncode == 0, told
    assert on_log(tmp_path / "log", lag) == 0


def made_release(folder: Path) -> dict[str, str]:
    """Settings that name a release which can be asked for severities and for nothing else."""
    site = Site(folder / "releases")
    classes = tuple(made_class(name, severity=severity) for name, severity in SEVERITIES.items())
    site.make("made", classes=classes)
    return {
        "SPANWATCH_ENGINE__STORE": str(site.store.folder),
        "SPANWATCH_ENGINE__TRUSTED_KEYS": str(site.keys),
        "SPANWATCH_ENGINE__RELEASE": "made",
    }


def be_the_process(folder: Path, mode: str, *numbers: int) -> None:
    async def use(log: Transport) -> None:
        stop = asyncio.Event()
        finish = stop_after(stop, await lag(log))
        deaths = list(numbers)

        def step(number: int) -> None:
            if mode == "exit" and number == deaths[0]:
                deaths[1] -= 1
                if deaths[1] == 0:
                    os._exit(DIED)
            if mode == "lockstep":
                sys.stdout.write(f"{number}\n")
                sys.stdout.flush()
                sys.stdin.readline()
            finish(number)

        await Findings(duty(log, Metrics(CollectorRegistry()), step=step)).run(stop)

    on_log(folder, use)


if __name__ == "__main__":
    be_the_process(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
