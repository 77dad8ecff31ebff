"""Every record of a partition once, in its order: what is left out between the fetch and the work is noticed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field


class Hole(Exception):
    """A record was not handed out, though the log has it; the message says which."""


@dataclass(slots=True)
class _Line:
    """One partition."""

    taken: int
    """The offset after the last record taken."""
    fetched: int
    """The offset after the last record fetched."""
    asked: int | None = None
    """From this offset on records were asked for once more."""
    bare: dict[int, int] = field(default_factory=dict)
    """Where the log itself has no records: first offset without -> next one with. A transaction's marker is such."""


class Order:
    """What is due next in each partition, at the fetch and at the work. It does no I/O.

    A library that fetches ahead and is interrupted by a rebalance may hand out what it fetched for an assignment that
    is over, or nothing for a stretch. An offset that is missing may also be missing in the log. The two are told apart
    by fetching once more from where the stretch begins: if the same record comes first again, the log has none before.
    """

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line] = {}

    def begin(self, line: Hashable, offset: int) -> None:
        """A partition is ours, and this offset is the first that is due."""
        self._lines[line] = _Line(taken=offset, fetched=offset)

    def clear(self) -> None:
        """No partition is ours."""
        self._lines.clear()

    def __contains__(self, line: object) -> bool:
        return line in self._lines

    def rewind(self, line: Hashable) -> int:
        """Everything fetched and not taken was thrown away: where to fetch on."""
        known = self._lines[line]
        known.fetched, known.asked = known.taken, None
        return known.fetched

    def fetched(self, line: Hashable, offsets: Sequence[int]) -> int | None:
        """Look at what one fetch brought, in its order, not empty: None to pass it on, or where to fetch instead."""
        known = self._lines[line]
        first, due = offsets[0], known.fetched
        if first > due and known.asked != due:
            known.asked = due
            return due
        for before, after in zip([due, *(offset + 1 for offset in offsets)], offsets, strict=False):
            if after > before:
                known.bare[before] = after
        known.fetched, known.asked = max(due, offsets[-1] + 1), None
        return None

    def take(self, line: Hashable, offset: int) -> bool:
        """Whether this record is to be worked off; False: it was already, or its partition is not ours.

        Raises:
            Hole: records before it were not handed out.
        """
        known = self._lines.get(line)
        if known is None or offset < known.taken:
            return False
        if offset != known.bare.pop(known.taken, known.taken):
            raise Hole(f"offset {known.taken} was due, {offset} came")
        known.taken = offset + 1
        return True
