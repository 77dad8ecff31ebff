"""The shipped release on this machine's CPU: it agrees with the reference, however its tiles are batched."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from models.engines.autopilot import compare_with_golden
from models.engines.openvino import OpenVinoEngine, OpenVinoOptions
from models.engines.processor import has_bf16
from models.engines.protocol import Engine, EngineError, Tile
from models.engines.trial import score_tiles
from models.release import GOLDEN_FILE, Release
from models.releases.store import default_store


@pytest.fixture(scope="module")
def release() -> Release:
    return default_store().open()


@pytest.fixture(scope="module")
def engine(release: Release) -> Iterator[Engine]:
    opened = OpenVinoEngine(release, OpenVinoOptions(precision="f32"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def golden(release: Release) -> NDArray[np.uint8]:
    with np.load(release.path(GOLDEN_FILE)) as file:
        tiles: NDArray[np.uint8] = file["tiles"]
    return tiles


def test_float32_agrees_with_the_reference_on_the_golden_tiles(engine: Engine, release: Release) -> None:
    parity = compare_with_golden(engine, release)
    assert parity.tiles >= 20
    assert parity.largest < 1e-3 and parity.agreement == 1.0


@pytest.mark.parametrize("count", [1, 2, 5, 16, 23])
def test_a_tiles_scores_do_not_depend_on_its_batch(engine: Engine, golden: NDArray[np.uint8], count: int) -> None:
    whole = score_tiles(engine, golden)
    part = score_tiles(engine, golden[:count])
    np.testing.assert_allclose(part.probabilities, whole.probabilities[:count], atol=1e-4)
    np.testing.assert_allclose(part.embeddings, whole.embeddings[:count], atol=1e-2)


def test_more_tiles_than_requests_come_back_in_their_order(engine: Engine, golden: NDArray[np.uint8]) -> None:
    image = engine.admit(np.concatenate(list(golden[:8]), axis=1))
    order = np.random.default_rng(0).integers(0, 8, size=150)
    found = engine.infer([Tile(image, 0, 256 * int(place)) for place in order])
    expected = score_tiles(engine, golden[:8])
    np.testing.assert_allclose(found.probabilities, expected.probabilities[order], atol=1e-4)
    engine.evict(image)


def test_no_tiles_give_no_scores_of_the_right_shape(engine: Engine, release: Release) -> None:
    scores = engine.infer([])
    assert scores.probabilities.shape == (0, len(engine.classes))
    assert scores.embeddings.shape == (0, release.architecture.width)


def test_an_engine_says_what_it_is(engine: Engine, release: Release) -> None:
    assert (engine.classes, engine.tile_size) == (release.names, 256)
    assert (engine.release, engine.precision) == (release.id, "f32")
    assert 1 in engine.batch_sizes


def test_a_bad_tile_fails_its_call_and_not_the_next_one(engine: Engine, golden: NDArray[np.uint8]) -> None:
    image = engine.admit(golden[0])
    with pytest.raises(EngineError, match="not inside"):
        engine.infer([Tile(image, 0, 0)] * 20 + [Tile(image, 1, 0)])
    np.testing.assert_allclose(
        engine.infer([Tile(image, 0, 0)]).probabilities, score_tiles(engine, golden[:1]).probabilities, atol=1e-4
    )


def test_a_closed_engine_says_so(release: Release) -> None:
    opened = OpenVinoEngine(release, OpenVinoOptions(batch_sizes=(1,)))
    opened.close()
    opened.close()
    with pytest.raises(EngineError, match="closed"):
        opened.infer([])


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no bfloat16 arithmetic")
def test_bfloat16_is_really_used_and_still_computes_this_network(release: Release) -> None:
    opened = OpenVinoEngine(release, OpenVinoOptions(precision="bf16", batch_sizes=(1, 4)))
    verdict = compare_with_golden(opened, release)
    opened.close()
    assert verdict.largest > 1e-5  # float32 in disguise would agree to the last digit
    assert verdict.sane


def test_batch_sizes_that_cannot_make_up_every_number_are_refused(release: Release) -> None:
    with pytest.raises(EngineError, match="without 1"):
        OpenVinoEngine(release, OpenVinoOptions(batch_sizes=(4,)))
