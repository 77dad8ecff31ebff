"""Ids come from content: no order, no repeat and no clock changes them; what a noun says survives the wire."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import BadFrame
from stream.messages import (
    SCHEMA_VERSION,
    Alert,
    Frame,
    Grid,
    alert_id,
    check_version,
    content_id,
    decode,
    encode,
    envelope,
    result_id,
)

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x1f"), max_size=8)
GRID = Grid(tile_px=256, overlap_px=0, rows=2, cols=3, width=768, height=512)


@given(st.lists(NAMES, min_size=1, max_size=4), st.lists(NAMES, min_size=1, max_size=4))
def test_different_parts_never_share_an_id_and_equal_parts_always_do(first: list[str], second: list[str]) -> None:
    assert (content_id(*first) == content_id(*second)) == (first == second)


def test_a_part_that_could_blur_the_borders_is_refused() -> None:
    with pytest.raises(ValueError, match="separator"):
        content_id("a\x1fb")


@given(st.permutations([(asset, frame) for asset in "ab" for frame in "xyz"]))
def test_ids_do_not_depend_on_order_or_repeats(order: list[tuple[str, str]]) -> None:
    ids = {(asset, frame): alert_id(asset, "crack", frame, (1, 2)) for asset, frame in [*order, *order]}
    assert len(set(ids.values())) == 6
    assert ids[("a", "x")] == alert_id("a", "crack", "x", (1, 2))


def test_a_result_id_changes_with_frame_grid_and_correction_and_with_nothing_else() -> None:
    frame = Frame(frame_id="f" * 64, asset="a")
    same = msgspec.structs.replace(frame, name="other name", drone="other", width=3, captured_at=datetime.now(UTC))
    assert result_id(frame, GRID) == result_id(same, GRID)
    others = [
        result_id(msgspec.structs.replace(frame, frame_id="e" * 64), GRID),
        result_id(msgspec.structs.replace(frame, correction=1), GRID),
        result_id(frame, msgspec.structs.replace(GRID, overlap_px=32)),
    ]
    assert len({result_id(frame, GRID), *others}) == 4


def test_what_is_encoded_twice_is_the_same_bytes() -> None:
    frame = Frame(frame_id="f", asset="a", captured_at=datetime(2026, 5, 1, tzinfo=UTC))
    assert encode(frame) == encode(decode(encode(frame), Frame))


@pytest.mark.parametrize(
    ("version", "readable"), [("1.0", True), ("1.9", True), ("0.3", True), ("2.0", False), ("x", False)]
)
def test_a_newer_minor_version_is_read_and_a_newer_major_one_is_not(version: str, readable: bool) -> None:
    headers = {"ce_type": f"spanwatch.Frame.v{version}"}
    if readable:
        check_version(headers)
    else:
        with pytest.raises(BadFrame) as caught:
            check_version(headers)
        assert caught.value.reason == "unknown_schema"


def test_the_envelope_is_cloudevents_1_0() -> None:
    headers = envelope(Alert, "id", "site/findings", datetime(2026, 5, 1, tzinfo=UTC))
    assert headers == {
        "ce_specversion": "1.0",
        "ce_id": "id",
        "ce_type": f"spanwatch.Alert.v{SCHEMA_VERSION}",
        "ce_source": "site/findings",
        "ce_time": "2026-05-01T00:00:00+00:00",
    }


def test_bytes_that_are_not_utf_8_are_a_decode_error_like_any_other() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(b'{"frame_id": "\xff", "asset": "a"}', Frame)
