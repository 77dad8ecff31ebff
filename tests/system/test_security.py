"""A broker that trusts nobody: each role gets along with its own login, and each refusal is one clear line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.config import Config
from stream.transport.access import commands
from stream.transport.kafka_topics import create_topics
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
    running = subprocess.Popen(command("site"), env=site, cwd=tmp_path)
    try:
        upload = command("upload", photo, "--asset", "bridge-3")
        assert subprocess.run(upload, env=uploader, cwd=tmp_path, check=False).returncode == 0
        follow = command("alerts", "--follow", "--json")
        with subprocess.Popen(follow, env=reader, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as alerts:
            try:
                assert alerts.stdout is not None
                assert json.loads(alerts.stdout.readline())["asset"] == "bridge-3"
            finally:
                alerts.kill()
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
