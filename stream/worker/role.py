"""The worker role: opens release, engine, journal and pages, and runs one Worker until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from models.engines.protocol import Engine
from models.release import Release
from models.runner import Runner
from stream import engines
from stream.config import Config, EngineSection
from stream.errors import BreakerTripped, Misuse, PartitionLost, Rejected, Unavailable
from stream.metrics import Metrics, serve
from stream.releases import open_release
from stream.transport.protocol import Transport
from stream.worker.attempts import AttemptJournal
from stream.worker.commit import Step
from stream.worker.judge import ClassRule, Judge
from stream.worker.regions import Threshold
from stream.worker.work import Equipment
from stream.worker.worker import Worker

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """What a worker judges with: the engine, the thresholds of its release, and in one line why it is this engine."""

    engine: Engine
    judge: Judge
    why: str = ""


def judge_of(release: Release, precision: str) -> Judge:
    """The release's thresholds, in the order of its classes."""
    rules = tuple(
        ClassRule(
            # A class without labels has no thresholds, and none of its scores is ever looked at.
            Threshold(c.name, 1.0 if c.high is None else c.high, 1.0 if c.low is None else c.low),
            trained=c.trained,
            coarsest_mm_per_px=c.coarsest_mm_per_px,
        )
        for c in release.classes
    )
    return Judge(release.id, precision, rules)


def start_engine(section: EngineSection) -> Loaded:
    """Load the release into the engine that suits this machine, with its thresholds.

    Takes a second or two; the first time on a machine more, see `stream.engines.opened`.
    """
    release = open_release(section)
    engine, why = engines.opened(release, section)
    return Loaded(engine, judge_of(release, engine.precision), why)


def say_what_runs(metrics: Metrics, loaded: Loaded) -> None:
    """Release, engine, precision and the reason for them, among the figures."""
    engine = loaded.engine
    metrics.release_info.labels(engine.release, type(engine).__name__, engine.precision, loaded.why).set(1)


async def run_worker(
    transport: Transport,
    config: Config,
    stop: asyncio.Event,
    *,
    state: Path,
    engine: Loaded | None = None,
    step: Step = lambda _: None,
) -> None:
    """Be a worker until `stop` is set; then finish and commit what is in flight.

    Args:
        state: folder of the attempt journal, shared by the workers of this box.
        engine: None: the one the settings name.
        step: for crash tests.

    Raises:
        Misuse: tiles of this release cannot overlap by so much.
    """
    loaded = engine if engine is not None else await asyncio.to_thread(start_engine, config.engine)
    side = loaded.engine.tile_size
    if config.worker.overlap_px >= side:
        raise Misuse(f"worker.overlap_px is less than the side of a tile, {side} px; not {config.worker.overlap_px}")
    metrics = Metrics(CollectorRegistry())
    say_what_runs(metrics, loaded)
    source = f"{config.site}/worker/{socket.gethostname()}-{os.getpid()}"
    async with _equipment(transport, loaded, metrics, state, source) as kit:
        worker = Worker(kit, config.worker, step)
        async with serve(metrics, config.metrics.host, config.metrics.worker_port, lambda: worker.consuming):
            await worker.run(stop)


@asynccontextmanager
async def _equipment(
    transport: Transport, loaded: Loaded, metrics: Metrics, state: Path, source: str
) -> AsyncIterator[Equipment]:
    runner = Runner(loaded.engine, depth=0)  # the worker's byte budget bounds what waits
    journal = AttemptJournal(state)
    blame = True  # an error nobody foresaw casts suspicion on the open frames
    try:
        yield Equipment(transport, runner, loaded.judge, journal, metrics, source)
        blame = False
    except* (Unavailable, BreakerTripped, Rejected, PartitionLost):
        blame = False  # the frames that were open had no part in this
        raise
    except* asyncio.CancelledError:
        blame = False
        raise
    finally:
        journal.close(blame=blame)
        await asyncio.to_thread(runner.close)
