"""When a class is reported, when a person looks at it, and when there are too few tiles to promise either."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.evaluation.measures import Flags, Scored, Weights

PRECISION = 0.8
"""Of the tiles that are reported, so many must show the defect on validation tiles."""
FEWEST_POSITIVES = 20
FEWEST_GROUPS = 3
FEW_REPORTED, FEW_REVIEWED = 0.005, 0.02
"""Where nothing can be promised of what is found, this is kept of what is not there: at most this share of the tiles
that nobody says show the class is reported, and reviewed."""


@dataclass(frozen=True)
class Choice:
    """Thresholds of a class, both probabilities: `high` reports, `low` (never above) asks for a review.

    With `people` nothing is promised at either: a person decides on whatever is called. `why` is for the card.
    """

    high: float
    low: float
    people: bool
    why: str


def choose(
    probabilities: Scored, labels: Scored, groups: Sequence[str], recall_floor: float, unknown_weight: float = 0.0
) -> Choice:
    """Thresholds of one class from validation tiles that were not trained on.

    `labels` is float32[n], NaN unknown; for precision such a tile counts as one without the defect, `unknown_weight`
    times. The review threshold misses at most 1 - `recall_floor` of the defects to come (`review_threshold`), the
    report threshold is the lowest above it at which `PRECISION` of what is called is right (`report_threshold`). Where
    positives or groups are too few for that, the class goes to people, with thresholds that are rarely reached
    (`FEW_REPORTED`, `FEW_REVIEWED`): a hundred calls for one defect would teach them to look away.
    """
    present = labels == 1
    weight = np.where(np.isnan(labels), unknown_weight, 1.0)
    counts = _counted(int(present.sum()), len(set(np.asarray(groups)[present])))
    low = review_threshold(probabilities[present], recall_floor)
    high = None if low is None else report_threshold(probabilities, present, weight, low)
    doubt = _doubt(present, groups, low, high, recall_floor)
    if low is None or high is None or doubt:
        high, low = _fallback(probabilities, present, weight, recall_floor)
        return _quiet(high, low, probabilities[~present], f"{counts}: {doubt}")
    low, high = _down(low), _down(high)
    missed = int((probabilities[present] < low).sum())
    called = probabilities >= high
    right = float(weight[called & present].sum() / weight[called].sum())
    why = f"{counts}: review misses {missed} (recall floor {recall_floor:g}), {right:.0%} of what is reported is right"
    return Choice(high, low, people=False, why=why)


def choose_without_photos(painted: Scored, labels: Scored, photos: Scored, recall_floor: float) -> Choice:
    """Thresholds of a class that no validation photo shows; it always goes to people.

    `painted` and `labels` are float32[n] of composed tiles that were not trained on; `photos` float32[m] the scores of
    real validation tiles, nearly all of which are free of the class. The usual rule on the composed ones, raised until
    few photos reach it: what is called may be wrong, but it is rarely called.
    """
    chosen = choose(painted, labels, [str(number) for number in range(len(painted))], recall_floor)
    return _quiet(
        chosen.high, chosen.low, photos, "chosen on composed pictures, since no validation photo shows it for certain"
    )


def _quiet(high: float, low: float, absent: Scored, doubt: str) -> Choice:
    """Thresholds of a class that goes to people, raised until few of the `absent` tiles reach them."""
    high = max(_down(high), few_reach(absent, FEW_REPORTED))
    low = min(max(_down(low), few_reach(absent, FEW_REVIEWED)), high)
    why = (
        f"{doubt}: set so that at most {FEW_REPORTED:.1%} of the validation tiles that nobody says show it are "
        f"reported and {FEW_REVIEWED:.0%} reviewed"
    )
    return Choice(high, low, people=True, why=why)


def few_reach(probabilities: Scored, share: float) -> float:
    """The lowest threshold, to four decimals, that at most `share` of float32[n] probabilities reach; at most 1."""
    allowed = int(share * len(probabilities))
    if allowed >= len(probabilities):
        return 0.0
    first_too_many = float(np.sort(probabilities)[::-1][allowed])
    # A hundredth of a step more: 0.9 in float32 lies just below 0.9, and would be counted as reaching it.
    return min(math.floor(first_too_many * 1e4 + 1.01) / 1e4, 1.0)


def _down(probability: float) -> float:
    """To four decimals, downwards: no defect that was found may be lost to rounding, and engines differ by more."""
    return math.floor(probability * 1e4) / 1e4


def _counted(positives: int, groups: int) -> str:
    return f"{positives} positive{'s' * (positives != 1)} in {groups} group{'s' * (groups != 1)}"


def _doubt(present: Flags, groups: Sequence[str], low: float | None, high: float | None, recall_floor: float) -> str:
    """Why no threshold can be promised; empty if it can."""
    if low is None:
        return f"too few for a recall of {recall_floor:g}"
    if present.sum() < FEWEST_POSITIVES:
        return f"fewer than {FEWEST_POSITIVES} positives"
    if len(set(np.asarray(groups)[present])) < FEWEST_GROUPS:
        return f"fewer than {FEWEST_GROUPS} groups show it"
    if high is None:
        return f"no threshold at which {PRECISION:.0%} of what is called is right"
    return ""


def misses_allowed(positives: int, alpha: float) -> int | None:
    """How many of the positives may lie below the review threshold; None where no threshold exists.

    Conformal risk control (Angelopoulos et al., arXiv 2208.02814) of the miss rate: n / (n + 1) * misses / n +
    1 / (n + 1) <= alpha. There is one from n = 1 / alpha - 1 on.
    """
    allowed = math.floor(alpha * (positives + 1) + 1e-9) - 1  # 0.1 * 10 must not be 0.99…
    return min(allowed, positives) if positives and allowed >= 0 else None


def review_threshold(positives: Scored, recall_floor: float) -> float | None:
    """The highest threshold that keeps the expected miss rate of further positives within 1 - `recall_floor`.

    `positives` is float32[n], the probabilities of tiles that show the defect. It holds for tiles that could have been
    drawn in any order with these: another structure or another camera is not covered. None if n is too small.
    """
    allowed = misses_allowed(positives.size, 1.0 - recall_floor)
    return None if allowed is None else float(np.sort(positives)[min(allowed, positives.size - 1)])


def report_threshold(probabilities: Scored, present: Flags, weight: Weights, least: float) -> float | None:
    """The lowest probability, not below `least`, from which on `PRECISION` of the weighted tiles show the defect.

    None where there is no such probability.
    """
    steps = _Steps.of(probabilities, present, weight)
    precise = (steps.found > 0) & (steps.found >= PRECISION * steps.called - 1e-9)
    good = np.flatnonzero(precise & (steps.level >= least))
    return float(steps.level[good[-1]]) if good.size else None


def _fallback(probabilities: Scored, present: Flags, weight: Weights, recall_floor: float) -> tuple[float, float]:
    """(high, low) without a promise: F1 is best at the one, the other meets the recall floor on these very tiles."""
    if not present.any():
        return 0.5, 0.5
    steps, positives = _Steps.of(probabilities, present, weight), present.sum()
    high = float(steps.level[np.argmax(2.0 * steps.found / (steps.called + positives))])
    meets_floor = steps.level[steps.found >= recall_floor * positives - 1e-9]
    return high, min(float(meets_floor[0]), high)


@dataclass(frozen=True)
class _Steps:
    """Every different probability, falling, and the weight of the tiles that are found and called from it on."""

    level: Scored
    found: Weights
    called: Weights

    @classmethod
    def of(cls, probabilities: Scored, present: Flags, weight: Weights) -> _Steps:
        order = np.argsort(-probabilities, kind="stable")
        level, found, called = probabilities[order], np.cumsum((weight * present)[order]), np.cumsum(weight[order])
        last_of_equals = np.flatnonzero(np.diff(level, append=-np.inf))
        return cls(level[last_of_equals], found[last_of_equals], called[last_of_equals])
