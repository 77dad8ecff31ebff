"""`spanwatch run`: photos in, findings out, on one machine, with no service to start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from stream.cli.common import (
    DONE,
    FAILED,
    SOME_DEAD,
    ConfigOption,
    JsonOption,
    err,
    guarded,
    load_config,
    out,
    print_json,
    run,
    stop_on_signals,
)
from stream.config import Config
from stream.errors import Misuse
from stream.flight import OVERLAYS, Flown, fly
from stream.flight import Progress as FlightProgress
from stream.uploader import Flight


def run_photos(
    photos: Annotated[list[Path], typer.Argument(help="Photos and folders of photos.", metavar="PHOTO_OR_FOLDER...")],
    folder: Annotated[Path, typer.Option("--out", help="Where results, overlays and report.html go.", metavar="DIR")],
    asset: Annotated[str | None, typer.Option(help="The structure; the first folder's name if not given.")] = None,
    flight: Annotated[str | None, typer.Option(help="The flight; folder and day if not given.")] = None,
    drone: Annotated[str, typer.Option(help="The drone.")] = "unknown",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find defects in photos on this machine: results.jsonl, dead.jsonl, findings.geojson, overlays and report.html.

    A run that was stopped ends with 1, and goes on where it was when the same command is given again. Another flight
    into the same folder joins what is there in one report.

    Example: spanwatch run photos/ --out out/monday --asset bridge-3
    """
    first = photos[0].resolve()
    named = asset or (first if first.is_dir() else first.parent).name or "photos"
    with guarded():
        _check(photos, folder)
        flying = Flight(asset=named, flight=flight, drone=drone)
        settings = load_config(config)
    flown = run(_fly(photos, folder, flying, settings, as_json))
    if flown.stopped:
        raise typer.Exit(FAILED)
    raise typer.Exit(SOME_DEAD if flown.dead or flown.refused else DONE)


def _check(photos: list[Path], folder: Path) -> None:
    """Raise Misuse for photos that are not there, and for a run that would take its own pictures for photos."""
    if missing := [str(path) for path in photos if not path.exists()]:
        raise Misuse(f"no such file or folder: {', '.join(missing)}")
    for path in photos:
        if folder.resolve().is_relative_to(path.resolve()):
            raise Misuse(f"{folder} lies in {path}: what is written there would be read as photos; name another --out")
        if path.resolve().is_relative_to((folder / OVERLAYS).resolve()):
            raise Misuse(f"{path} holds what a run into {folder} draws, not photos: name another --out")


async def _fly(photos: list[Path], folder: Path, flight: Flight, settings: Config, as_json: bool) -> Flown:
    stop = stop_on_signals()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True) as bar:
        task = bar.add_task("loading the model", total=None)

        def show(progress: FlightProgress) -> None:
            what = f"waiting: {progress.waiting}" if progress.waiting else "photos answered"
            bar.update(task, description=what, total=progress.total, completed=progress.found - progress.open)

        flown = await fly(photos, folder, flight, settings, stop=stop, on_progress=show)
    if not flown.results and not flown.dead and not flown.refused and not stop.is_set():
        raise Misuse("no photos there; name photos or a folder that holds some")
    if as_json:
        _print_json(flown)
    else:
        _print_table(flown)
    return flown


def _print_json(flown: Flown) -> None:
    print_json(
        {
            "results": len(flown.results),
            "alerts": len(flown.alerts),
            "dead": len(flown.dead),
            "refused": [{"path": one.path, "reason": one.reason} for one in flown.refused],
            "stopped": flown.stopped,
            "report": str(flown.report),
            "out": str(flown.out),
        }
    )


def _print_table(flown: Flown) -> None:
    table = Table(
        "photo", "size", "findings", "strongest", "inspectable", title=f"{len(flown.results)} photos answered"
    )
    for result in flown.results:
        strongest = max(result.regions, key=lambda region: region.score, default=None)
        table.add_row(
            result.frame.name or result.frame.frame_id[:12],
            f"{result.grid.width}x{result.grid.height}",
            _counts([region.defect for region in result.regions]),
            f"{strongest.defect} {strongest.score:.0%}" if strongest else "–",
            f"{result.inspectable:.0%}",
        )
    out.print(table)
    untrained = sorted({n.defect for r in flown.results for n in r.not_inspectable if n.reason == "untrained"})
    if untrained:
        out.print(f"untrained, not looked for: {', '.join(untrained)}")
    for dead in flown.dead:
        name = dead.frame.name if dead.frame and dead.frame.name else dead.frame_id[:12]
        out.print(Text.assemble(("dead", "yellow"), f" {name}: {dead.detail}"))
    for refused in flown.refused:
        out.print(Text.assemble(("refused", "yellow"), f" {refused.path}: {refused.reason}"))
    if flown.stopped:
        out.print("stopped before all photos were answered; the same command goes on with the rest")
    out.print(f"report: {flown.report}", soft_wrap=True)


def _counts(defects: list[str]) -> str:
    counted = (f"{defects.count(name)} {name.replace('_', ' ')}" for name in sorted(set(defects)))
    return ", ".join(counted) or "none"


__all__ = ["run_photos"]
