"""The judge makes a result of a frame's scores: regions, and an honest word on what could not be inspected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.messages import Frame, NotInspectable, Result, Timings, result_id
from stream.worker import regions
from stream.worker.regions import Threshold
from stream.worker.tiling import Tiling


@dataclass(frozen=True, slots=True)
class ClassRule:
    """How one class of the release is read."""

    threshold: Threshold
    trained: bool
    """False: the release never saw a label of it, so its output says nothing."""
    coarsest_mm_per_px: float | None
    """At a coarser ground resolution the defect cannot be seen."""

    @property
    def defect(self) -> str:
        return self.threshold.defect


@dataclass(frozen=True, slots=True)
class Sight:
    """What can be seen in a frame: bool [rows, cols] each, and the ground resolution if it is known."""

    dark: NDArray[np.bool_]
    blurred: NDArray[np.bool_]
    mm_per_px: float | None


@dataclass(frozen=True, slots=True)
class Judge:
    """One release's rules, its name, and the precision it runs in."""

    release: str
    precision: str
    rules: tuple[ClassRule, ...]
    """In the order of the engine's classes."""

    def result(
        self, frame: Frame, tiling: Tiling, scores: NDArray[np.float32], sight: Sight, timings: Timings
    ) -> Result:
        """Judge one frame.

        Args:
            scores: float32 [rows, cols, classes] as the engine gave them.

        Returns:
            A result over the trained classes only. A region is reported wherever the score says so, in dark and blurred
            tiles too: blur is a reason not to say "clean", never a reason to hide a finding. Only where the ground
            resolution is too coarse for a class there are no regions of it: what the network saw there was not the
            defect, whatever its score; the scores stay in the result for whoever wants to look.
        """
        trained = [index for index, rule in enumerate(self.rules) if rule.trained]
        rules = [self.rules[index] for index in trained]
        seen = np.round(scores[:, :, trained], 4)
        unseen, share = _not_inspectable(rules, sight)
        untrained = [NotInspectable(defect=r.defect, reason="untrained") for r in self.rules if not r.trained]
        visible = np.array([not _too_coarse(rule, sight) for rule in rules], np.bool_)
        thresholds = [rule.threshold for rule in rules]
        return Result(
            result_id=result_id(frame, tiling.grid),
            frame=frame,
            grid=tiling.grid,
            classes=tuple(rule.defect for rule in rules),
            scores=tuple(tuple(tuple(round(float(p), 4) for p in cell) for cell in row) for row in seen),
            regions=regions.find(seen * visible, thresholds, tiling, sight.mm_per_px),
            inspectable=round(share, 4),
            not_inspectable=(*untrained, *unseen),
            release=self.release,
            precision=self.precision,
            mm_per_px=sight.mm_per_px,
            timings=timings,
        )


def _not_inspectable(rules: Sequence[ClassRule], sight: Sight) -> tuple[list[NotInspectable], float]:
    """What cannot be said, per class, and the share of (tile, class) pairs that can."""
    entries: list[NotInspectable] = []
    judged = 0.0
    clear = 1.0 - float((sight.dark | sight.blurred).mean())
    for rule in rules:
        if _too_coarse(rule, sight):
            entries.append(NotInspectable(defect=rule.defect, reason="coarse"))
            continue
        judged += clear
        for reason, mask in (("dark", sight.dark), ("blurred", sight.blurred & ~sight.dark)):
            if mask.any():
                tiles = tuple(int(index) for index in np.flatnonzero(mask))
                entries.append(NotInspectable(defect=rule.defect, reason=reason, tiles=tiles))  # type: ignore[arg-type]
    return entries, judged / len(rules) if rules else 0.0


def _too_coarse(rule: ClassRule, sight: Sight) -> bool:
    known = rule.coarsest_mm_per_px is not None and sight.mm_per_px is not None
    return known and sight.mm_per_px > rule.coarsest_mm_per_px  # type: ignore[operator]
