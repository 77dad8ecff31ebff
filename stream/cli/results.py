"""`spanwatch results`: what the workers said of each photo."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from stream.cli.common import (
    ConfigOption,
    JsonOption,
    TransportOption,
    err,
    load_config,
    out,
    plain_console,
    print_json,
    run,
)
from stream.errors import BadFrame
from stream.findings.words import percent, stamp
from stream.messages import N, Result, check_version, decode
from stream.transport import open_transport
from stream.transport.protocol import Record, TopicPartition, Transport

PIPE_COLUMNS = 240

FollowOption = Annotated[bool, typer.Option("--follow", help="Go on and print what comes, until Ctrl-C.")]
AssetOption = Annotated[str | None, typer.Option(help="Only of this asset.")]


def results(
    *,
    config: ConfigOption = None,
    transport: TransportOption = None,
    follow: FollowOption = False,
    asset: AssetOption = None,
    flight: Annotated[str | None, typer.Option(help="Only of this flight.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what was seen in each photo, and how much of it could be judged.

    Example: spanwatch results --flight 2025-05-01a --transport local:spanwatch-data
    """

    def wanted(result: Result) -> bool:
        return asset in (None, result.frame.asset) and flight in (None, result.frame.flight)

    async def main() -> None:
        log = await open_transport(load_config(config, transport))
        try:
            tail = Tail(log, "results")
            # A result with its scores is large and a log may hold many thousands: only what is shown is kept.
            rows: dict[str, list[Text]] = {}
            async for _, one in tail.so_far(Result):
                if wanted(one) and one.result_id not in rows:
                    rows[one.result_id] = _cells(one)
                    if as_json:
                        print_json(one)
            if not as_json:
                _print_rows(list(rows.values()))
            if follow:
                sys.stdout.flush()  # whoever reads the pipe wants these before the first new one
                await _follow(tail, lambda one: wanted(one) and one.result_id not in rows, as_json)
        finally:
            await log.close()

    run(main())


async def _follow(tail: Tail, wanted: Callable[[Result], bool], as_json: bool) -> None:
    async for _, one in tail.from_now_on(Result):
        if wanted(one):
            print_json(one) if as_json else out.print(line(_cells(one)), soft_wrap=True)
            sys.stdout.flush()  # whoever reads the pipe waits for this one


class Tail:
    """A topic read in two goes without a gap: all that is there, then all that comes after it."""

    def __init__(self, log: Transport, topic: str, partition: int | None = None) -> None:
        """One partition of the topic; None: all."""
        self._log = log
        self._topic = topic
        self._partition = partition
        self._next: dict[TopicPartition, int] = {}

    async def so_far(self, kind: type[N]) -> AsyncIterator[tuple[Record, N]]:
        """Everything up to the end as of now, oldest first within each partition."""
        async for record in self._log.read(self._topic, partition=self._partition):
            self._next[record.tp] = record.offset + 1
            if (noun := _read(record, kind)) is not None:
                yield record, noun

    async def from_now_on(self, kind: type[N]) -> AsyncIterator[tuple[Record, N]]:
        """What `so_far` has not shown; it never ends."""
        async for record in self._log.read(self._topic, partition=self._partition, follow=True):
            new = record.offset >= self._next.get(record.tp, 0)
            if new and (noun := _read(record, kind)) is not None:
                yield record, noun


def _read(record: Record, kind: type[N]) -> N | None:
    """The noun, or None after a warning: one stray record must not hide the others from whoever reads a list."""
    at = f"{record.topic}/{record.partition}/{record.offset}"
    try:
        check_version(record.headers)
        return decode(record.value, kind)
    except BadFrame:
        problem = f"{at} was written by a newer spanwatch ({record.headers.get('ce_type')}): update this one to see it"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = f"{at} is not a {kind.__name__}: {error}; find out what wrote it"
    err.print(Text(f"left out: {problem}", style="yellow"), soft_wrap=True)
    return None


def new_table(*columns: str, whole: Collection[str] = ()) -> Table:
    """In a narrow window the columns `whole` stay as they are, the others fold; nothing is cut off."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, no_wrap=name in whole, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """As wide as the window; in a pipe or a file wide enough that each entry is one line."""
    console = out if out.is_terminal else plain_console(file=out.file, width=PIPE_COLUMNS)
    console.print(table)


def line(cells: Sequence[Text]) -> Text:
    """One entry on one line, for a list that goes on."""
    return Text("  ").join(cell for cell in cells if cell.plain)


def _print_rows(rows: Sequence[Sequence[Text]]) -> None:
    if not rows:
        out.print("No results.")
        return
    table = new_table("photo", "captured", "asset", "regions", "judged", "release")
    for cells in rows:
        table.add_row(*cells)
    print_table(table)


def _cells(one: Result) -> list[Text]:
    """Names come from strangers: Text, so that a `[red]` in a file's name is not taken for markup."""
    defects: dict[str, int] = {}
    for region in one.regions:
        defects[region.defect] = defects.get(region.defect, 0) + 1
    regions = ", ".join(f"{name} {number}" for name, number in sorted(defects.items())) or "–"
    name = one.frame.name or one.frame.frame_id[:12]
    untrained = [note.defect for note in one.not_inspectable if note.reason == "untrained"]
    judged = percent(one.inspectable) + (f", not {', '.join(untrained)}" if untrained else "")
    cells = [name, stamp(one.frame.captured_at), one.frame.asset, regions, judged, one.release]
    return [Text(cell) for cell in cells]
