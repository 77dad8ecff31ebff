"""A broker that trusts nobody: each role gets along with its own login, and each refusal is one clear line."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stream.config import Config, KafkaSection, Login, RoleName
from stream.errors import Rejected, Unavailable
from stream.messages import TOPICS
from stream.transport.access import RIGHTS, Right, commands
from stream.transport.kafka import KafkaTransport
from stream.transport.kafka_topics import create_topics
from stream.transport.protocol import Message
from tests.kafka.broker import NoBroker
from tests.kafka.secured import USERS, SecuredBroker
from tests.system import line

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """With topics, and with exactly the rights that `spanwatch topics acls` prints."""
    if shutil.which("keytool") is None:
        pytest.skip("needs a JDK: no `keytool` on the PATH")
    broker = SecuredBroker(tmp_path_factory.mktemp("secured") / "broker")
    try:
        broker.open.start()
    except NoBroker as error:
        pytest.skip(f"needs a Kafka broker: {error}")
    try:
        config = Config(transport=broker.open.url)
        line.run(lambda: create_topics(config))
        broker.allow(arguments for _, arguments in commands(config))
        yield broker
    finally:
        broker.open.stop()


def environment(broker: SecuredBroker, folder: Path, url: str, **logins: tuple[str, str]) -> dict[str, str]:
    """The settings of one process: where, and who it is in which role."""
    variables = {
        "SPANWATCH_TRANSPORT": url,
        "SPANWATCH_STATE": str(folder / "state"),
        "SPANWATCH_KAFKA__SECURITY": "sasl_tls",
        "SPANWATCH_KAFKA__CA": str(broker.ca),
        "SPANWATCH_KAFKA__BLOBS": str(folder / "blobs"),
        "SPANWATCH_KAFKA__MIN_FREE_BYTES": "0",
        "SPANWATCH_METRICS__WORKER_PORT": "-1",
        "SPANWATCH_METRICS__FINDINGS_PORT": "-1",
        "XDG_STATE_HOME": str(folder / "outbox"),
        "PYTHONPATH": str(ROOT),
    }
    for role, (name, password) in logins.items():
        variables |= {f"SPANWATCH_KAFKA__{role.upper()}__USERNAME": name}
        variables |= {f"SPANWATCH_KAFKA__{role.upper()}__PASSWORD": password}
    return os.environ | variables


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "stream", *map(str, arguments)]


def as_user(name: str) -> tuple[str, str]:
    return name, USERS[name]


def test_every_role_does_its_work_with_its_own_login_and_the_rights_that_are_printed(
    secured: SecuredBroker, tmp_path: Path
) -> None:
    photo = sorted((ROOT / "tests/data/flight").glob("damage-*.jpg"))[0]
    site = environment(secured, tmp_path, secured.url, worker=as_user("worker"), findings=as_user("findings"))
    uploader = environment(secured, tmp_path, secured.url, uploader=as_user("uploader"))
    reader = environment(secured, tmp_path, secured.url, login=as_user("reader"))
    operator = environment(secured, tmp_path, secured.url, operator=as_user("operator"))
    running = subprocess.Popen(command("site"), env=site, cwd=tmp_path)
    try:
        upload = command("upload", photo, "--asset", "bridge-3")
        assert subprocess.run(upload, env=uploader, cwd=tmp_path, check=False).returncode == 0
        follow = command("alerts", "--follow", "--json")
        with subprocess.Popen(follow, env=reader, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as alerts:
            try:
                assert alerts.stdout is not None
                alert = json.loads(alerts.stdout.readline())
                assert alert["asset"] == "bridge-3"
            finally:
                alerts.kill()
        confirm = command("alerts", "confirm", alert["alert_id"][:12], "--who", "J. Doe", "--why", "seen on site")
        assert subprocess.run(confirm, env=operator, cwd=tmp_path, check=False).returncode == 0
    finally:
        running.terminate()
        code = running.wait(line.GIVE_UP_S)
    assert code == 0


WRONG = {
    "uploader": ("upload", "tests/data/flight/DJI_0025.JPG", "--asset", "a"),
    "worker": ("worker",),
    "findings": ("findings",),
    "login": ("alerts",),
}


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ("password", "the broker refuses the login: check user name, password and kafka.mechanism"),
        ("certificate", "certificate is refused (certificate has expired): renew it, or check kafka.ca"),
        ("rights", "this login may not"),
    ],
)
@pytest.mark.parametrize("role", WRONG)
def test_a_refusal_ends_with_one_clear_line_and_no_secret(
    secured: SecuredBroker, tmp_path: Path, role: str, trouble: str, says: str
) -> None:
    user = {"login": "reader"}.get(role, role)
    name, password = as_user("stranger" if trouble == "rights" else user)
    login = (name, "wrong" if trouble == "password" else password)
    url = secured.expired_url if trouble == "certificate" else secured.url
    run = command(*WRONG[role])
    settings = environment(secured, tmp_path, url, **{role: login})
    done = subprocess.run(run, env=settings, cwd=ROOT, capture_output=True, text=True, check=False)
    told = [text for text in done.stderr.splitlines() if text.startswith("spanwatch:")]
    assert done.returncode == 1, done.stderr
    assert len(told) == 1 and says in told[0], done.stderr
    assert "Traceback" not in done.stderr
    assert not [secret for secret in USERS.values() if secret in done.stdout + done.stderr]


ROLES: tuple[RoleName, ...] = ("uploader", "worker", "findings", "operator", "reader")


def as_role(broker: SecuredBroker, folder: Path, role: RoleName) -> Config:
    """The settings of a role with its own login."""
    login = Login(username=role, password=USERS[role])
    section = KafkaSection(security="sasl_tls", ca=str(broker.ca), login=login, blobs=str(folder))
    return Config(transport=broker.url, kafka=section)


@pytest.fixture(scope="module")
def filled(secured: SecuredBroker, tmp_path_factory: pytest.TempPathFactory) -> SecuredBroker:
    """With a record in each topic: a look at an empty one is let pass by the right to ask how long it is.

    They are no records of ours, so no role can work after this: the tests that use it come last.
    """
    blobs = str(tmp_path_factory.mktemp("blobs"))

    async def fill() -> None:
        administrator = Config(transport=secured.open.url, kafka=KafkaSection(blobs=blobs))
        transport = await KafkaTransport.open(administrator, "reader")
        try:
            for topic in TOPICS:
                await transport.send(Message(topic=topic, key="nobody", value=b"no record of ours"))
            async with asyncio.timeout(line.GIVE_UP_S):
                while True:  # the broker makes its topic of offsets for the first group that asks
                    with suppress(Unavailable):
                        await transport.lag("worker", "frames")
                        return
                    await asyncio.sleep(0.05)
        finally:
            await transport.close()

    line.run(fill)
    return secured


async def allowed(config: Config, role: RoleName) -> set[tuple[str, str]]:
    """What this login is let do, tried right by right, but for writing what it may write."""
    transport = await KafkaTransport.open(config, role)
    let: set[tuple[str, str]] = set()
    try:
        for topic in TOPICS:
            with suppress(Rejected):
                assert [record async for record in transport.read(topic)]
                let.add(("Read", topic))
            if Right(role, "topic", topic, "Write") not in RIGHTS:
                with suppress(Rejected):
                    await transport.send(Message(topic=topic, key="nobody", value=b"no record of ours"))
                    let.add(("Write", topic))
        for group, topic in (("worker", "frames"), ("findings", "results")):
            with suppress(Rejected):
                await transport.lag(group, topic)
                let.add(("Read", f"group {group}"))
    finally:
        await transport.close()
    return let


@pytest.mark.parametrize("role", ROLES)
def test_a_login_reads_what_its_role_needs_and_touches_nothing_of_another(
    filled: SecuredBroker, tmp_path: Path, role: RoleName
) -> None:
    """What each may write is shown above, by the line that works; here is the rest of the table, and all outside it."""
    names = {"topic": "", "group": "group "}
    reads = {("Read", names[r.kind] + r.name) for r in RIGHTS if (r.role, r.operation) == (role, "Read")}
    assert asyncio.run(allowed(as_role(filled, tmp_path, role), role)) == reads
