"""Faust as findings uses it: an app with one agent, around the client that every group of ours has.

Faust brings the consumer in a thread of its own, whose heartbeats no work of ours can hold up, the eager rebalance
with its pauses, and the stream. What happens to a record is findings/partitions.py, as on the embedded log; which
offset is due and which is done, findings/membership.py. Where Faust 0.15.3 and the contract disagree, the contract
wins, in these places:

- Faust commits what was acked, by an arithmetic that can pass an open record, and acks what raised. Here an ack only
  says that the agent has let go of an event. Offsets come from step 3 alone, and `_Consumer.commit` writes those.
- Faust resets a missing offset as aiokafka is told, and skips what retention has removed. Here each assignment begins
  at an explicit offset, and a gap is an error with the numbers.
- Faust may hand out records that were fetched for an assignment that is over, and throw away some of this one: where
  two rebalances follow each other closely, the end of the first opens the flow in the middle of the second, whose end
  empties the queues. `Order` notices, and fetches again.
- Faust shares topics out round robin, so results[n] and decisions[n] part. Here they are shared out by ranges.
- Faust's producer cannot be idempotent, and a send not awaited twice is lost. It is not started: alerts go through
  `Transport.send`, acknowledged by all in-sync copies.
- Faust restarts an agent that raised, past the record. Here nothing leaves the agent: the first error stops all work,
  Faust is torn down, which commits what was finished before, and the error is raised from `Agents.run`.
- Faust's teardown can hang in its threads. After `agents.STOP_S` the process ends hard.
- No table, no sink, no exactly_once, no leader topic, no declared topics, no web server, no folder on the disk, not
  Faust's command line and worker: settings, logs, figures and signals are those of every other role.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeVar

import faust
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.threads import QueueServiceThread

from stream.config import Config
from stream.findings.membership import Membership
from stream.findings.partitions import DEADLINE_S
from stream.transport.kafka_client import REQUEST_S, addresses, connection
from stream.transport.kafka_group import check, commit, group_client, starts_of
from stream.transport.kafka_records import Start
from stream.transport.protocol import TopicPartition

FAUST = logging.getLogger("faust.findings")
"""What Faust says of itself."""

COMMIT_S = 0.5
"""How often finished offsets are committed: what a crash repeats."""
COMMIT_TRY_S = 5.0
"""One try; short, since a rebalance and the end wait for it, and the next try is never far."""
GOODBYE_S = 5.0
BUFFER_RECORDS = 16
"""How many records lie ready for the agent, and how many one fetch hands out."""

T = TypeVar("T")


class _Thread(driver.AIOKafkaConsumerThread):
    """Faust's thread around the client every group of ours has. What is awaited here comes from the other thread."""

    logger = FAUST
    app: App

    @property
    def client(self) -> Any:
        """None: not started."""
        return self._consumer

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> Any:
        config = self.app.config
        arguments = connection(config, "findings")
        return group_client(arguments, config.kafka, self.app.member.group_id, max_records=BUFFER_RECORDS)

    async def on_thread_stop(self) -> None:
        """Leave the group; without a broker, aiokafka would wait for ever for somebody to say goodbye to."""
        await QueueServiceThread.on_thread_stop(self)
        if self.client is not None:
            leaving = asyncio.ensure_future(self.client.stop())
            await asyncio.wait({leaving}, timeout=GOODBYE_S)
            leaving.cancel()
            await asyncio.wait({leaving})

    async def starts(self, partitions: Mapping[TP, TopicPartition]) -> Mapping[TP, Start]:
        """See `starts_of`."""
        return await self._here(starts_of(self.client, self.app.member.group_id, partitions))

    async def write(self, offsets: Mapping[TP, int]) -> None:
        """See `commit`."""
        await self._here(commit(self.client, offsets, within_s=COMMIT_TRY_S))

    async def check(self) -> None:
        """See `check`; there is nothing to say before the client is made."""
        if self.client is not None:
            await self._here(check(self.client))

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Beat while the state is read: aiokafka begins only when it has been told that the assignment is complete."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(self.app.config.kafka.heartbeat_s)
                await self._here(self.client._coordinator._do_heartbeat())

        beating = asyncio.ensure_future(beat())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait({beating})

    async def _here(self, call: Coroutine[Any, Any, T]) -> T:
        """Run in this thread, without Faust's queue: that takes two calls at a time, and cancels them at the end."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self.thread_loop))


class _Consumer(driver.Consumer):
    """Faust's consumer with our starts, our order and our commits."""

    logger = FAUST
    app: App
    _thread: _Thread

    async def check(self) -> None:
        """Raise what the group has to say against this member."""
        await self._thread.check()

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Called before any record of these is fetched, and Faust waits for it; aiokafka swallows what it raises."""
        member = self.app.member
        try:
            if not self.app.should_stop:
                async with self._thread.alive():
                    await member.assigned(self._thread, assigned)
            if not member.stopping:
                await super().on_partitions_assigned(assigned, generation_id)
        except Exception as error:
            member.fail(error)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Faust stops the flow, empties its queues and waits for the event the agent has in hand; then we let go."""
        member = self.app.member
        try:
            # At the end Faust's own way out of a rebalance closes the client in the wrong thread.
            if not self.app.should_stop:
                await super().on_partitions_revoked(revoked)
            await member.revoked(self._thread)
        except Exception as error:
            member.fail(error)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Called before the flow begins; a position that is not ours is left alone, its records are not let through."""
        positions = self.app.member.positions(self.assignment())
        await self._thread.seek_wait(positions)
        return positions

    def resume_flow(self) -> None:
        """Called right after Faust has emptied the queues, also when the flow was open and records lay there."""
        self.app.member.emptied()
        for tp in filter(self.app.member.holds, tuple(self._buffered_partitions)):
            self.on_buffer_drop(tp)  # an empty queue will not say that there is room again
        super().resume_flow()

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Any]]:  # noqa: ASYNC109 Faust's signature
        member = self.app.member
        try:
            await member.before_fetch(self._thread)
            return await member.fetched(self._thread, await super()._getmany(active_partitions, timeout))
        except self.consumer_stopped_errors:
            raise
        except Exception as error:
            await member.unread(self._thread, error)
            return {}

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Faust's timer, rebalance and end all come here."""
        return await self.app.member.commit(self._thread)

    def ack(self, message: Any) -> bool:
        """The agent has let go of this event; it says nothing of offsets."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust would judge by its acks; how far behind a partition is, our figures say."""


