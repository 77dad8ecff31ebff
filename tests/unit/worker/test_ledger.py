"""No commit ever passes an open frame, whatever the order in which frames finish."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.transport.protocol import TopicPartition
from stream.worker.ledger import Entry, Ledger

TP = TopicPartition("frames", 0)
OTHER = TopicPartition("frames", 1)


def test_the_head_moves_only_over_finished_frames() -> None:
    ledger = Ledger()
    a, b, c = (ledger.open(TP, offset) for offset in (4, 5, 9))  # offsets may have gaps
    assert not ledger.close(b) and ledger.head(TP) is None
    assert ledger.close(a) and ledger.head(TP) == 6
    assert ledger.close(c) and ledger.head(TP) == 10
    assert not ledger.close(c)  # a repeat changes nothing
    assert ledger.open_in(TP) == 0


def test_offsets_must_rise() -> None:
    ledger = Ledger()
    ledger.close(ledger.open(TP, 3))
    with pytest.raises(ValueError, match="offset 3 opened after 3"):
        ledger.open(TP, 3)


def test_a_dropped_partition_forgets_its_open_frames_and_starts_anew() -> None:
    ledger = Ledger()
    entry, kept = ledger.open(TP, 7), ledger.open(OTHER, 1)
    ledger.drop(TP)
    assert not ledger.holds(entry) and not ledger.close(entry) and ledger.head(TP) is None
    assert ledger.open(TP, 5).offset == 5  # the next owner may have committed less than we had open
    assert ledger.close(kept) and ledger.head(OTHER) == 2


@given(st.data(), st.integers(1, 30))
def test_never_commits_past_an_open_frame_for_any_completion_order(data: st.DataObject, count: int) -> None:
    ledger = Ledger()
    waiting: list[tuple[TopicPartition, int]] = [(tp, offset) for offset in range(count) for tp in (TP, OTHER)]
    opened: list[Entry] = []
    while waiting or opened:
        if waiting and (not opened or data.draw(st.booleans())):
            opened.append(ledger.open(*waiting.pop(0)))
        else:
            ledger.close(opened.pop(data.draw(st.integers(0, len(opened) - 1))))
        for tp in (TP, OTHER):
            open_offsets = [entry.offset for entry in opened if entry.tp == tp]
            unopened = [offset for at, offset in waiting if at == tp]
            assert (ledger.head(tp) or 0) <= min(open_offsets + unopened, default=count)
    assert ledger.head(TP) == ledger.head(OTHER) == count
