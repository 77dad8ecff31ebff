"""Twelve kinds of bad input and more: what can be read is read right, the rest is dead, its bytes kept."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from stream import dead as dead_box
from stream.messages import HEADER_FRAME, BlobRef, DeadFrame, Frame, Result, decode, encode, envelope
from stream.transport.protocol import Message, Transport
from tests import badphotos
from tests.system import line
from tests.system.line import Role

DEAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "text": (badphotos.text(), "not_a_photo"),
    "video": (badphotos.video(), "video"),
    "truncated jpeg": (badphotos.truncated_jpeg(), "truncated"),
    "corrupt middle": (badphotos.corrupted_jpeg(), "corrupt"),
    "bigger than the limit": (badphotos.giant_png(), "too_large"),
}
READ: dict[str, tuple[bytes, tuple[int, int]]] = {
    "cmyk": (badphotos.cmyk_jpeg(), (320, 240)),
    "progressive": (badphotos.progressive_jpeg(), (320, 240)),
    "grey": (badphotos.grey_jpeg(), (320, 240)),
    "rotated by exif": (badphotos.rotated_jpeg(6), (240, 320)),
    "16-bit png": (badphotos.sixteen_bit_png(), (320, 240)),
    "1x1": (badphotos.one_pixel(), (1, 1)),
}


async def answered(transport: Transport, log: Path) -> tuple[dict[str, Result], dict[str, DeadFrame]]:
    """Run one worker until nothing is open; results and dead frames by frame id."""
    worker = Role.start("worker", log)
    await line.all_answered(transport)
    assert worker.stop() == 0  # it never stops for them
    results = [decode(record.value, Result) async for record in transport.read("results")]
    dead = [decode(record.value, DeadFrame) async for record in transport.read("dead-frames")]
    return {result.frame.frame_id: result for result in results}, {one.frame_id: one for one in dead}


@pytest.mark.slow
def test_what_can_be_read_is_read_right_and_the_rest_is_dead_with_a_reason(tmp_path: Path) -> None:
    async def test() -> None:
        async with line.opened(tmp_path) as transport:
            ids = {name: await line.send(transport, data, name=name) for name, (data, _) in (DEAD | READ).items()}
            wrong = line.photo(1)
            ids["wrong sha256"] = await line.send(transport, wrong, frame_id=sha256(b"another").hexdigest())
            lost = BlobRef(sha256="0" * 64, size_bytes=5, url=f"blob:{'0' * 64}")
            ids["missing blob"] = await line.send_frame(transport, Frame(frame_id="0" * 64, asset="a", blob=lost))
            newer = {"ce_type": "spanwatch.Frame.v2.0"}
            blob = await transport.blobs.put(line.photo(2))
            frame = Frame(frame_id=blob.sha256, asset="a", blob=blob)
            ids["newer schema"] = await line.send_frame(transport, frame, newer)
            await transport.send(Message(topic="frames", key="no header", value=line.photo(4)))
            results, dead = await answered(transport, tmp_path)

            expected = {name: reason for name, (_, reason) in DEAD.items()}
            expected |= {
                "wrong sha256": "sha256_mismatch",
                "missing blob": "blob_missing",
                "newer schema": "unknown_schema",
            }
            assert {name: dead[ids[name]].reason for name in expected} == expected
            assert dead["no header"].reason == "bad_header"
            for one in dead.values():
                assert len(one.detail) > 20  # a sentence, for a person
                if one.reason not in ("empty", "blob_missing"):
                    assert one.blob is not None and await transport.blobs.exists(one.blob.sha256)
            sizes = {name: (results[ids[name]].grid.width, results[ids[name]].grid.height) for name in READ}
            assert sizes == {name: size for name, (_, size) in READ.items()}
            assert results[ids["1x1"]].grid.padded

    line.run(test)


@pytest.mark.slow
def test_a_newer_minor_version_is_read_and_unknown_fields_are_left_alone(tmp_path: Path) -> None:
    async def test() -> None:
        async with line.opened(tmp_path) as transport:
            blob = await transport.blobs.put(line.photo(1))
            frame = encode(Frame(frame_id=blob.sha256, asset="a", blob=blob)).decode()
            text = frame[:-1] + ',"colour_of_the_drone":"red"}'
            headers = envelope(Frame, blob.sha256, "test", datetime.now(UTC)) | {"ce_type": "spanwatch.Frame.v1.7"}
            headers[HEADER_FRAME] = text
            await transport.send(Message(topic="frames", key=blob.sha256, value=b"", headers=headers))
            results, dead = await answered(transport, tmp_path)
            assert set(results) == {blob.sha256} and not dead

    line.run(test)


@pytest.mark.slow
def test_dead_retry_sends_one_back_and_it_is_answered(tmp_path: Path) -> None:
    async def test() -> None:
        async with line.opened(tmp_path) as transport:
            data = line.photo(1)
            late = BlobRef(
                sha256=sha256(data).hexdigest(), size_bytes=len(data), url=f"blob:{sha256(data).hexdigest()}"
            )
            frame_id = await line.send_frame(transport, Frame(frame_id=late.sha256, asset="a", blob=late))
            _, dead = await answered(transport, tmp_path)
            assert dead[frame_id].reason == "blob_missing"
            (entry,) = await dead_box.read(transport)
            assert entry.state == "dead"

            await transport.blobs.put(data)  # the card was found after all
            await dead_box.send_back(transport, entry, source="test", now=datetime.now(UTC))
            assert [entry.state for entry in await dead_box.read(transport)] == ["sent back"]
            results, _ = await answered(transport, tmp_path)
            assert set(results) == {frame_id}
            assert [entry.state for entry in await dead_box.read(transport)] == ["answered"]

    line.run(test)


@pytest.mark.slow
def test_the_breaker_stops_the_worker_with_exit_code_1(tmp_path: Path) -> None:
    async def test() -> None:
        async with line.opened(tmp_path) as transport:
            for number in range(25):
                await line.send(transport, f"not a photo {number}".encode())
            assert Role.start("worker", tmp_path).wait() == 1
            await line.check_commits(transport)
            seen = await line.look(transport)
            assert 20 <= len(seen.dead) <= 25

    line.run(test)
