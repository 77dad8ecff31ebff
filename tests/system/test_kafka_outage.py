"""A broker away for longer than the session: nothing is lost, no hand is needed, the uploader says why it waits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kafka.broker import Broker
from tests.system import line
from tests.system.outage import outage

AWAY_S = 8.0
"""The session is 6 s."""


@pytest.mark.slow
def test_an_outage_longer_than_the_session_loses_nothing_and_is_told(mortal: Broker, tmp_path: Path) -> None:
    async def test() -> None:
        told = await outage(mortal, config, tmp_path, AWAY_S, lambda words: sys.stdout.write(f"{words}\n"))
        said = "\n".join(told.during)
        assert f"waiting for {mortal.url}" in said and "Ctrl-C loses nothing" in said
        assert "it is back after" in said

    with line.on_kafka(mortal.url, tmp_path) as config:
        line.run(test)
