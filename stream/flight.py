"""One flight on one machine: all roles in one process over a log in the output folder, then the files people open.

There is no second code path: the uploader, the worker and the findings of a site run here too. So a run that was
killed goes on where it was, and a photo that has its answer is not looked at again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from models.release import Release
from stream import dead as dead_box
from stream.config import Config, MetricsSection
from stream.errors import Misuse, Unavailable
from stream.findings.geojson import write_geojson
from stream.findings.report import Survey, write_report
from stream.findings.role import run_findings
from stream.messages import Alert, DeadFrame, Noun, Result, decode, encode
from stream.photo import overlay, pixels
from stream.photo.header import read_header
from stream.releases import open_release, severities_of
from stream.transport.local import LocalTransport
from stream.transport.protocol import Transport
from stream.uploader import Flight, Options, Outbox, Uploader
from stream.uploader.report import Progress as Upload
from stream.uploader.report import Refused
from stream.worker.role import run_worker

log = logging.getLogger(__name__)

LOOK_S = 0.1
"""Between two looks at what is still open."""
OVERLAYS = "overlays"
"""Under the output folder: a picture of each photo with findings."""
IN_PLACE_DEADLINE_S = 5.0
"""A photo referred to in place that is gone does not come back by waiting."""


@dataclass(slots=True)
class Progress:
    """How far a run is; the same object is updated and handed out again."""

    total: int = 0
    """Files found."""
    found: int = 0
    """Files handed to the worker, found there already, or refused."""
    open: int = 0
    """Frames without an answer yet."""
    waiting: str | None = None
    """What the upload waits for, if it does."""


@dataclass(frozen=True, slots=True)
class Flown:
    """What a run has written."""

    out: Path
    results: Sequence[Result]
    alerts: Sequence[Alert]
    dead: Sequence[DeadFrame]
    refused: Sequence[Refused]
    stopped: bool
    """It was told to end before every photo had its answer."""

    @property
    def report(self) -> Path:
        return self.out / "report.html"


async def fly(
    photos: Sequence[Path],
    out: Path,
    flight: Flight,
    config: Config,
    *,
    stop: asyncio.Event,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Flown:
    """Answer all photos, then write `results.jsonl`, `dead.jsonl`, `findings.geojson`, overlays and `report.html`.

    Args:
        photos: files and folders; they are read where they are and never changed.
        stop: ends the run early; what is answered by then is written, the rest is taken up by the next run.

    Raises:
        Misuse: the folder cannot be written to.
        ExceptionGroup: of SpanwatchErrors, after what was answered until then has been written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misuse(f"cannot write to {out}: {error.strerror}; name another folder") from error
    settings = msgspec.structs.replace(
        config,
        transport=f"local:{out / 'log'}",
        worker=msgspec.structs.replace(config.worker, blob_deadline_s=IN_PLACE_DEADLINE_S),
        metrics=MetricsSection(worker_port=-1, findings_port=-1),
    )
    release = open_release(settings.engine)
    transport = await LocalTransport.open(out / "log", settings.local)
    artist = _Artist(transport, out / OVERLAYS, settings.worker.max_pixels)
    run = _Run(transport, release, artist, stop, on_progress, [])
    whole = False
    try:
        whole = await _run_roles(photos, out, flight, settings, run)
    finally:
        flown = await _write(out, run, stopped=not whole)
        await transport.close()
    return flown


@dataclass(frozen=True, slots=True)
class _Run:
    transport: LocalTransport
    release: Release
    artist: _Artist
    stop: asyncio.Event
    on_progress: Callable[[Progress], None]
    refused: list[Refused]


async def _run_roles(photos: Sequence[Path], out: Path, flight: Flight, config: Config, run: _Run) -> bool:
    """Upload, work and find side by side until every photo has its answer and every answer has reached the alerts.

    False: it was told to end before that.
    """
    progress = Progress()
    ended = asyncio.Event()
    severities = severities_of(run.release)

    def uploading(event: Upload) -> None:
        progress.found, progress.total, progress.waiting = event.done_files, event.total_files, event.waiting
        run.on_progress(progress)

    with Outbox(out / "outbox.sqlite") as outbox:
        options = Options(in_place=True, source=f"{config.site}/run")
        uploader = Uploader(run.transport, outbox, flight, options, uploading)
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(run.artist.follow()),
                group.create_task(_when(run.stop, uploader.stop)),
            ]
            group.create_task(run_findings(run.transport, config, ended, severities=severities))
            group.create_task(run_worker(run.transport, config, ended, state=out / "log" / "state"))
            report = await uploader.upload(photos)
            run.refused.extend(report.refused)
            cut_off = run.stop.is_set()
            while not (answered := await _all_answered(run.transport, config, progress)) and not run.stop.is_set():
                run.on_progress(progress)
                await asyncio.sleep(LOOK_S)
            run.on_progress(progress)
            ended.set()
            for helper in helpers:
                helper.cancel()
    return answered and not cut_off


