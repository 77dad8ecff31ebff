"""The gate: whether an engine's scores are close enough to the float32 reference to take over its decisions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.evaluation.measures import average_precision
from models.release import ReleaseClass

LARGEST_AP_DROP = 0.005
LEAST_AGREEMENT = 0.995
LEAST_POSITIVES = 20
DEFAULT_THRESHOLD = 0.5


class Sanity(NamedTuple):
    """How far scores may be off before it is another network's scores, whatever they decide: differences of a
    probability, and the share of equal decisions."""

    largest: float
    mean: float
    agreement: float


# f32 differs by the order of additions only. In f16 the shipped release's probabilities move by 0.015 at most and
# 0.0005 on average, with its linear layers in fp8 by 0.007 and 0.0005 (128 tiles, ONNX Runtime). In bfloat16 and int8 a
# probability that stands in the middle may move by a third, both ways, and the mean stays under a hundredth
# (models/README.md).
SANITY = {
    "f32": Sanity(0.002, 0.0005, 0.97),
    "f16": Sanity(0.1, 0.005, 0.97),
    "bf16": Sanity(0.5, 0.015, 0.97),
    "int8": Sanity(0.5, 0.015, 0.97),
    "fp8": Sanity(0.1, 0.005, 0.97),
}


@dataclass(frozen=True)
class Evidence:
    """Tiles with what the reference says of them.

    `tiles` uint8[n, size, size, 3], `expected` float32[n, classes] the reference's probabilities, `labels`
    float32[n, classes] 1 present, 0 absent, NaN unknown.
    """

    tiles: NDArray[np.uint8]
    expected: NDArray[np.float32]
    labels: NDArray[np.float32]


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What came of trying an engine: the gate's verdict, or why it could not even be tried."""

    verdict: Verdict | None = None
    failed: str = ""

    @property
    def passed(self) -> bool:
        """Whether it may serve."""
        return self.verdict is not None and self.verdict.passed

    @property
    def why_not(self) -> str:
        """In one line; empty if it passed."""
        return self.failed or "; ".join(self.verdict.reasons if self.verdict else ())


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the gate says of one engine, over the trained classes.

    `mean` and `largest` are differences of a probability; `agreement` the share of decisions at `high`, of all these
    classes together, that are the reference's; `ap_drops` how much average precision each class with enough positives
    has lost; `reasons` why the engine does not pass: none, and it does. `sane`: it computes this network at all.
    """

    tiles: int
    mean: float
    largest: float
    agreement: float
    ap_drops: dict[str, float]
    reasons: tuple[str, ...]
    sane: bool

    @property
    def passed(self) -> bool:
        """Whether the engine may serve."""
        return not self.reasons


def judge(found: NDArray[np.float32], evidence: Evidence, classes: Sequence[ReleaseClass], precision: str) -> Verdict:
    """Compare an engine's probabilities, float32[n, classes], with the reference's; a NaN never passes.

    A single decision is never held against an engine: on a few golden tiles alone it would be more than the share that
    is allowed. A release without a trained class has nothing that could be decided wrongly, and passes.
    """
    trained = np.array([one.trained for one in classes], dtype=bool)
    high = np.array([DEFAULT_THRESHOLD if one.high is None else one.high for one in classes])
    difference = np.abs(found - evidence.expected)[:, trained]
    if difference.size == 0:
        return Verdict(tiles=len(found), mean=0.0, largest=0.0, agreement=1.0, ap_drops={}, reasons=(), sane=True)
    same = ((found >= high) == (evidence.expected >= high))[:, trained]
    mean, largest, agreement = float(difference.mean()), float(difference.max()), float(same.mean())
    limits = SANITY[precision]
    sane = largest <= limits.largest and mean <= limits.mean and agreement >= limits.agreement
    drops = dict(_ap_drops(found, evidence, classes))
    reasons = []
    if not sane:
        reasons.append(f"scores are off by {mean:.4f} on average and {largest:.3f} at most")
    if math.isnan(mean) or (agreement < LEAST_AGREEMENT and np.count_nonzero(~same) > 1):
        reasons.append(f"{agreement:.2%} of the decisions are the same, {LEAST_AGREEMENT:.1%} are needed")
    reasons += [
        f"{name} loses {drop:.4f} of its average precision, {LARGEST_AP_DROP} is allowed"
        for name, drop in drops.items()
        if not drop <= LARGEST_AP_DROP
    ]
    return Verdict(
        tiles=len(found),
        mean=mean,
        largest=largest,
        agreement=agreement,
        ap_drops=drops,
        reasons=tuple(reasons),
        sane=sane,
    )


def _ap_drops(
    found: NDArray[np.float32], evidence: Evidence, classes: Sequence[ReleaseClass]
) -> Iterator[tuple[str, float]]:
    for column, one in enumerate(classes):
        labels = evidence.labels[:, column]
        known, present = ~np.isnan(labels), labels == 1
        if one.trained and present.sum() >= LEAST_POSITIVES:
            before = average_precision(evidence.expected[known, column], present[known])
            after = average_precision(found[known, column], present[known])
            # More than it can be measured to is no information, and is not written into a record.
            yield one.name, round(before - after, 6)
