"""A destination has a name before it is there, and is opened once."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from stream.config import Config, LocalSection
from stream.errors import Unavailable
from stream.transport import open_transport
from stream.transport.protocol import Transport
from stream.uploader import Destination
from stream.uploader.report import span


def test_it_is_asked_for_until_it_is_there_and_then_never_again(tmp_path: Path) -> None:
    asked: list[int] = []

    async def connect() -> Transport:
        asked.append(1)
        if len(asked) < 3:
            raise Unavailable("not yet")
        return await open_transport(Config(transport=f"local:{tmp_path}", local=LocalSection(min_free_bytes=0)))

    async def main() -> None:
        there = Destination("kafka://broker:9092", connect)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await there.transport()
        assert await there.transport() is await there.transport()
        await there.close()

    asyncio.run(main())
    assert len(asked) == 3


def test_one_that_never_came_needs_no_closing() -> None:
    asyncio.run(Destination.configured(Config(transport="kafka://nowhere:1")).close())


def test_a_folder_is_the_same_destination_however_it_is_written(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        name = Destination.configured(Config(transport="local:log")).name
    assert name == f"local:{tmp_path.resolve()}/log"


def test_two_sites_on_one_broker_are_two_destinations() -> None:
    names = {
        Destination.configured(Config(transport="kafka://b:9092", topic_prefix=prefix)).name
        for prefix in ("", "north.", "south.")
    }
    assert names == {"kafka://b:9092", "kafka://b:9092#north.", "kafka://b:9092#south."}


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.9, "60 s"), (60, "1 min"), (719, "11 min"), (7530, "2 h 5 min")]
)
def test_a_length_of_time_is_said_as_people_do(seconds: float, said: str) -> None:
    assert span(seconds) == said
