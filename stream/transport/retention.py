"""Removes what is old enough and done with: the rule is pure, the rest carries it out on the log and the blobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from stream.config import RetentionSection
from stream.transport import local_sweep as sweep
from stream.transport import topics
from stream.transport.blobs import FolderBlobs
from stream.transport.local import LocalTransport
from stream.transport.protocol import Transport
from stream.transport.topics import Topic

BLOB_GRACE_S = 3600.0
"""A blob is put before the record that names it is sent. One put this recently stays, named or not: a producer that
waits longer between the two puts again, which renews it."""
_NAMING = ("frames", "dead-frames")
"""The topics whose records keep a blob alive."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Records that are old enough to go and stay, because a group has not committed them."""

    topic: str
    groups: tuple[str, ...]
    """Empty: no group has ever read the topic, and it is work that somebody must do."""
    records: int


class GcReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, or would be with `dry_run`."""

    dry_run: bool
    removed: dict[str, int]
    """Records removed by age, by topic."""
    compacted: dict[str, int]
    """Records removed because their key has a later one, by topic."""
    record_bytes: int
    """Of the removed records' values."""
    blobs: int
    blob_bytes: int
    leftovers: int
    """Unfinished blob files of dead processes."""
    held: tuple[Held, ...]
    log_bytes: int | None
    """The log file's size afterwards; None: the log is a broker's."""
    log_bytes_returned: int
    """By how much it shrank."""


def keep_from(topic: Topic, first_young: int, end: int, commits: Mapping[str, int]) -> int:
    """The offset below which every record of a partition may go.

    `commits` has every group that reads the topic, 0 where it has committed nothing here. The rule: too old, and below
    every group's commit. If no group reads it, work (`frames`, `results`) is kept whole, and what is only written down
    (`decisions`, `dead-frames`) goes by age. A topic that is kept for ever comes with `first_young` 0.
    """
    if not commits and topic.awaits_reader:
        return 0
    return min([first_young, end, *commits.values()])


def compact_below(end: int, commits: Mapping[str, int]) -> int:
    """The offset below which a record may go once its key has a later one: every group has passed it."""
    return min([end, *commits.values()])


async def gc(
    transport: LocalTransport,
    retention: RetentionSection,
    now: float,
    *,
    dry_run: bool = False,
    blob_grace_s: float = BLOB_GRACE_S,
) -> GcReport:
    """Remove old records below every group's commit, superseded alerts, and blobs no record names; shrink the file.

    Workers may run: every step is a short commit of its own. `now` is in seconds since 1970. Order matters for blobs:
    records go first, and what the remaining ones name is read after the time before which a blob is old.
    """
    log = transport.log
    before = await log.query(sweep.file_bytes)
    run = _Run(transport, dry_run)
    for topic in topics.RULES.values():
        kept_s = topics.kept_s(topic, retention)
        await run.over(topic, cutoff=float("-inf") if kept_s is None else now - kept_s)
    blobs = await transport.blobs.sweep(await run.named(), before=now - blob_grace_s, dry_run=dry_run)
    if not dry_run:
        while await log.maintain(sweep.give_back):
            pass
        await log.maintain(sweep.checkpoint)
    after = await log.query(sweep.file_bytes)
    return GcReport(
        dry_run=dry_run,
        removed=run.removed,
        compacted=run.compacted,
        record_bytes=run.record_bytes,
        blobs=blobs.blobs,
        blob_bytes=blobs.blob_bytes,
        leftovers=blobs.leftovers,
        held=tuple(run.held),
        log_bytes=after,
        log_bytes_returned=max(0, before - after),
    )