async def _when(event: asyncio.Event, call: Callable[[], None]) -> None:
    await event.wait()
    call()


async def _all_answered(transport: Transport, config: Config, progress: Progress) -> bool:
    """Whether nothing is open any more: neither a frame before the worker, nor a result before the findings."""
    open_frames = sum((await transport.lag(config.worker.group, "frames")).values())
    open_results = sum((await transport.lag(config.findings.group, "results")).values())
    progress.open = open_frames
    return open_frames == 0 and open_results == 0


class _Artist:
    """Draws the findings of each photo as its result comes; decoding it once more keeps the worker out of it."""

    def __init__(self, transport: Transport, folder: Path, max_pixels: int) -> None:
        self._transport = transport
        self._folder = folder
        self._max_pixels = max_pixels
        self.drawn: dict[str, str | None] = {}
        """frame_id -> file, relative to the output folder; None: nothing to draw."""

    async def follow(self) -> None:
        """Draw what comes, until cancelled."""
        async for record in self._transport.read("results", follow=True):
            await self.draw(decode(record.value, Result))

    async def draw(self, result: Result) -> None:
        """Draw one result unless it is drawn; a photo that has gone meanwhile is reported and left out."""
        frame = result.frame
        if self.drawn.get(frame.frame_id) is not None:
            return
        self.drawn[frame.frame_id] = None
        if not result.regions or frame.blob is None:
            return
        name = f"{Path(frame.name or 'photo').stem}-{frame.frame_id[:8]}.jpg"
        try:
            data = await self._transport.blobs.get(frame.blob)
        except Unavailable as error:
            log.warning("no overlay name=%s error=%s", name, error)
            return
        await asyncio.to_thread(self._paint, result, data, self._folder / name)
        self.drawn[frame.frame_id] = f"{self._folder.name}/{name}"

    def _paint(self, result: Result, data: bytes, path: Path) -> None:
        header = read_header(data, max_pixels=self._max_pixels)
        image = pixels.decode(data, header, np.empty(pixels.buffer_bytes(header), np.uint8))
        title = [result.frame.name or result.frame.frame_id[:12], f"{result.frame.asset} · {result.release}"]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(overlay.draw(image, result.regions, title))


async def _write(out: Path, run: _Run, *, stopped: bool) -> Flown:
    """Write the files of all that the log in the output folder holds: of this run and of those before it."""
    transport, artist, release = run.transport, run.artist, run.release
    latest = {r.result_id: r for r in [decode(record.value, Result) async for record in transport.read("results")]}
    results = sorted(latest.values(), key=lambda r: (str(r.frame.captured_at or ""), r.frame.name or "", r.result_id))
    current = {record.key: decode(record.value, Alert) async for record in transport.read("alerts")}
    alerts = sorted(current.values(), key=lambda alert: alert.alert_id)
    dead = [entry.dead for entry in await dead_box.read(transport) if entry.state != "answered"]
    for result in results:
        await artist.draw(result)
    _write_lines(out / "results.jsonl", results)
    _write_lines(out / "alerts.jsonl", alerts)
    _write_lines(out / "dead.jsonl", dead)
    write_geojson(out / "findings.geojson", alerts, results)
    survey = Survey(
        results=results,
        alerts=alerts,
        dead=dead,
        made_at=datetime.now(UTC),
        titles={c.name: c.title for c in release.classes},
        severities=severities_of(release),
        unproven={c.name: c.why for c in release.classes if c.trained and c.people},
        overlays=artist.drawn,
    )
    write_report(out / "report.html", survey)
    return Flown(out, results, alerts, dead, run.refused, stopped)


def _write_lines(path: Path, nouns: Iterable[Noun]) -> None:
    path.write_bytes(b"".join(encode(noun) + b"\n" for noun in nouns))