class _Transport(driver.Transport):
    Consumer: ClassVar[Any] = _Consumer


class _Boot(BootStrategy):
    """What Faust starts: neither its producer nor its web server."""

    enable_kafka_producer = False
    enable_web = False


class App(faust.App):
    logger = FAUST
    BootStrategy = _Boot
    config: Config
    member: Membership
    consumer: _Consumer

    async def on_first_start(self) -> None:
        """Faust would make a folder for tables here."""


def make_app(config: Config, member: Membership) -> App:
    """One app for one run, with one agent; an app of the module would be shared, and made at the import."""
    section = config.kafka
    app = App(
        member.group_id,
        broker=[f"kafka://{address}" for address in addresses(config.transport)],
        autodiscover=False,
        loop=asyncio.get_running_loop(),
        processing_guarantee="at_least_once",
        broker_commit_interval=COMMIT_S,
        # Faust gives a seek at most one request's time, and would then go on without it.
        broker_request_timeout=DEADLINE_S + 2 * REQUEST_S,
        broker_session_timeout=section.session_timeout_s,
        broker_rebalance_timeout=section.rebalance_timeout_s,
        stream_wait_empty=True,
        stream_buffer_maxsize=BUFFER_RECORDS,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    app.config = config
    app.member = member
    app.transport = _Transport(app.conf.broker_consumer, app, loop=app.loop)
    topic = app.topic(*member.topics, key_serializer="raw", value_serializer="raw")

    @app.agent(topic, name="findings", concurrency=1)
    async def findings(stream: Any) -> None:
        events = stream.noack()
        async for event in events.events():
            await member.work(event.message)
            await events.ack(event)

    return app
