"""Findings on Kafka: one member of the group, which Faust runs until it is told to stop or something is wrong.

How Faust is set up, and where our contract wins over it, is findings/faust_app.py.

What remains: a process that is frozen for longer than its session and wakes may finish the one send it had in hand.
"""

from __future__ import annotations

import asyncio
import logging
import os

from stream.config import Config
from stream.errors import Unavailable
from stream.findings.faust_app import App, make_app
from stream.findings.membership import Membership
from stream.findings.partitions import DEADLINE_S, Duty
from stream.transport.kafka_group import cause

log = logging.getLogger(__name__)

TICK_S = 0.5
"""How often waiting decisions are looked after, and Faust is looked at."""
STOP_S = 30.0
"""How long Faust may take to stop before the process ends without it."""
ENDED_HARD = 70


class Agents:
    """One member of the findings group on Kafka; `run` is the whole role."""

    def __init__(self, duty: Duty, config: Config) -> None:
        """
        Raises:
            Misuse: prefix and group are not a name Kafka allows.
        """
        self._config = config
        self._member = Membership(duty, config.topic_prefix)

    @property
    def ready(self) -> bool:
        """Whether partitions are assigned, or the group has none left for this member."""
        return self._member.ready

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish the record in hand and commit what is finished.

        Raises:
            Unavailable: the transport was away for longer than the deadline.
            Broken: a record cannot be read, or the broker refuses an alert; nothing past it was committed.
            Misuse: the topics have different partition counts, or the settings name no broker.
        """
        member = self._member
        member.stop = stop
        await member.check()
        app = make_app(self._config, member)
        starting = asyncio.ensure_future(_start(app))
        beside = [asyncio.ensure_future(work) for work in (_watch(app), stop.wait(), member.failed.wait())]
        try:
            await asyncio.wait(beside, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
            await _end(app)
            member.ready = False
            starting.cancel()
            await asyncio.wait({starting})
        if member.failure is not None:
            raise member.failure
        if left := member.uncommitted():
            listed = ", ".join(f"{topic}[{number}] at {offset}" for (topic, number), offset in left.items())
            raise Unavailable(f"stopped, but the broker has not taken the offsets of {listed}")


async def _start(app: App) -> None:
    """Returns when the first partitions are here."""
    try:
        await app.start()
    except Exception as error:
        app.member.fail(cause(error, "start"))


async def _watch(app: App) -> None:
    """Look after what waits, and whether Faust still lives."""
    while not app.member.failed.is_set():
        try:
            if app.crashed:
                raise cause(app.crash_reason, "go on")
            async with asyncio.timeout(DEADLINE_S):  # a thread that has died answers no more
                await app.consumer.check()
        except Exception as error:
            app.member.fail(error)
        else:
            await app.member.look_after()
        await asyncio.sleep(TICK_S)


async def _end(app: App) -> None:
    """Stop Faust, which commits what is finished; if it cannot stop, its threads would keep the process for ever."""
    stopping = asyncio.ensure_future(app.stop())
    done, _ = await asyncio.wait({stopping}, timeout=STOP_S)
    if not done:
        log.critical("Faust does not stop, ending without it seconds=%.0f", STOP_S)
        logging.shutdown()
        os._exit(ENDED_HARD)
    if (error := stopping.exception()) is not None:
        log.warning("Faust stopped with an error error=%r", error)
