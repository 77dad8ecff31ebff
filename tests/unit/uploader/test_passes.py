"""Which pass of a frame goes out: every combination of what the outbox remembers and what is asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from stream.messages import Frame, RecordPosition
from stream.uploader.outbox import Entry
from stream.uploader.passes import Elsewhere, next_pass

WISH = Frame(frame_id="f" * 64, asset="bridge-3", flight="monday", sequence=4)
SAME = msgspec.structs.replace(WISH, correction=2)
ASSET = msgspec.structs.replace(SAME, asset="bridge-4")
FLIGHT = msgspec.structs.replace(SAME, flight="tuesday")


def entry(frame: Frame, *, acknowledged: bool) -> Entry:
    where = RecordPosition(topic="frames", partition=0, offset=7) if acknowledged else None
    return Entry(frame, Path("/card/pier.jpg"), where, datetime(2024, 5, 17, tzinfo=UTC) if acknowledged else None)


def test_an_unknown_photo_goes_out_in_pass_0() -> None:
    assert next_pass(None, WISH) == WISH
    assert WISH.correction == 0


@pytest.mark.parametrize("correcting", [False, True])
def test_what_the_destination_has_as_wished_is_not_sent(correcting: bool) -> None:
    assert next_pass(entry(SAME, acknowledged=True), WISH, correcting=correcting) is None


@pytest.mark.parametrize("correcting", [False, True])
def test_what_may_have_been_sent_goes_out_again_as_it_was(correcting: bool) -> None:
    assert next_pass(entry(SAME, acknowledged=False), WISH, correcting=correcting) == SAME


@pytest.mark.parametrize("known", [ASSET, FLIGHT], ids=["asset", "flight"])
def test_an_upload_moves_nothing_that_was_acknowledged(known: Frame) -> None:
    with pytest.raises(Elsewhere) as refusal:
        next_pass(entry(known, acknowledged=True), WISH)
    assert refusal.value.known == known


@pytest.mark.parametrize("known", [ASSET, FLIGHT], ids=["asset", "flight"])
@pytest.mark.parametrize(("acknowledged", "correcting"), [(True, True), (False, True), (False, False)])
def test_two_different_frames_never_share_a_pass(known: Frame, acknowledged: bool, correcting: bool) -> None:
    sent = next_pass(entry(known, acknowledged=acknowledged), WISH, correcting=correcting)
    assert sent == msgspec.structs.replace(WISH, correction=3)
