"""The autopilot measures once on this machine, remembers, says what it chose and why, and lives with what it lacks."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from models.engines.autopilot import Pace, build, choose, open_chosen, open_engine
from models.engines.candidates import Conditions
from models.engines.choices import FILE, read_choice, this_machine, write_choice
from models.engines.protocol import EngineError, Tile
from models.engines.scripted import ScriptedEngine
from models.engines.trial import CALL_TILES, evidence, golden, rate, rates
from models.release import EVALUATION_FILE, GOLDEN_FILE, INT8_FILE, MODEL_FILE, Release
from tests.unit.models.few_tiles import with_few_tiles

FAST = Pace(rounds=1, seconds=0.0)


def on_one_core(folder: Path) -> Conditions:
    return Conditions(threads=1, backend="openvino", folder=folder)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """What ships, as if it had no int8 file: of that, something else is shown."""
    shipped = with_few_tiles(tmp_path_factory.mktemp("release"))
    return msgspec.structs.replace(shipped, files={k: v for k, v in shipped.files.items() if k != INT8_FILE})


@pytest.fixture(scope="module")
def cache(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    build(release, on_one_core(folder), FAST)
    return folder


def test_every_precision_is_tried_and_one_that_cannot_be_had_keeps_the_reason(release: Release, cache: Path) -> None:
    choice = read_choice(cache, this_machine(release, on_one_core(cache)))
    assert choice is not None
    tried = {one.precision: one for one in choice.trials}
    assert set(tried) == {"f32", "bf16", "int8"}
    assert tried["f32"].passed and (tried["f32"].tiles_per_second or 0.0) > 0.0
    assert INT8_FILE in tried["int8"].failed and tried["int8"].tiles_per_second is None
    assert tried[choice.precision].passed and f"openvino int8: the release holds no {INT8_FILE}" in choice.why


def test_what_was_measured_is_not_measured_again(release: Release, cache: Path) -> None:
    before = (cache / FILE).read_bytes()
    known = read_choice(cache, this_machine(release, on_one_core(cache)))
    assert choose(release, on_one_core(cache)) == known
    assert (cache / FILE).read_bytes() == before


def test_an_engine_that_is_opened_says_what_was_chosen_and_why(
    release: Release, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="models"):
        opened, why = open_chosen(release, "auto", on_one_core(cache))
    opened.close()
    lines = [record.getMessage() for record in caplog.records if "engine chosen" in record.getMessage()]
    assert (
        len(lines) == 1 and f"precision={opened.precision} tiles_per_second=" in lines[0] and f"why={why!r}" in lines[0]
    )
    assert "the gate passed" in why


def test_a_remembered_precision_that_fails_is_measured_again(
    release: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture, cache: Path
) -> None:
    chosen = read_choice(cache, this_machine(release, on_one_core(cache)))
    assert chosen is not None
    changed = msgspec.structs.replace(chosen, precision="int8")
    write_choice(tmp_path, changed)
    with caplog.at_level(logging.WARNING, logger="models"):
        opened = open_engine(release, "auto", on_one_core(tmp_path))
    opened.close()
    assert "measuring again" in caplog.text and opened.precision != "int8"
    renewed = read_choice(tmp_path, this_machine(release, on_one_core(cache)))
    assert renewed is not None and renewed.precision == opened.precision


def test_a_folder_that_cannot_be_written_costs_the_memory_and_nothing_else(
    release: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="models"):
        choice = build(release, on_one_core(tmp_path / "file" / "cache"), FAST)
    assert choice.tiles_per_second > 0.0 and "cannot be kept" in caplog.text


def test_a_precision_that_is_asked_for_is_had_or_refused(release: Release) -> None:
    opened, why = open_chosen(release, "f32", Conditions(threads=1))
    assert opened.precision == "f32" and why == "f32 was asked for"
    opened.close()
    with pytest.raises(EngineError, match=INT8_FILE):
        open_engine(release, "int8", Conditions(threads=1))


def test_golden_tiles_of_another_network_are_refused(release: Release, tmp_path: Path) -> None:
    known = golden(release)
    for name in release.files:
        (tmp_path / name).write_bytes(release.path(name).read_bytes())
    np.savez(tmp_path / "golden.npz", tiles=known.tiles, probabilities=1.0 - known.expected)
    with pytest.raises(EngineError, match="differ from the reference"):
        open_engine(msgspec.structs.replace(release, folder=tmp_path), "f32", Conditions(threads=1))


def with_evaluation(release: Release, folder: Path, content: dict[str, np.ndarray]) -> Release:
    """The release with other labelled tiles, or with none."""
    for name in (GOLDEN_FILE, MODEL_FILE):
        (folder / name).write_bytes(release.path(name).read_bytes())
    np.savez(folder / EVALUATION_FILE, **content)
    files = {**release.files, EVALUATION_FILE: ""}
    return msgspec.structs.replace(release, files=files, folder=folder)


def test_evidence_is_the_golden_tiles_and_then_the_labelled_ones_as_they_are_decoded(
    release: Release, tmp_path: Path
) -> None:
    known = golden(release)
    packed = []
    for tile in known.tiles[:3]:
        file = io.BytesIO()
        Image.fromarray(tile).save(file, "JPEG", quality=95)
        packed.append(file.getvalue())
    labels = np.full((3, len(release.classes)), np.nan, dtype=np.float32)
    labels[1, 0] = 1.0
    content = {
        "jpeg": np.frombuffer(b"".join(packed), dtype=np.uint8),
        "ends": np.cumsum([len(one) for one in packed]),
        "labels": labels,
        "probabilities": known.expected[:3],
    }
    seen = evidence(with_evaluation(release, tmp_path, content))
    count = len(known.tiles)
    assert len(seen.tiles) == count + 3 and np.array_equal(seen.tiles[:count], known.tiles)
    assert np.abs(seen.tiles[count:].astype(int) - known.tiles[:3]).mean() < 5.0  # JPEG, and in the right order
    assert np.isnan(seen.labels[:count]).all() and seen.labels[count + 1, 0] == 1.0
    np.testing.assert_array_equal(seen.expected[count:], known.expected[:3])
    with pytest.raises(EngineError, match="no labelled tiles"):
        evidence(with_evaluation(release, tmp_path, {**content, "jpeg": content["jpeg"][:100]}))
    with pytest.raises(EngineError, match="no labelled tiles"):
        evidence(with_evaluation(release, tmp_path, {"labels": labels}))
    with pytest.raises(EngineError, match="more of one thing"):
        evidence(with_evaluation(release, tmp_path, {**content, "labels": labels[:2]}))


def test_without_labelled_tiles_the_golden_ones_are_all_there_is(release: Release) -> None:
    files = {name: digest for name, digest in release.files.items() if name != EVALUATION_FILE}
    seen = evidence(msgspec.structs.replace(release, files=files))
    assert len(seen.tiles) == len(golden(release).tiles) and np.isnan(seen.labels).all()


def test_a_measurement_needs_a_whole_call() -> None:
    engine = ScriptedEngine()
    image = engine.admit(np.zeros((256, 256, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="at least"):
        rate(engine, [Tile(image, 0, 0)] * (CALL_TILES - 1), 0.0)
    assert rate(engine, [Tile(image, 0, 0)] * CALL_TILES, 0.0) > 0.0
    assert engine.calls == [CALL_TILES]


def test_rounds_are_interleaved_and_leave_no_picture_behind() -> None:
    engines = {"a": ScriptedEngine(), "b": ScriptedEngine()}
    found = rates(dict(engines), 0.0, 3)
    assert {name: len(values) for name, values in found.items()} == {"a": 3, "b": 3}
    assert all(not engine.admitted and len(engine.calls) == 4 for engine in engines.values())  # one to warm up
