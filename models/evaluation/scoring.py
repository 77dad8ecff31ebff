"""Runs an engine over a manifest and turns what it says into the figures of a release."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.dataset import Manifest, ManifestError, read_tile
from models.engines.protocol import Engine, EngineError, Scores, Tile
from models.evaluation.evaluate import ClassMetrics, PhotoMetrics, Rule, photo_metrics
from models.evaluation.overall import Evaluation, Overall, evaluate
from models.release import ReleaseClass

EVERYTHING = "all"
CHUNK = 64
READERS = 2
AHEAD = 3 * CHUNK
"""Tiles that are read while the engine works on earlier ones: 38 MB of 256 px tiles."""


@dataclass(frozen=True)
class Judgement:
    """`metrics` by set and class, where a set is a source or `all`; `photos` by class.

    `overall` says of each set what only all classes together can say.
    """

    metrics: dict[str, dict[str, ClassMetrics]]
    photos: dict[str, tuple[PhotoMetrics, ...]]
    overall: dict[str, Overall]


def check_pictures(manifest: Manifest) -> None:
    """Raise ManifestError unless every file begins like a picture; nothing is decoded, so it takes a moment only."""
    bad = [path for path in manifest.images if not cv2.haveImageReader(str(path))]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise ManifestError(f"no picture that can be read: {', '.join(map(str, bad[:5]))}{more}")


def score_manifest(engine: Engine, manifest: Manifest, on_progress: Callable[[int], None] = lambda _: None) -> Scores:
    """Scores of every tile of a manifest, in its order; pictures of another size are resized.

    Threads read ahead of the engine. `on_progress` is called with the number of tiles scored so far. Raises
    ManifestError for a picture that cannot be decoded and for no tile at all, EngineError for an engine that fails or
    says what is no number.
    """
    if not len(manifest):
        raise ManifestError("there is no tile to score")
    parts, done = [], 0
    tiles = read_ahead(manifest.images, engine.tile_size)
    while chunk := list(islice(tiles, CHUNK)):
        parts.append(_scores_of(engine, chunk))
        done += len(chunk)
        on_progress(done)
    return Scores(
        np.concatenate([part.probabilities for part in parts]), np.concatenate([part.embeddings for part in parts])
    )


def read_ahead(paths: Sequence[Path], size: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures as uint8[size, size, 3], in order; a few are always being read before they are asked for."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="read") as pool:
        waiting: deque[Future[NDArray[np.uint8]]] = deque()
        try:
            for path in paths:
                waiting.append(pool.submit(read_tile, path, size))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _scores_of(engine: Engine, tiles: Sequence[NDArray[np.uint8]]) -> Scores:
    images = [engine.admit(tile) for tile in tiles]
    try:
        scores = engine.infer([Tile(image, 0, 0) for image in images])
    finally:
        for image in images:
            engine.evict(image)
    if not np.isfinite(scores.probabilities).all():
        raise EngineError(f"{engine.release} in {engine.precision}: a score is not a number")
    return scores


def rules_of(classes: Sequence[ReleaseClass]) -> tuple[Rule, ...]:
    """When a release calls its classes."""
    return tuple(Rule(one.name, one.high, one.low, one.weight) for one in classes)


def judge(scores: Scores, manifest: Manifest, classes: Sequence[ReleaseClass]) -> Judgement:
    """Figures of every class that has labels, on each source alone and on all of them together."""
    rules, names = rules_of(classes), np.asarray(manifest.groups)
    sources = manifest.sources
    sets: dict[str, Evaluation] = {}
    for name in (*np.unique(sources).tolist(), EVERYTHING):
        here = (sources == name) | (name == EVERYTHING)
        sets[name] = evaluate(scores.probabilities[here], manifest.labels[here], names[here].tolist(), rules)
    photos = {
        rule.name: tuple(
            photo_metrics(scores.probabilities[:, column], manifest.labels[:, column], manifest.groups, rule.high)
        )
        for column, rule in enumerate(rules)
        if rule.high is not None
    }
    metrics = {name: {key: one for key, one in found.classes.items() if one.photos} for name, found in sets.items()}
    return Judgement(metrics, photos, {name: found.overall for name, found in sets.items()})
