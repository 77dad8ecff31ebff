"""How much a network has understood before it was told a label: two simple readers of its embeddings."""

from __future__ import annotations

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.dataset import Manifest, read_tile
from models.evaluation.measures import average_precision
from models.training.precision import mixed
from models.vit import DefectNetwork

NEIGHBOURS = 20
FOLDS = 5
TILES = 1500
"""Enough for a second digit, few enough for two minutes on two cores."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Average precision of one class, on groups that the reader has not seen; `chance` is the share of positives."""

    tiles: int
    chance: float
    neighbours: float
    linear: float


def probe(network: DefectNetwork, manifest: Manifest) -> dict[str, Probe]:
    """Read a network's embeddings of labelled tiles: by the 20 nearest tiles of other groups, and by a logistic line.

    Classes that are not shown, and not missing, in as many groups as there are folds are left out.
    """
    some = _balanced(manifest)
    embeddings = _embeddings(network, some)
    groups = np.asarray(some.groups)
    found = {}
    for column, name in enumerate(some.classes):
        known = ~np.isnan(some.labels[:, column])
        present = some.labels[known, column] == 1
        if min(len(set(groups[known][present])), len(set(groups[known][~present]))) >= FOLDS:
            found[name] = read(embeddings[known], present, groups[known])
    return found


def read(embeddings: NDArray[np.float32], present: NDArray[np.bool_], groups: NDArray[np.str_]) -> Probe:
    """Both readers on one class: float32[n, width], bool[n], and whose tile each is."""
    return Probe(
        tiles=len(present),
        chance=float(present.mean()),
        neighbours=average_precision(by_neighbours(embeddings, present, groups), present),
        linear=average_precision(by_line(embeddings, present, groups), present),
    )


def by_neighbours(
    embeddings: NDArray[np.float32], present: NDArray[np.bool_], groups: NDArray[np.str_]
) -> NDArray[np.float32]:
    """Share of the most similar tiles of other groups that show the class, weighted by their similarity."""
    unit = embeddings - embeddings.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True) + 1e-9
    similar = unit @ unit.T
    similar[groups[:, None] == groups[None, :]] = -2.0
    nearest = np.argsort(-similar, axis=1)[:, :NEIGHBOURS]
    weight = np.exp(10.0 * np.take_along_axis(similar, nearest, axis=1))
    shares: NDArray[np.float32] = ((weight * present[nearest]).sum(axis=1) / weight.sum(axis=1)).astype(np.float32)
    return shares


def by_line(
    embeddings: NDArray[np.float32], present: NDArray[np.bool_], groups: NDArray[np.str_]
) -> NDArray[np.float32]:
    """Out-of-fold scores of a logistic regression, folds by group."""
    scores = np.zeros(len(present), np.float32)
    for train, test in GroupKFold(FOLDS).split(embeddings, present, groups):
        line = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=500))
        line.fit(embeddings[train], present[train])
        scores[test] = line.decision_function(embeddings[test])
    return scores


def _balanced(manifest: Manifest) -> Manifest:
    """Tiles with a defect and without one, half and half as far as they reach, always the same ones."""
    random = np.random.default_rng(0)
    shows = np.nansum(manifest.labels, axis=1) > 0
    rows = np.zeros(len(manifest), dtype=bool)
    for half in (np.flatnonzero(shows), np.flatnonzero(~shows)):
        rows[random.permutation(half)[: TILES // 2]] = True
    return manifest.take(rows)


def _embeddings(network: DefectNetwork, manifest: Manifest) -> NDArray[np.float32]:
    network.eval()
    parts = []
    for start in range(0, len(manifest), 32):
        tiles = np.stack([read_tile(path, network.shape.tile_size) for path in manifest.images[start : start + 32]])
        with torch.inference_mode(), mixed("cpu"):
            parts.append(network.embed(torch.from_numpy(tiles)).float().numpy())
    return np.concatenate(parts)
