"""Sharing by locks: the shares add up, locks exclude, and what the dead leave behind is removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import Misuse
from stream.transport.local_group import Membership, fair_share


@given(partitions=st.integers(1, 64), members=st.integers(1, 80))
def test_fair_shares_add_up_and_differ_by_one_at_most(partitions: int, members: int) -> None:
    shares = [fair_share(partitions, members, rank) for rank in range(members)]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


def joined(folder: Path, topics: tuple[str, ...] = ("frames",)) -> Membership:
    member = Membership(folder, topics, 4)
    member.join()
    return member


def test_a_partition_has_one_owner_even_within_one_process(tmp_path: Path) -> None:
    a, b = joined(tmp_path / "g"), joined(tmp_path / "g")
    assert a.take(2) and not b.take(2)
    assert (a.held, b.held) == ([2], [])
    a.release(2)
    assert not a.owns(2) and b.take(2) and b.owns(2)
    a.leave()
    b.leave()


def test_shares_follow_who_is_there_and_the_oldest_has_the_larger_one(tmp_path: Path) -> None:
    members = [joined(tmp_path / "g") for _ in range(3)]
    assert [member.share() for member in members] == [2, 1, 1]
    members.pop(0).leave()
    assert [member.share() for member in members] == [2, 2]
    for member in members:
        member.leave()


def test_the_member_file_of_a_dead_process_is_not_counted_and_is_removed(tmp_path: Path) -> None:
    member = joined(tmp_path / "g")
    dead = tmp_path / "g" / "members" / "00000000000000000001-7-abcd"
    dead.write_text("frames")  # nobody holds its lock
    assert member.share() == 4
    assert not dead.exists()
    member.leave()
    assert list((tmp_path / "g" / "members").iterdir()) == []


def test_a_living_member_with_other_topics_keeps_a_newcomer_out_and_a_dead_one_does_not(tmp_path: Path) -> None:
    first = joined(tmp_path / "g", ("results", "decisions"))
    same = joined(tmp_path / "g", ("decisions", "results"))
    with pytest.raises(Misuse, match="decisions,results by a running member"):
        joined(tmp_path / "g", ("frames",))
    assert first.share() == 2  # the refused one is not counted
    first.leave()
    same.leave()
    joined(tmp_path / "g", ("frames",)).leave()


def test_leaving_twice_is_fine(tmp_path: Path) -> None:
    member = joined(tmp_path / "g")
    member.take(0)
    member.leave()
    member.leave()
    assert member.held == []
