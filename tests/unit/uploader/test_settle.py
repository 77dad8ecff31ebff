"""When a watched file is taken, for any way of writing it; and the driver over real folders with a clock by hand."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from stream.uploader.report import Refused
from stream.uploader.scan import Found
from stream.uploader.settle import Settle, Watch

FILE = Path("/card/pier.jpg")
LOOKS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.floats(0.01, 5)), min_size=1, max_size=60)


@given(looks=LOOKS, settle_s=st.floats(0.0, 4.0))
def test_a_file_is_taken_once_per_state_and_only_when_that_state_has_lasted(
    looks: list[tuple[int, int, float]], settle_s: float
) -> None:
    settle = Settle(settle_s)
    now, state, since, taken = 0.0, None, 0.0, 0
    for size, mtime_ns, pause_s in looks:
        now += pause_s
        if state != (size, mtime_ns):
            state, since, taken = (size, mtime_ns), now, 0
        due = settle.due(FILE, size, mtime_ns, now)
        taken += due
        assert taken == (now - since >= settle_s), "taken exactly once, as soon as it has lasted"


def test_files_do_not_disturb_one_another() -> None:
    settle = Settle(2.0)
    other = Path("/card/deck.jpg")
    assert not settle.due(FILE, 10, 1, 0.0)
    assert not settle.due(other, 10, 1, 1.0)
    assert settle.due(FILE, 10, 1, 2.0)
    assert not settle.due(other, 10, 1, 2.0)
    assert settle.due(other, 10, 1, 3.0)


def test_a_file_that_was_away_has_to_settle_again() -> None:
    settle = Settle(2.0)
    settle.due(FILE, 10, 1, 0.0)
    assert settle.due(FILE, 10, 1, 2.0)
    settle.retain([])
    assert not settle.due(FILE, 10, 1, 3.0)
    assert settle.due(FILE, 10, 1, 5.0)


def test_a_growing_file_is_taken_once_and_whole(tmp_path: Path) -> None:
    card = tmp_path / "card"
    card.mkdir()
    photo = card / "pier.jpg"
    watch = Watch([card], settle_s=2.0)
    with photo.open("wb") as file:
        for second in range(6):
            file.write(b"x" * 1000)
            file.flush()
            assert watch.look(float(second)) == []
    assert watch.look(6.0) == []
    (due,) = watch.look(7.0)
    assert isinstance(due, Found)
    assert due.size == 6000
    assert watch.look(8.0) == []


def test_a_card_that_is_put_in_later_is_waited_for_and_named(tmp_path: Path) -> None:
    card = tmp_path / "card"
    watch = Watch([card], settle_s=1.0)
    assert watch.look(0.0) == []
    assert list(watch.missing) == [card]
    card.mkdir()
    (card / "pier.jpg").write_bytes(b"x")
    assert watch.look(1.0) == []
    assert list(watch.missing) == []
    assert [item.path for item in watch.look(2.0)] == [card / "pier.jpg"]


def test_a_card_that_was_pulled_out_and_comes_back_settles_anew(tmp_path: Path) -> None:
    card, away = tmp_path / "card", tmp_path / "away"
    card.mkdir()
    (card / "pier.jpg").write_bytes(b"x")
    watch = Watch([card], settle_s=1.0)
    assert [len(watch.look(now)) for now in (0.0, 1.0, 2.0)] == [0, 1, 0]
    card.rename(away)
    assert watch.look(3.0) == []
    away.rename(card)
    assert [len(watch.look(now)) for now in (4.0, 5.0, 6.0)] == [0, 1, 0]


def test_what_cannot_be_read_is_told_once_until_it_changes(tmp_path: Path) -> None:
    link = tmp_path / "gone.jpg"
    link.symlink_to(tmp_path / "nowhere")
    watch = Watch([tmp_path], settle_s=1.0)
    (refused,) = watch.look(0.0)
    assert isinstance(refused, Refused)
    assert watch.look(1.0) == []
    link.unlink()
    assert watch.look(2.0) == []
    link.symlink_to(tmp_path / "nowhere")
    assert watch.look(3.0) == [refused]
