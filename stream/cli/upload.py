"""`spanwatch upload`: photos from a card or a folder to the log, and `upload correct` for a flight filed wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from stream.cli.common import (
    DONE,
    FAILED,
    SOME_DEAD,
    ConfigOption,
    JsonOption,
    TransportOption,
    err,
    load_config,
    out,
    print_json,
    run,
)
from stream.config import Config
from stream.errors import Misuse, Unavailable
from stream.uploader import Destination, Flight, Options, Outbox, Progress, Refused, Report, Sent, Uploader
from stream.uploader.outbox import default_path
from stream.uploader.report import span
from stream.uploader.scan import readable

MB = 1_000_000

OutboxOption = Annotated[
    Path | None,
    typer.Option(
        "--outbox", metavar="FILE", help="What has been sent; default ~/.local/state/spanwatch/outbox.sqlite."
    ),
]
DeadlineOption = Annotated[
    float | None, typer.Option(help="Give up when the transport is away for so many seconds; default: never.", min=0.0)
]


def upload(
    paths: Annotated[list[Path], typer.Argument(metavar="PHOTO_OR_FOLDER", help="Folders are searched in depth.")],
    *,
    asset: Annotated[str, typer.Option(help="The structure that was photographed.")],
    drone: Annotated[str | None, typer.Option(help="Which drone took the photos.")] = None,
    flight: Annotated[
        str | None, typer.Option(help="Default: the folder's name and each photo's day, as in bridge-3-2024-05-17.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with what comes to lie there, until Ctrl-C.")] = False,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Copy nothing: worker and photos share this disk, and the photos stay.")
    ] = False,
    limit_mb_s: Annotated[float | None, typer.Option(help="Use at most so many MB/s of the line.", min=0.001)] = None,
    deadline_s: DeadlineOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="Send also what has been sent: a repeat changes nothing.")
    ] = False,
    outbox: OutboxOption = None,
    transport: TransportOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Send the photos of a flight; each is sent once, through any outage, and none is changed.

    Stopped or killed, the same command goes on where it was. Videos and other files are refused and listed; the exit
    code is then 3. A flight that was filed wrongly is moved with `spanwatch upload correct`.

    Example: spanwatch upload /media/sd/DCIM --asset bridge-3 --drone M3E
    """

    async def main() -> int:
        settings = load_config(config, transport)
        missing = [readable(path) for path in paths if not path.exists()]
        if missing and not watch:
            raise Misuse(f"no such file or folder: {', '.join(missing)}; nothing was sent")
        options = Options(
            in_place=in_place,
            max_bytes_per_s=settings.upload.max_bytes_per_s if limit_mb_s is None else limit_mb_s * MB,
            deadline_s=deadline_s,
            settle_s=settings.upload.settle_s,
            again=again,
            recheck_s=settings.retention.frames_hours * 3600,
            source=f"{settings.site}/uploader",
        )
        session = _Session(settings, outbox, Flight(asset=asset, drone=drone, flight=flight), options, json)
        return await session.run(lambda uploader: uploader.watch(paths) if watch else uploader.upload(paths))

    raise typer.Exit(run(main()))


