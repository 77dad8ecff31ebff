"""Calibration: so that of the tiles scored 0.7 about seven in ten show the defect, and how far that is from true."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.evaluation.measures import Flags, Scored, Weights

ENOUGH = 30
"""Positives from which a class gets a scale and a bias of its own; with fewer it shares one temperature with others."""

RIDGE = (
    1.0  # pulls towards "leave the logit alone" with the weight of about one tile; decides only where labels are few
)


@dataclass(frozen=True)
class Affine:
    """probability = sigmoid(scale * logit + bias), one pair per class; float64[classes] each."""

    scale: NDArray[np.float64]
    bias: NDArray[np.float64]

    def probabilities(self, logits: Scored) -> Scored:
        """float32[n, classes] from logits of the same shape."""
        z = np.clip(logits * self.scale + self.bias, -60.0, 60.0)
        return (1.0 / (1.0 + np.exp(-z))).astype(np.float32)


def calibrate(logits: Scored, labels: Scored, unknown_weight: float = 0.0) -> Affine:
    """Fit a map from logits to probabilities on validation tiles.

    `logits` and `labels` are float32[n, classes], NaN labels unknown. A class with at least `ENOUGH` positives and with
    negatives gets Platt's scale and bias. Any other that has labels gets one temperature, shared and fitted on all
    known labels of all classes (Guo et al., arXiv 1706.04599). A class without labels keeps its logits as they are.

    For Platt's map a tile with an unknown label counts as one without the defect, with `unknown_weight`: photos that
    were labelled for a defect mostly show it, and alone they would teach that it is common.
    """
    known = ~np.isnan(labels)
    scale, bias = np.ones(logits.shape[1]), np.zeros(logits.shape[1])
    scale[known.any(axis=0)] = fit_temperature(logits[known], labels[known] == 1)
    for column in range(logits.shape[1]):
        present, absent = labels[:, column] == 1, labels[:, column] == 0
        if present.sum() >= ENOUGH and absent.any():
            weight = np.where(present | absent, 1.0, unknown_weight)
            scale[column], bias[column] = fit_platt(logits[:, column], present, weight)
    return Affine(scale, bias)


def fit_platt(logits: Scored, present: Flags, weight: Weights | None = None) -> tuple[float, float]:
    """(scale, bias) of least penalised cross-entropy; scale is kept above 0.05.

    `weight` says how many tiles each tile counts for; None is one.

    Targets are Platt's (Advances in Large Margin Classifiers, 1999): a little inside 0 and 1, by the counts of each
    kind, which keeps separable tiles from asking for an endless scale.
    """
    design = np.stack([logits.astype(np.float64), np.ones(logits.size)], axis=1)
    line = _Problem.of(design, present, weight).solve()
    return max(float(line[0]), 0.05), float(line[1])


def fit_temperature(logits: Scored, present: Flags) -> float:
    """The scale (one over the temperature) of least penalised cross-entropy, without a bias; kept above 0.05."""
    return max(float(_Problem.of(logits.astype(np.float64)[:, None], present, None).solve()[0]), 0.05)


@dataclass(frozen=True)
class _Problem:
    """Weighted cross-entropy of a line through the logits; `design` is float64[n, 1 or 2]: the logits, and ones."""

    design: NDArray[np.float64]
    target: NDArray[np.float64]
    weight: Weights

    @classmethod
    def of(cls, design: NDArray[np.float64], present: Flags, weight: Weights | None) -> _Problem:
        weight = np.ones(present.size) if weight is None else weight
        positives, negatives = float(weight[present].sum()), float(weight[~present].sum())
        target = np.where(present, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
        return cls(design, target, weight)

    def solve(self) -> NDArray[np.float64]:
        """Newton's method from the line that changes nothing; the loss is convex."""
        line = self._start()
        for _ in range(50):
            gradient, curvature = self._slopes(line)
            step = np.linalg.solve(curvature, gradient)
            # A step halved until it helps cannot diverge.
            length, here = 1.0, self._loss(line)
            while length > 1e-6 and self._loss(line - length * step) > here:
                length /= 2.0
            line = line - length * step
            if np.abs(length * step).max() < 1e-9:
                break
        return line

    def _start(self) -> NDArray[np.float64]:
        scale_one_bias_zero: NDArray[np.float64] = np.eye(1, self.design.shape[1])[0]
        return scale_one_bias_zero

    def _loss(self, line: NDArray[np.float64]) -> float:
        z = self.design @ line
        penalty = 0.5 * RIDGE * ((line - self._start()) ** 2).sum()
        return float((self.weight * (np.logaddexp(0.0, z) - self.target * z)).sum() + penalty)

    def _slopes(self, line: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        probability = 1.0 / (1.0 + np.exp(-np.clip(self.design @ line, -60.0, 60.0)))
        gradient = self.design.T @ (self.weight * (probability - self.target)) + RIDGE * (line - self._start())
        spread = self.weight * probability * (1.0 - probability)
        return gradient, (self.design * spread[:, None]).T @ self.design + RIDGE * np.eye(len(line))


class Bin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tiles of like probability: what was said of them on average, and the share that shows the defect."""

    tiles: int
    said: float
    so: float


def reliability(probabilities: Scored, present: Flags, bins: int = 10) -> tuple[Bin, ...]:
    """A reliability diagram in bins of about equally many tiles, ascending; equal probabilities stay in one bin."""
    if probabilities.size == 0:
        return ()
    _, place, count = np.unique(probabilities, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2.0
    member = np.minimum((middle * bins / probabilities.size).astype(int), bins - 1)[place]
    rows = [np.flatnonzero(member == number) for number in np.unique(member)]
    said = probabilities.astype(np.float64)
    return tuple(Bin(len(row), float(said[row].mean()), float(present[row].mean())) for row in rows)


def calibration_error(bins: tuple[Bin, ...]) -> float | None:
    """Mean distance between what was said and what was so, weighted by tiles; None without a tile.

    With the bins of `reliability` this is the adaptive calibration error of Nixon et al. (arXiv 1904.01685).
    """
    tiles = sum(one.tiles for one in bins)
    return sum(one.tiles * abs(one.said - one.so) for one in bins) / tiles if tiles else None
