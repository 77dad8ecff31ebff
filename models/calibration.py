"""Calibration: so that of the tiles scored 0.7 about seven in ten show the defect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RIDGE = (
    1.0  # pulls towards "leave the logit alone" with the weight of about one tile; decides only where labels are few
)

START = np.array([1.0, 0.0])  # scale and bias that change nothing


@dataclass(frozen=True)
class Affine:
    """probability = sigmoid(scale * logit + bias), one pair per class; float64[classes] each."""

    scale: NDArray[np.float64]
    bias: NDArray[np.float64]


def calibrate(logits: NDArray[np.float32], labels: NDArray[np.float32], unknown_weight: float = 0.0) -> Affine:
    """Fit Platt's affine map per class on validation tiles.

    `logits` and `labels` are float32[n, classes], NaN labels unknown. A tile with an unknown label counts as one
    without the defect, with `unknown_weight`: photos that were labelled for a defect mostly show it, and alone they
    would teach that it is common. A class without a known tile of each kind keeps its logits as they are.
    """
    classes = logits.shape[1]
    scale, bias = np.ones(classes), np.zeros(classes)
    for column in range(classes):
        present, absent = labels[:, column] == 1, labels[:, column] == 0
        if present.any() and absent.any():
            weight = np.where(present | absent, 1.0, unknown_weight)
            scale[column], bias[column] = fit_platt(logits[:, column], present, weight)
    return Affine(scale, bias)


def fit_platt(
    logits: NDArray[np.float32], present: NDArray[np.bool_], weight: NDArray[np.float64] | None = None
) -> tuple[float, float]:
    """(scale, bias) of least penalised cross-entropy, by Newton's method; scale is kept above 0.05.

    `weight` says how many tiles each tile counts for; None is one.

    Targets are Platt's (Advances in Large Margin Classifiers, 1999): a little inside 0 and 1, by the counts of each
    kind, which keeps separable tiles from asking for an endless scale.
    """
    weight = np.ones(logits.size) if weight is None else weight
    positives, negatives = float(weight[present].sum()), float(weight[~present].sum())
    target = np.where(present, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    problem = _Problem(np.stack([logits.astype(np.float64), np.ones(logits.size)], axis=1), target, weight)
    line = START.copy()
    for _ in range(50):
        gradient, curvature = problem.slopes(line)
        step = np.linalg.solve(curvature, gradient)
        # The loss is convex; a step halved until it helps cannot diverge.
        length, here = 1.0, problem.loss(line)
        while length > 1e-6 and problem.loss(line - length * step) > here:
            length /= 2.0
        line = line - length * step
        if np.abs(length * step).max() < 1e-9:
            break
    return max(float(line[0]), 0.05), float(line[1])


@dataclass(frozen=True)
class _Problem:
    """Weighted cross-entropy of a line through the logits; `design` is float64[n, 2]: the logits, and ones."""

    design: NDArray[np.float64]
    target: NDArray[np.float64]
    weight: NDArray[np.float64]

    def loss(self, line: NDArray[np.float64]) -> float:
        z = self.design @ line
        penalty = 0.5 * RIDGE * ((line - START) ** 2).sum()
        return float((self.weight * (np.logaddexp(0.0, z) - self.target * z)).sum() + penalty)

    def slopes(self, line: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        probability = 1.0 / (1.0 + np.exp(-np.clip(self.design @ line, -60.0, 60.0)))
        gradient = self.design.T @ (self.weight * (probability - self.target)) + RIDGE * (line - START)
        spread = self.weight * probability * (1.0 - probability)
        return gradient, (self.design * spread[:, None]).T @ self.design + RIDGE * np.eye(2)


def expected_calibration_error(probabilities: NDArray[np.float32], present: NDArray[np.bool_], bins: int = 10) -> float:
    """Mean distance between what was said and what was so, over equally wide bins weighted by their tiles."""
    place = np.clip((probabilities * bins).astype(int), 0, bins - 1)
    error = 0.0
    for number in range(bins):
        here = place == number
        if here.any():
            error += here.sum() * abs(float(probabilities[here].mean()) - float(present[here].mean()))
    return error / max(1, present.size)
