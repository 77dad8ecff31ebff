"""What a transport promises, in Kafka's words: partitioned ordered topics, groups that commit, blobs beside them.

Two homes speak it: `local:DIR` (transport/local.py) and Kafka. One contract suite (tests/contract) holds both to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from stream.messages import BlobRef


class TopicPartition(NamedTuple):
    """One ordered log."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    partition: int | None = None
    """None: chosen by a stable hash of the key. Given: that partition, for co-partitioned topics with another key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is read."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    headers: Mapping[str, str]
    timestamp: float
    """Seconds since 1970, when the transport accepted it."""

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class Listener(Protocol):
    """Hears which partitions a consumer gets and loses.

    It is called from inside `Consumer.poll` and `Consumer.close`, and on Kafka also between polls, from the transport's
    own task; never two calls at once. What it raises ends the poll that is under way, or the next one.
    """

    async def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """These partitions are now ours; reading starts at their committed offset, or at the earliest record.

        None of their records is handed out before this returns.
        """

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """These partitions go to another member when this returns.

        Commit what is finished, drop the rest: until it returns, commits for them still count; afterwards they raise.
        From the moment it is called `poll` hands out none of their records.
        The trap: it may run inside `poll`, so waiting here for something that only a later `poll` brings never ends.
        """


class Consumer(Protocol):
    """One member of a group. Not safe for concurrent calls of `poll`; `commit` may run beside it."""

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions held now."""

    async def poll(self, *, max_records: int, timeout_s: float) -> Sequence[Record]:
        """Return the next records of held partitions, in offset order within each; `[]` when none came in time.

        Positions advance past what is returned; a commit does not move them. Cancelling it loses nothing.
        """

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Durably note that all records below each offset are done.

        Raises:
            PartitionLost: one is not (any longer) held by this member: its work belongs to another now. From then on
                `poll` hands out none of its records, until it is assigned anew.
            Broken: an offset is past what was read.
        """

    async def close(self) -> None:
        """Revoke everything, leave the group."""


class BlobStore(Protocol):
    """Content-addressed bytes. What `put` has acknowledged survives power loss."""

    async def put(self, data: bytes | Path) -> BlobRef:
        """Store bytes, or a file's bytes (streamed, never whole in memory); the same content again costs a look-up.

        Raises:
            DiskLow: storing it would leave less than the reserve.
        """

    async def get(self, ref: BlobRef) -> bytes:
        """Fetch bytes; of a `file:` reference too. The caller compares the digest.

        Raises:
            BlobMissing: there are no such bytes (yet).
        """

    async def exists(self, sha256: str) -> bool:
        """Whether `put` has acknowledged this content."""

    async def delete(self, sha256: str) -> None:
        """Remove; absent is fine."""


class Transport(Protocol):
    """Topics and blobs of one site. Errors: `Unavailable` when it is away, `Misuse` for an unknown topic."""

    @property
    def url(self) -> str:
        """What it was opened with, without secrets."""

    @property
    def blobs(self) -> BlobStore: ...

    @property
    def max_inline_bytes(self) -> int:
        """The largest photo that may travel inside a record; larger ones go by reference. 0: always by reference."""

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""

    async def send(self, message: Message) -> tuple[TopicPartition, int]:
        """Append; return where it lies, once it is durable. The return is the acknowledgement."""

    async def subscribe(self, group: str, topics: Sequence[str], listener: Listener) -> Consumer:
        """Join a group. Topics subscribed together are co-partitioned: a member holds partition n of all or of none."""

    def read(self, topic: str, *, partition: int | None = None, follow: bool = False) -> AsyncIterator[Record]:
        """Read without a group from the earliest record to the end as of the call; with `follow`, on for ever."""

    async def lag(self, group: str, topic: str) -> Mapping[int, int]:
        """Per partition, how many records the group has not committed yet."""

    async def close(self) -> None:
        """Release files and sockets; does not wait for consumers."""
