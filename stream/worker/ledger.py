"""The ledger knows which frames are open and how far each partition may be committed: never past an open one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from stream.transport.protocol import TopicPartition


@dataclass(slots=True, eq=False)
class Entry:
    """One frame's place in the ledger, handed out by `open` and handed back to `close`."""

    tp: TopicPartition
    offset: int
    closed: bool = False
    dropped: bool = False
    """Its partition went to another worker: nothing of it counts here any more."""


@dataclass(slots=True)
class Ledger:
    """Open frames per partition, in offset order, and the contiguous finished head of each.

    It does no I/O and asks no clock. Offsets may have gaps (retention, compaction); they must rise.
    """

    _entries: dict[TopicPartition, deque[Entry]] = field(default_factory=dict)
    _heads: dict[TopicPartition, int] = field(default_factory=dict)

    def open(self, tp: TopicPartition, offset: int) -> Entry:
        """Note that this frame is being worked on.

        Raises:
            ValueError: the offset does not rise: committing it could pass an open frame.
        """
        entries = self._entries.setdefault(tp, deque())
        floor = entries[-1].offset if entries else self._heads.get(tp, 0) - 1
        if offset <= floor:
            raise ValueError(f"{tp.topic}[{tp.partition}]: offset {offset} opened after {floor}")
        entry = Entry(tp, offset)
        entries.append(entry)
        return entry

    def close(self, entry: Entry) -> bool:
        """Note that this frame is answered; True if that moved the head of its partition."""
        if entry.dropped or entry.closed:
            return False
        entry.closed = True
        entries = self._entries[entry.tp]
        moved = False
        while entries and entries[0].closed:
            self._heads[entry.tp] = entries.popleft().offset + 1
            moved = True
        return moved

    def holds(self, entry: Entry) -> bool:
        """Whether the entry's partition is still ours."""
        return not entry.dropped

    def head(self, tp: TopicPartition) -> int | None:
        """The offset to commit: every frame below it is answered. None: nothing to commit yet."""
        return self._heads.get(tp)

    def open_in(self, *tps: TopicPartition) -> int:
        """How many frames of these partitions are open; of all partitions if none is named."""
        chosen = tps or tuple(self._entries)
        return sum(not entry.closed for tp in chosen for entry in self._entries.get(tp, ()))

    def drop(self, tp: TopicPartition) -> None:
        """Forget a partition that went to another worker; its entries never move a head again."""
        for entry in self._entries.pop(tp, ()):
            entry.dropped = True
        self._heads.pop(tp, None)
