"""What the README shows works: its two programs and its console session are run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system import line

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "SPANWATCH_METRICS__WORKER_PORT": "-1",
    "SPANWATCH_METRICS__FINDINGS_PORT": "-1",
}


def program(name: str) -> str:
    """The README's code block that begins with `# NAME`."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    return next(block for block in blocks if block.startswith(f"# {name}"))


def start(folder: Path, *command: object, **pipes: object) -> subprocess.Popen[str]:
    arguments = [sys.executable, *map(str, command)]
    return subprocess.Popen(arguments, cwd=folder, env=ENVIRONMENT, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def two_photos(folder: Path) -> Path:
    """Two of the sample flight that show damage."""
    folder.mkdir()
    for photo in sorted((ROOT / "tests/data/flight").glob("damage-*.jpg"))[:2]:
        shutil.copy(photo, folder)
    return folder


def test_each_program_has_at_most_twenty_lines_of_code() -> None:
    for name in ("producer.py", "consumer.py"):
        code = [text for text in program(name).splitlines() if text.strip() and not text.startswith("#")]
        assert len(code) <= 20, name


@contextmanager
def running_site(folder: Path, *options: str, env: dict[str, str] = ENVIRONMENT) -> Iterator[None]:
    """A site that is up during the block and has to stop in good order after it; it never outlives the test."""
    site = subprocess.Popen([sys.executable, "-m", "stream", "site", *options], cwd=folder, env=env)
    try:
        yield
    finally:
        site.terminate()
        code = site.wait(line.GIVE_UP_S)
    assert code == 0


@pytest.mark.slow
def test_the_producer_and_the_consumer_of_the_readme_work_with_a_site(tmp_path: Path) -> None:
    for name in ("producer.py", "consumer.py"):
        (tmp_path / name).write_text(program(name))
    photos, url = two_photos(tmp_path / "photos"), f"local:{tmp_path}/log"
    with running_site(tmp_path, "--transport", url):
        sent = start(tmp_path, "producer.py", url, photos, stdout=subprocess.PIPE).communicate(timeout=line.GIVE_UP_S)[
            0
        ]
        assert len(sent.splitlines()) == 2 and all("is frame" in text for text in sent.splitlines())
        with start(tmp_path, "consumer.py", url, stdout=subprocess.PIPE) as consumer:
            assert consumer.stdout is not None
            first = consumer.stdout.readline()
            consumer.kill()
    assert re.fullmatch(r"(low|medium|high) \w+ [01]\.\d\d on damage-\d+\.jpg at \(\d+, \d+\)\n", first)


@pytest.mark.slow
def test_the_console_session_of_the_readme_runs_from_upload_to_a_confirmed_alert(tmp_path: Path) -> None:
    commands = re.findall(r"^\$ (spanwatch .*)$", README, re.MULTILINE)
    assert [shlex.split(command)[1] for command in commands] == ["site", "upload", "results", "alerts", "alerts"]
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    state = {"SPANWATCH_TRANSPORT": "local:spanwatch-data", "XDG_STATE_HOME": str(tmp_path / "state")}
    environment = ENVIRONMENT | state

    def run(command: str) -> str:
        arguments = [sys.executable, "-m", "stream", *shlex.split(command)[1:]]
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def answered() -> None:
        async with line.opened(tmp_path / "spanwatch-data") as transport:
            await line.all_answered(transport)
            async with line.asyncio.timeout(line.GIVE_UP_S):
                while sum((await transport.lag("findings", "results")).values()):
                    await line.asyncio.sleep(0.05)

    with running_site(tmp_path, env=environment):
        run(commands[1])
        line.run(answered)
        assert "deck-7036.jpg" in run(commands[2])
        alerts = json.loads(run(commands[3] + " --json").splitlines()[0])
        assert alerts["alert_id"][:8] in run(commands[3])
        run(commands[4].replace("<first digits of an id>", alerts["alert_id"][:8]))
        line.run(lambda: decided(tmp_path / "spanwatch-data"))
        assert '"confirmed"' in run(commands[3] + " --state confirmed --json")


async def decided(log: Path) -> None:
    """Wait until the findings have taken the decision."""
    async with line.opened(log) as transport, line.asyncio.timeout(line.GIVE_UP_S):
        while sum((await transport.lag("findings", "decisions")).values()):
            await line.asyncio.sleep(0.05)
