"""What the README shows works: its two programs and its console session are run as they stand there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stream.config import Config
from stream.transport.kafka_topics import delete_topics
from tests.kafka.broker import Broker, java
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


def session(heading: str) -> list[str]:
    """The `$ spanwatch …` commands of one section of the README."""
    section = re.split(r"^#+ ", README.split(f"# {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^\$ (spanwatch .*)$", section, re.MULTILINE)


def spanwatch(folder: Path, environment: dict[str, str], command: str) -> str:
    """Run a command of the README in a folder; what it printed."""
    arguments = [sys.executable, "-m", "stream", *shlex.split(command)[1:]]
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_console_session_of_the_readme_runs_from_upload_to_a_confirmed_alert(tmp_path: Path) -> None:
    commands = session("From clone to alert")
    assert [shlex.split(command)[1] for command in commands] == ["site", "upload", "results", "alerts", "alerts"]
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    state = {"SPANWATCH_TRANSPORT": "local:spanwatch-data", "XDG_STATE_HOME": str(tmp_path / "state")}
    environment = ENVIRONMENT | state

    def run(command: str) -> str:
        return spanwatch(tmp_path, environment, command)

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


PREFIX = "readme."


@pytest.fixture
def kafka_home(broker: Broker, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of the README's Kafka session, with topics of this test's own and Kafka's tools on the PATH."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, program in (("producer", "ConsoleProducer"), ("consumer", "consumer.ConsoleConsumer")):
        script = tools / f"kafka-console-{name}.sh"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(java("org.apache.kafka.tools." + program))} "$@"\n')
        script.chmod(0o755)
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SPANWATCH_TRANSPORT": broker.url,
        "SPANWATCH_TOPIC_PREFIX": PREFIX,
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    config = Config(transport=broker.url, topic_prefix=PREFIX)
    asyncio.run(delete_topics(config))
    yield ENVIRONMENT | environment
    asyncio.run(delete_topics(config))


@pytest.mark.slow
def test_the_kafka_session_and_the_producers_that_are_not_python_end_in_alerts(
    broker: Broker, kafka_home: dict[str, str], tmp_path: Path
) -> None:
    commands = session("More than one box: Kafka")
    assert [shlex.split(command)[1] for command in commands] == ["topics", "site", "upload", "alerts"]
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    photos = sorted((ROOT / "tests/data/flight").glob("damage-*.jpg"))[:2]
    by_hand = [tmp_path / f"{name}.jpg" for name in ("reference", "inline")]
    for copy, photo in zip(by_hand, photos, strict=True):
        copy.write_bytes(photo.read_bytes() + copy.stem.encode())  # other bytes, so another frame
    producers = ["produce.sh"] + (["kcat.sh"] if shutil.which("kcat") else [])
    spanwatch(tmp_path, kafka_home, commands[0])
    with running_site(tmp_path, *shlex.split(commands[1])[2:], env=kafka_home):
        spanwatch(tmp_path, kafka_home, commands[2])
        for name, photo in zip(producers, by_hand, strict=False):
            shell(name, kafka_home, tmp_path, broker.address, photo, "bridge-9")
        wanted = {photo.name for photo in by_hand[: len(producers)]}
        with reading(tmp_path, kafka_home, *shlex.split(commands[3])[1:], "--json") as lines:
            while wanted:
                alert = json.loads(next(lines))
                wanted -= {evidence["name"] for evidence in alert["evidence"]}
        with subprocess.Popen(
            ["sh", "-c", script("consume.sh"), "sh", broker.address],
            cwd=tmp_path,
            env=kafka_home,
            text=True,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as consumer:
            try:
                assert consumer.stdout is not None
                first = consumer.stdout.readline()
            finally:
                os.killpg(consumer.pid, signal.SIGKILL)
    assert re.fullmatch(r"\w+ bridge-[39] open \S+\.jpg\n", first, re.IGNORECASE)


def script(name: str) -> str:
    """One of the README's shell programs, for this test's topics."""
    blocks: list[str] = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    text = next(block for block in blocks if block.startswith(f"# {name}"))
    assert len([line for line in text.splitlines() if line.strip() and not line.startswith("#")]) <= 20, name
    return text.replace("--topic ", f"--topic {PREFIX}").replace("-t frames", f"-t {PREFIX}frames")


def shell(name: str, environment: dict[str, str], folder: Path, *arguments: object) -> None:
    """Run one of the README's shell programs to its end."""
    command = ["sh", "-e", "-c", script(name), "sh", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def reading(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator[Iterator[str]]:
    """The lines of a command that goes on for ever, while the block runs."""
    command = [sys.executable, "-m", "stream", *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield iter(process.stdout)
        finally:
            process.kill()


async def decided(log: Path) -> None:
    """Wait until the findings have taken the decision."""
    async with line.opened(log) as transport, line.asyncio.timeout(line.GIVE_UP_S):
        while sum((await transport.lag("findings", "decisions")).values()):
            await line.asyncio.sleep(0.05)
