"""Every tile of a manifest is scored once and in order, whatever its size; what cannot be read is named."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.dataset import Manifest, ManifestError
from models.engines.protocol import EngineError, HostImage, Image, Scores, Tile, check_image
from models.evaluation.overall import evaluate
from models.evaluation.scoring import CHUNK, check_pictures, judge, read_ahead, rules_of, score_manifest
from tests.unit.models.made_releases import made_class

SIDE = 16


class Grey:
    """An engine whose every score is the mean grey of the tile's middle, 0 to 1; `spoil` may change what it says."""

    classes = ("crack", "algae")
    tile_size, release, precision, batch_sizes = SIDE, "grey", "f32", (1,)

    def __init__(self, spoil: Callable[[np.ndarray], np.ndarray] = lambda scores: scores) -> None:
        self.spoil = spoil
        self.admitted: set[int] = set()

    def admit(self, image: np.ndarray) -> Image:
        check_image(image, SIDE)
        admitted = HostImage(image)
        self.admitted.add(id(admitted))
        return admitted

    def infer(self, tiles: list[Tile]) -> Scores:
        scores = np.array([[tile.image.pixels[4:12, 4:12].mean() / 255.0] * 2 for tile in tiles], np.float32)
        return Scores(self.spoil(scores), np.zeros((len(tiles), 1), np.float32))

    def evict(self, image: Image) -> None:
        self.admitted.discard(id(image))

    def close(self) -> None:
        pass


def manifest(folder: Path, greys: list[int], sides: tuple[int, ...] = (SIDE,)) -> Manifest:
    """Pictures of one grey each; those above 127 show a crack, and nobody labelled algae."""
    paths = []
    for number, grey in enumerate(greys):
        side = sides[number % len(sides)]
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), np.full((side, side * 2 if side % 2 else side, 3), grey, np.uint8))
        paths.append(path)
    labels = np.array([[float(grey > 127), np.nan] for grey in greys], np.float32).reshape(len(greys), 2)
    return Manifest(("crack", "algae"), tuple(paths), tuple(f"s{i % 2}/g{i % 4}" for i in range(len(greys))), labels)


def test_tiles_of_any_size_are_scored_in_order_and_progress_is_told(tmp_path: Path) -> None:
    greys = [int(value) for value in np.random.default_rng(0).integers(0, 256, 2 * CHUNK + 5)]
    engine, told = Grey(), []
    scores = score_manifest(engine, manifest(tmp_path, greys, (SIDE, 9, 40, 33)), told.append)
    assert scores.probabilities[:, 0] == pytest.approx(np.array(greys) / 255.0, abs=1e-6)
    assert told == [CHUNK, 2 * CHUNK, 2 * CHUNK + 5]
    assert not engine.admitted


def test_reading_stays_ahead_and_stops_when_nobody_asks_any_more(tmp_path: Path) -> None:
    listed = manifest(tmp_path, list(range(200)))
    tiles = read_ahead(listed.images, SIDE)
    assert [int(next(tiles)[0, 0, 0]) for _ in range(3)] == [0, 1, 2]
    tiles.close()
    assert list(read_ahead((), SIDE)) == []


def test_a_score_that_is_no_number_is_an_error_and_nothing_stays_admitted(tmp_path: Path) -> None:
    engine = Grey(spoil=lambda scores: scores * np.float32(np.nan))
    with pytest.raises(EngineError, match="not a number"):
        score_manifest(engine, manifest(tmp_path, [1, 2]))
    assert not engine.admitted


def test_an_engine_that_fails_leaves_nothing_admitted(tmp_path: Path) -> None:
    def fail(_: np.ndarray) -> np.ndarray:
        raise EngineError("broken")

    engine = Grey(spoil=fail)
    with pytest.raises(EngineError, match="broken"):
        score_manifest(engine, manifest(tmp_path, [1, 2]))
    assert not engine.admitted


def test_pictures_that_are_none_are_named_before_anything_is_scored(tmp_path: Path) -> None:
    listed = manifest(tmp_path, list(range(9)))
    check_pictures(listed)
    for path in listed.images[1:8]:
        path.write_bytes(b"no picture")
    with pytest.raises(ManifestError, match=r"1\.png, .*5\.png and 2 more"):
        check_pictures(listed)


def test_a_picture_that_is_cut_off_is_named(tmp_path: Path) -> None:
    listed = manifest(tmp_path, [10, 20])
    listed.images[1].write_bytes(listed.images[1].read_bytes()[:40])
    with pytest.raises(ManifestError, match=r"1\.png"):
        score_manifest(Grey(), listed)


def test_no_tile_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no tile"):
        score_manifest(Grey(), manifest(tmp_path, []))


def test_a_judgement_has_every_source_and_all_of_them_together(tmp_path: Path) -> None:
    listed = manifest(tmp_path, [10, 240, 130, 250, 20, 30, 200, 140])
    classes = (made_class("crack", high=0.6, low=0.3), made_class("algae", trained=False, high=None, low=None))
    scores = score_manifest(Grey(), listed)
    judgement = judge(scores, listed, classes)
    assert list(judgement.metrics) == ["s0", "s1", "all"] == list(judgement.overall)
    whole = evaluate(scores.probabilities, listed.labels, listed.groups, rules_of(classes))
    assert judgement.metrics["all"] == {"crack": whole.classes["crack"]}  # algae has no label, so it has no row
    assert judgement.overall["all"] == whole.overall
    first = judgement.metrics["s0"]["crack"]
    assert (first.positives, first.negatives, first.photos) == (2, 2, 2)
    assert [one.photo for one in judgement.photos["crack"]] == ["s0/g0", "s0/g2", "s1/g1", "s1/g3"]
    assert "algae" not in judgement.photos
