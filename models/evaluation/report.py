"""What an evaluation says, for a program as JSON and for people as one page with its worst mistakes in pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import simplejpeg
from jinja2 import Environment, PackageLoader, StrictUndefined

from models.dataset import Manifest, read_tile
from models.evaluation.calibration import Bin
from models.evaluation.evaluate import Calling, ClassMetrics
from models.evaluation.measures import Interval, Scored
from models.evaluation.mistakes import worst_mistakes
from models.evaluation.overall import Evaluation
from models.evaluation.scoring import rules_of
from models.release import ReleaseClass

THUMBNAIL = 176
"""Side in pixels: large enough to see a hairline, small enough for a hundred in one page."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was evaluated on what; `probabilities` is float32[n, classes], in the order of the manifest."""

    release: str
    precision: str
    classes: Sequence[ReleaseClass]
    manifest: Manifest
    source: str
    """The manifest's file, as it was given."""
    probabilities: Scored
    evaluation: Evaluation
    made_at: datetime


@dataclass(frozen=True)
class _Picture:
    """A tile that was called wrongly, ready to print; `href` is the picture itself."""

    href: str
    score: float
    group: str
    name: str


@dataclass(frozen=True)
class _Row:
    """One class, ready to print; `silent` says why there are no figures."""

    about: ReleaseClass
    metrics: ClassMetrics
    silent: str
    diagram: Sequence[Bin]
    false_alarms: Sequence[_Picture]
    misses: Sequence[_Picture]


def figures(report: Report) -> dict[str, object]:
    """Everything as plain values for JSON; a figure that its counts do not allow is None."""
    overall = msgspec.to_builtins(report.evaluation.overall)
    classes = {
        one.name: _class_figures(one, report.evaluation.classes[one.name], len(report.manifest))
        for one in report.classes
    }
    head = {"release": report.release, "precision": report.precision, "manifest": report.source}
    return {**head, "classes": classes, **overall}


def _class_figures(about: ReleaseClass, metrics: ClassMetrics, tiles: int) -> dict[str, object]:
    return {
        "trained": about.trained,
        "people": about.people,
        "high": about.high,
        "low": about.low,
        "positives": metrics.positives,
        "negatives": metrics.negatives,
        "unknown": tiles - metrics.positives - metrics.negatives,
        "groups": metrics.photos,
        "groups_present": metrics.photos_present,
        "auroc": metrics.auroc,
        "auroc_interval": _pair(metrics.auroc_interval),
        "ap": metrics.average_precision,
        "ap_interval": _pair(metrics.average_precision_interval),
        "recall": metrics.recall,
        "recall_interval": _pair(metrics.recall_interval),
        "precision": metrics.precision,
        "f2": metrics.f2,
        "false_alarm_share": metrics.false_alarm_share,
        "review": _calling_figures(metrics.review),
        "calibration_error": metrics.calibration_error,
    }


def _calling_figures(review: Calling | None) -> dict[str, object] | None:
    if review is None:
        return None
    return {**msgspec.to_builtins(review), "recall_interval": _pair(review.recall_interval)}


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def write_page(out: Path, report: Report) -> None:
    """Write one self-contained HTML page to the file `out`; it loads nothing from elsewhere."""
    environment = Environment(
        loader=PackageLoader("models.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "figure": figure}
    page = environment.get_template("evaluation.html.j2").render(
        report=report,
        overall=report.evaluation.overall,
        rows=[_row(report, column) for column in range(len(report.classes))],
        made_at=report.made_at.isoformat(sep=" ", timespec="seconds"),
    )
    out.write_text(page, encoding="utf-8")


def _row(report: Report, column: int) -> _Row:
    about, rule = report.classes[column], rules_of(report.classes)[column]
    scores, labels = report.probabilities[:, column], report.manifest.labels[:, column]
    metrics = report.evaluation.classes[about.name]
    wrong = worst_mistakes(scores, labels, report.manifest.groups, rule)
    return _Row(
        about,
        metrics,
        why_silent(about, metrics),
        report.evaluation.reliability.get(about.name, ()) if metrics.calibration_error is not None else (),
        [_picture(report, row, float(scores[row])) for row in wrong.false_alarms],
        [_picture(report, row, float(scores[row])) for row in wrong.misses],
    )


def why_silent(about: ReleaseClass, metrics: ClassMetrics) -> str:
    """Why a class has no figures on these tiles; empty if it has."""
    if not about.trained:
        return "Untrained: this release has not learnt it, so its scores mean nothing."
    if not metrics.positives and not metrics.negatives:
        return "No label: nothing on these tiles says whether it is there."
    if not metrics.positives:
        return "No tile shows it, so there is nothing to find and no figure."
    if not metrics.negatives:
        return "Every labelled tile shows it, so there is nothing to tell it from and no figure but the recall."
    return ""


def _picture(report: Report, row: int, score: float) -> _Picture:
    path = report.manifest.images[row]
    jpeg = simplejpeg.encode_jpeg(read_tile(path, THUMBNAIL), quality=80)
    href = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
    return _Picture(href, score, report.manifest.groups[row], path.name)


def percent(share: float | None) -> str:
    """A share of 0 to 1 as percent with one decimal below ten, a dash for what is not defined."""
    if share is None:
        return "–"
    return f"{share * 100:.1f} %" if share < 0.1 else f"{share * 100:.0f} %"


def figure(value: float | None) -> str:
    """A figure of 0 to 1 with three decimals, a dash for what is not defined."""
    return "–" if value is None else f"{value:.3f}"