def correct(
    flight: Annotated[str, typer.Argument(help="The flight as it was sent.", metavar="FLIGHT")],
    *,
    asset: Annotated[str, typer.Option(help="The structure that it really shows.")],
    to_flight: Annotated[
        str | None, typer.Option("--flight", help="Another name for it; default: it keeps its own.")
    ] = None,
    drone: Annotated[str | None, typer.Option(help="Another drone; default: as it was sent.")] = None,
    deadline_s: DeadlineOption = None,
    outbox: OutboxOption = None,
    transport: TransportOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Move a flight to another asset: its frames go out again as corrections, its photos need not be sent again.

    Use the computer (or the outbox file) that sent the flight.

    Example: spanwatch upload correct bridge-3-2024-05-17 --asset bridge-4
    """

    async def main() -> int:
        settings = load_config(config, transport)
        options = Options(deadline_s=deadline_s, source=f"{settings.site}/uploader")
        session = _Session(settings, outbox, Flight(asset=asset, drone=drone, flight=to_flight), options, json)
        return await session.run(lambda uploader: uploader.correct(flight))

    raise typer.Exit(run(main()))


class UploadGroup(TyperGroup):
    """`upload` is a command and has one below it: whatever does not begin with `correct` is what to upload.

    A folder of the name `correct` is written `./correct`.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        if args[:1] == ["correct"]:
            return super().make_context(info_name, args, parent=parent, **extra)
        return self.commands["photos"].make_context(info_name, args, parent=parent, **extra)


upload_app = typer.Typer(
    cls=UploadGroup, help="Send the photos of a flight; `upload correct` moves one to another asset."
)
"""Goes into the application with `app.add_typer(upload_app, name="upload")`."""
upload_app.command("photos")(upload)
upload_app.command("correct")(correct)


@dataclass(frozen=True)
class _Session:
    """One call of the command: outbox and destination opened, progress shown, signals heard, the end told."""

    settings: Config
    outbox: Path | None
    flight: Flight
    options: Options
    json: bool

    async def run(self, work: Callable[[Uploader], Awaitable[Report]]) -> int:
        """The exit code; what was done is told even if the work ends with an error."""
        with Outbox(self._outbox_path()) as outbox, _Display() as display:
            destination = Destination.configured(self.settings)
            uploader = Uploader(destination, outbox, self.flight, self.options, display.show)
            cut_off = False
            try:
                with _heard_signals(uploader, display, asyncio.current_task()):
                    with contextlib.suppress(Unavailable):  # it is waited for when the first photo is ready
                        await destination.transport()
                    await work(uploader)
            except asyncio.CancelledError:
                cut_off = True
            finally:
                display.close()
                self._tell(uploader, cut_off)
                await destination.close()
        if uploader.report.left or cut_off:
            return FAILED
        return SOME_DEAD if uploader.report.refused else DONE

    def _outbox_path(self) -> Path:
        if self.outbox is not None:
            return self.outbox
        named = self.settings.upload.outbox
        return Path(named) if named is not None else default_path(os.environ)

    def _tell(self, uploader: Uploader, cut_off: bool) -> None:
        if self.json:
            print_json({"destination": uploader.destination, "cut_off": cut_off} | asdict(uploader.report))
        else:
            out.print(_table(uploader, cut_off))


@contextlib.contextmanager
def _heard_signals(uploader: Uploader, display: _Display, task: asyncio.Task[Any] | None) -> Iterator[None]:
    """The first SIGINT or SIGTERM stops after the photo that is being sent, the second in the middle of it."""
    loop = asyncio.get_running_loop()
    asked: list[int] = []

    def heard(number: int) -> None:
        asked.append(number)
        if len(asked) == 1:
            display.say("stopping after the photo under way; the next Ctrl-C stops at once, and nothing is lost")
            uploader.stop()
        elif task is not None:
            task.cancel()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, heard, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


_TALKATIVE = ("stream.patience", "aiokafka")
"""Loggers that say in their words what the display says for a person."""
_REMIND_S = (60.0, 600.0)
"""During an outage a line is written at its beginning, then after so long, then every so often."""


class _Display:
    """The progress bar on standard error, and a line where something should stay to be read."""

    def __init__(self) -> None:
        self._remind_s: float | None = None
        self._away_s = 0.0
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=err,
            transient=True,
        )
        self._task = self._bar.add_task("looking", total=None)

    def __enter__(self) -> _Display:
        self._levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)

    def close(self) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Write a line that stays, above the bar."""
        self._bar.console.print(Text(line), soft_wrap=True)

    def show(self, event: Progress) -> None:
        self._note_outage(event)
        if event.waiting is not None:
            doing = f"waiting for {event.waiting}"
        else:
            doing = Path(event.current).name if event.current is not None else "looking"
        self._bar.update(
            self._task,
            description=f"{event.done_files} of {event.total_files}  {doing}",
            completed=event.done_bytes,
            total=event.total_bytes or None,
        )

    def _note_outage(self, event: Progress) -> None:
        if event.away_s is None:
            return
        if event.waiting is None:
            if self._remind_s is not None:
                self.say(f"it is back after {span(self._away_s)}: going on")
            self._remind_s = None
            return
        self._away_s = event.away_s
        if self._remind_s is None:
            self.say("the photos stay where they are and go on by themselves; Ctrl-C loses nothing")
            self.say(f"waiting for {event.waiting}")
            self._remind_s = _REMIND_S[0]
        elif event.away_s >= self._remind_s:
            self.say(f"waiting for {event.waiting}")
            self._remind_s = event.away_s + _REMIND_S[1]


def _table(uploader: Uploader, cut_off: bool) -> Table:
    """How it ended, for a person. File names are text and never markup."""
    report = uploader.report
    table = Table(title=Text(f"upload to {uploader.destination}"), title_justify="left")
    table.add_column("photos", justify="right")
    table.add_column("outcome")
    table.add_column("detail", overflow="fold")
    for flight, sent in sorted(_by_flight(report.sent).items()):
        size = decimal(sum(photo.size_bytes for photo in sent))
        table.add_row(str(len(sent)), "sent", Text(f"flight {flight}, {size}"))
    if report.already_there:
        table.add_row(str(len(report.already_there)), "already there", "the destination had them before")
    for reason, paths in _by_reason(report.refused).items():
        table.add_row(str(len(paths)), "refused", Text("\n".join([reason, *paths])))
    if report.left:
        table.add_row(str(len(report.left)), "left", "not sent yet: the same command goes on with them")
    if cut_off:
        table.add_row("", "cut off", "stopped in the middle of a photo: the same command goes on there")
    if not table.rows:
        table.add_row("0", "nothing", "no file was found")
    return table


def _by_reason(refused: Sequence[Refused]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for item in refused:
        reasons.setdefault(item.reason, []).append(item.path)
    return reasons


def _by_flight(sent: Sequence[Sent]) -> dict[str, list[Sent]]:
    flights: dict[str, list[Sent]] = {}
    for photo in sent:
        flights.setdefault(photo.flight, []).append(photo)
    return flights
