"""Runs an engine over a manifest and turns what it says into the figures of a release."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.dataset import Manifest, read_tile
from models.engines.autopilot import score_tiles
from models.engines.protocol import Engine, Scores
from models.evaluate import ClassMetrics, PhotoMetrics, class_metrics, photo_metrics
from models.release import ReleaseClass

EVERYTHING = "all"
CHUNK = 64


@dataclass(frozen=True)
class Judgement:
    """`metrics` by set and class, where a set is a source (the first word of a group) or `all`; `photos` by class."""

    metrics: dict[str, dict[str, ClassMetrics]]
    photos: dict[str, tuple[PhotoMetrics, ...]]


def score_manifest(engine: Engine, manifest: Manifest) -> Scores:
    """Scores of every tile of a manifest, in its order; pictures of another size are resized."""
    parts = []
    for start in range(0, len(manifest), CHUNK):
        paths = manifest.images[start : start + CHUNK]
        parts.append(score_tiles(engine, np.stack([read_tile(path, engine.tile_size) for path in paths])))
    return Scores(
        np.concatenate([part.probabilities for part in parts]), np.concatenate([part.embeddings for part in parts])
    )


def judge(scores: Scores, manifest: Manifest, classes: tuple[ReleaseClass, ...]) -> Judgement:
    """Figures of every class that has thresholds, on each source alone and on all of them together."""
    groups = np.asarray(manifest.groups)
    sources = np.array([group.split("/")[0] for group in manifest.groups])
    metrics: dict[str, dict[str, ClassMetrics]] = {}
    photos: dict[str, tuple[PhotoMetrics, ...]] = {}
    for column, one in enumerate(classes):
        probability, labels = scores.probabilities[:, column], manifest.labels[:, column]
        if one.high is None:
            continue
        for name in (*np.unique(sources), EVERYTHING):
            here = (sources == name) | (name == EVERYTHING)
            figures = class_metrics(probability[here], labels[here], list(groups[here]), one.high)
            if figures.positives + figures.negatives:
                metrics.setdefault(str(name), {})[one.name] = figures
        photos[one.name] = tuple(photo_metrics(probability, labels, list(groups), one.high))
    return Judgement(metrics, photos)
