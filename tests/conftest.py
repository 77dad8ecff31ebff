"""What tests of every folder share: one real broker for the whole run, started by the first test that asks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.broker import Broker, NoBroker, free_port
from tests.kafka.container import ContainerBroker, docker_answers

RUNNING = os.environ.pop("SPANWATCH_TEST_KAFKA", None)
"""Taken out at once: a role would refuse a setting it does not know."""


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker | ContainerBroker]:
    """A broker that nobody kills; SPANWATCH_TEST_KAFKA=127.0.0.1:PORT names one that runs already."""
    if RUNNING:
        yield Broker(Path(os.devnull), int(RUNNING.rpartition(":")[2]))
        return
    started: Broker | ContainerBroker
    if docker_answers():
        started, otherwise = ContainerBroker(), ""
    else:
        started, otherwise = Broker(tmp_path_factory.mktemp("kafka") / "broker", free_port()), "no Docker engine, and "
    try:
        started.start()
    except NoBroker as error:
        pytest.skip(f"needs a Kafka broker: {otherwise}{error}")
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Broker]:
    """A broker of one test's own, to kill."""
    broker = Broker(tmp_path / "broker", free_port())
    try:
        broker.start()
    except NoBroker as error:
        pytest.skip(f"needs a Kafka broker to kill: {error}")
    else:
        yield broker
    finally:
        broker.kill()
        shutil.rmtree(broker.folder, ignore_errors=True)  # it may hold half a gigabyte
