"""`spanwatch evaluate`: how good a release is on tiles that people have labelled, in figures and on a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from models.dataset import Manifest, ManifestError, read_manifest
from models.engines.protocol import EngineError, Scores
from models.evaluation.evaluate import ClassMetrics
from models.evaluation.overall import Extent
from models.evaluation.overall import evaluate as evaluate_scores
from models.evaluation.report import Report, figure, figures, percent, why_silent, write_page
from models.evaluation.scoring import check_pictures, rules_of, score_manifest
from models.release import Release
from stream import engines
from stream.cli.common import ConfigOption, JsonOption, err, guarded, load_config, out, print_json
from stream.config import EngineSection
from stream.errors import Broken, Misuse
from stream.releases import open_release

PAGE, FIGURES = "evaluation.html", "evaluation.json"


def evaluate(
    manifest: Annotated[
        Path, typer.Argument(help="CSV of image, group and a column per class.", metavar="MANIFEST.csv")
    ],
    release: Annotated[str | None, typer.Option(help="A release id or an alias; else the one that runs.")] = None,
    precision: Annotated[
        str, typer.Option(help="f32 gives the same figures everywhere; auto is what a worker here would run.")
    ] = "f32",
    folder: Annotated[Path | None, typer.Option("--out", help=f"Where {PAGE} and {FIGURES} go.", metavar="DIR")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a release by labelled tiles it was not trained on: figures per class with intervals, and where it errs.

    An empty cell of the manifest is an unknown label and counts for nothing. With --out there is a page that shows the
    calibration and the worst mistakes as pictures.

    Example: spanwatch evaluate test.csv --release champion --out out/evaluation
    """
    with guarded():
        section = load_config(config).engine
        opened = open_release(section, release)
        with _misuses():
            tiles = read_manifest(manifest, opened.names)
            check_pictures(tiles)
        if folder is not None:
            _make(folder)
        with _bar(len(tiles), quiet=as_json) as moved:
            used = msgspec.structs.replace(section, precision=precision)
            scores, ran = _scores(opened, tiles, used, moved)
        report = _report(opened, ran, tiles, manifest, scores)
        if folder is not None:
            _write(folder, report)
        if as_json:
            print_json(figures(report))
        else:
            _print_tables(report)
            if folder is None:
                err.print("add --out DIR for a page with the calibration and the worst mistakes as pictures")
            else:
                out.print(f"page: {folder / PAGE}", soft_wrap=True)


def _scores(
    release: Release, tiles: Manifest, section: EngineSection, moved: Callable[[int], None]
) -> tuple[Scores, str]:
    """The scores, and the precision that the engine really had."""
    engine = engines.opened(release, section).engine
    try:
        with _misuses():
            return score_manifest(engine, tiles, moved), engine.precision
    except EngineError as error:
        raise Broken(f"release {release.id}: {error}") from error
    finally:
        engine.close()


def _report(release: Release, precision: str, tiles: Manifest, manifest: Path, scores: Scores) -> Report:
    return Report(
        release=release.id,
        precision=precision,
        classes=release.classes,
        manifest=tiles,
        source=str(manifest),
        probabilities=scores.probabilities,
        evaluation=evaluate_scores(scores.probabilities, tiles.labels, tiles.groups, rules_of(release.classes)),
        made_at=datetime.now(UTC),
    )


def _make(folder: Path) -> None:
    """Before the scoring, so that nobody waits for figures that cannot be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misuse(f"cannot write to {folder}: {error.strerror}") from error


def _write(folder: Path, report: Report) -> None:
    try:
        (folder / FIGURES).write_bytes(msgspec.json.format(msgspec.json.encode(figures(report)), indent=1) + b"\n")
        write_page(folder / PAGE, report)
    except OSError as error:
        raise Misuse(f"cannot write to {folder}: {error.strerror}") from error


@contextmanager
def _misuses() -> Iterator[None]:
    """In here, a manifest or a picture that cannot be used is a `Misuse` with the same sentence."""
    try:
        yield
    except ManifestError as error:
        raise Misuse(str(error)) from error


@contextmanager
def _bar(tiles: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True, disable=quiet) as bar:
        task = bar.add_task("tiles scored", total=tiles)
        yield lambda done: bar.update(task, completed=done)


def _print_tables(report: Report) -> None:
    overall = report.evaluation.overall
    out.print(f"{report.release} in {report.precision}: {overall.tiles} tiles of {overall.groups} groups")
    table = Table("class", "tiles", "AUROC", "AP", "", "recall", "precision", "false", box=None, padding=(0, 1, 0, 0))
    silent = []
    for about in report.classes:
        metrics = report.evaluation.classes[about.name]
        if why := why_silent(about, metrics):
            silent.append(f"{about.name} ({metrics.positives} with, {metrics.negatives} without): {why}")
        else:
            table.add_row(*_cells(about.name, metrics))
    if table.row_count:
        out.print(table)
    for line in silent:
        out.print(line)
    clean, exact = overall.clean, overall.exact_match
    out.print(
        f"mean AUROC {figure(overall.macro.auroc)}, mean AP {figure(overall.macro.ap)}, F2 by importance "
        f"{figure(overall.macro.weighted_f2)}\n"
        f"{percent(clean.report_tiles.share)} of {clean.report_tiles.of} clean tiles alarm, "
        f"{percent(clean.review_tiles.share)} at the review thresholds\n"
        f"{_extents(overall.extents)}\n"
        f"{percent(exact.all_known.share)} of {exact.all_known.of} tiles labelled for every class are wholly right"
    )


def _extents(extents: Sequence[Extent]) -> str:
    """How many groups are left if more than one called tile is asked for."""
    least = ", ".join(str(one.least_tiles) for one in extents)
    clean = ", ".join(percent(one.clean.share) for one in extents)
    showing = ", ".join(percent(one.showing.share) for one in extents)
    groups, faulty = extents[0].clean.of, extents[0].showing.of
    return (
        f"if {least} tiles have to show a class (findings.least_tiles): alerts of {clean} of {groups} clean groups, "
        f"of {showing} of {faulty} groups with a defect"
    )


def _cells(name: str, metrics: ClassMetrics) -> Iterator[Text]:
    """The figures at the report threshold, and below each its interval or what it is at the review threshold."""
    review, span = metrics.review, metrics.auroc_interval
    yield _two(name, f"{metrics.photos_present} of {metrics.photos} groups")
    yield _two(f"{metrics.positives} with", f"{metrics.negatives} without")
    yield _two(figure(metrics.auroc), f"{span.low:.3f} to {span.high:.3f}" if span else "")
    yield Text(figure(metrics.average_precision))
    yield _two("report", "review")
    yield _two(figure(metrics.recall), figure(review.recall if review else None))
    yield _two(figure(metrics.precision), figure(review.precision if review else None))
    yield _two(percent(metrics.false_alarm_share), percent(review.false_alarm_share if review else None))


def _two(above: str, below: str) -> Text:
    return Text.assemble(above, (f"\n{below}", "dim") if below else "")