async def gc_blobs(
    transport: Transport,
    blobs: FolderBlobs,
    now: float,
    *,
    dry_run: bool = False,
    blob_grace_s: float = BLOB_GRACE_S,
) -> GcReport:
    """Remove the photos that no record names any more, where the broker itself removes records (Kafka).

    It reads all of `frames` and `dead-frames`, so inline photos cross the network once. The folder must belong to
    these topics alone: photos that another site's records name would go.
    """
    before = now - blob_grace_s
    named: set[str] = set()
    for topic in _NAMING:
        async for record in transport.read(topic):
            for text in record.headers.values():
                named.update(sweep.DIGEST.findall(text))
            if record.value.startswith(b"{"):
                named.update(sweep.DIGEST.findall(record.value.decode(errors="replace")))
    swept = await blobs.sweep(named, before=before, dry_run=dry_run)
    return GcReport(
        dry_run=dry_run,
        removed={},
        compacted={},
        record_bytes=0,
        blobs=swept.blobs,
        blob_bytes=swept.blob_bytes,
        leftovers=swept.leftovers,
        held=(),
        log_bytes=None,
        log_bytes_returned=0,
    )


class _Run:
    """One run over the log, and what it has come to so far."""

    def __init__(self, transport: LocalTransport, dry_run: bool) -> None:
        self.removed: dict[str, int] = {}
        self.compacted: dict[str, int] = {}
        self.record_bytes = 0
        self.held: list[Held] = []
        self._log = transport.log
        self._stored = transport.stored_topic
        self._dry_run = dry_run
        self._keep: dict[tuple[int, int], int] = {}
        """By (topic number, partition): the first offset that stays."""

    async def over(self, topic: Topic, cutoff: float) -> None:
        """Remove what may go of one topic, accepted before `cutoff` (seconds since 1970)."""
        number = self._stored(topic.name).id
        ages = await self._log.query(partial(sweep.ages, topic=number, cutoff=cutoff))
        for age in ages:
            at = (number, age.partition)
            keep = keep_from(topic, age.first_young, age.end, age.commits)
            self._keep[at] = keep
            self._add(self.removed, topic, await self._log.query(partial(sweep.count, at=at, first=0, below=keep)))
            removed = 0 if self._dry_run else sweep.REMOVE_AT_ONCE
            while removed == sweep.REMOVE_AT_ONCE:
                removed = await self._log.write(partial(sweep.remove, at=at, below=keep))
            if topic.compacted:
                await self._compact(topic, at, compact_below(age.end, age.commits))
        await self._note_held(topic, ages)

    async def _compact(self, topic: Topic, at: tuple[int, int], below: int) -> None:
        rows, size = await self._log.query(partial(sweep.superseded, at=at, below=below))
        self._add(self.compacted, topic, (len(rows), size))
        for start in range(0, len(rows) if not self._dry_run else 0, sweep.REMOVE_AT_ONCE):
            some = rows[start : start + sweep.REMOVE_AT_ONCE]
            await self._log.write(partial(sweep.remove_rows, rows=some))

    async def _note_held(self, topic: Topic, ages: Sequence[sweep.PartitionAge]) -> None:
        groups: set[str] = set()
        records = 0
        for age in ages:
            at = (self._stored(topic.name).id, age.partition)
            span = partial(sweep.count, at=at, first=self._keep[at], below=age.first_young)
            records += (await self._log.query(span))[0]
            groups.update(group for group, offset in age.commits.items() if offset < age.first_young)
        if records:
            self.held.append(Held(topic=topic.name, groups=tuple(sorted(groups)), records=records))

    def _add(self, tally: dict[str, int], topic: Topic, counted: tuple[int, int]) -> None:
        if counted[0]:
            tally[topic.name] = tally.get(topic.name, 0) + counted[0]
            self.record_bytes += counted[1]

    async def named(self) -> set[str]:
        """The digests that remaining records name, under whatever prefix: all prefixes share the blob folder."""
        digests: set[str] = set()
        for name, number, partitions in await self._log.query(sweep.topics):
            for partition in range(partitions) if name.endswith(_NAMING) else ():
                offset: int | None = self._keep.get((number, partition), 0)
                while offset is not None:
                    scan = partial(sweep.named_digests, topic=number, at=(partition, offset))
                    some, offset = await self._log.query(scan)
                    digests |= some
        return digests
