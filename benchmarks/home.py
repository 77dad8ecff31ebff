"""A log of its own for each run: a fresh folder, or fresh topics on a broker, removed when the run is over."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec

from benchmarks.environment import scheme
from stream.config import MIB, Config, LocalSection, MetricsSection
from stream.errors import Misuse
from stream.transport.kafka_topics import create_topics, delete_topics

Travel = Literal["inline", "reference"]
PARTITIONS = 4
"""As many as the embedded log has by default, so that the two homes are compared alike."""


def travels(transport: str, asked: str) -> tuple[Travel, ...]:
    """The ways photos shall travel, from `inline`, `reference` or `both`.

    Raises:
        Misuse: another word, or inline on the embedded log, where photos always lie in the blob folder.
    """
    local = scheme(transport) == "local"
    match asked:
        case "both":
            return ("reference",) if local else ("inline", "reference")
        case "reference":
            return ("reference",)
        case "inline" if not local:
            return ("inline",)
        case "inline":
            raise Misuse("on local: photos always travel by reference: --photos-travel inline needs kafka://HOST:PORT")
    raise Misuse(f"--photos-travel is inline, reference or both, not {asked!r}")


@asynccontextmanager
async def home(base: Config, travel: Travel, inline_bytes: int = 40 * MIB) -> AsyncIterator[Config]:
    """The settings of an empty log, for as long as the block runs; on `local:DIR` it lies in a new folder inside DIR.

    Args:
        inline_bytes: the largest photo that travels inline, if they do.
    """
    parent = Path(base.transport.partition(":")[2]) if scheme(base.transport) == "local" else None
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="spanwatch-bench-", dir=parent) as name:
        folder = Path(name).resolve()
        quiet = msgspec.structs.replace(
            base,
            state=str(folder / "state"),
            metrics=MetricsSection(worker_port=-1, findings_port=-1),
            local=LocalSection(partitions=PARTITIONS, min_free_bytes=0),
        )
        if parent is not None:
            yield msgspec.structs.replace(quiet, transport=f"local:{folder / 'log'}")
            return
        section = msgspec.structs.replace(
            base.kafka,
            partitions=PARTITIONS,
            blobs=str(folder / "blobs"),
            min_free_bytes=0,
            max_inline_bytes=inline_bytes if travel == "inline" else 0,
        )
        prefix = f"{base.topic_prefix}bench-{secrets.token_hex(4)}-"
        config = msgspec.structs.replace(quiet, topic_prefix=prefix, kafka=section)
        await create_topics(config)
        try:
            yield config
        finally:
            await delete_topics(config)
